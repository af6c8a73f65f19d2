"""What goes wrong at the provider, by chance or by script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from adaptive_rate_limiter.testing.dialects import Answer, anthropic_error

if TYPE_CHECKING:
    from random import Random

    from adaptive_rate_limiter.testing.calls import RequestInfo

    Script = Callable[[RequestInfo], "Fault | None"]

Drop = Literal["drop_before", "drop_after"]
Fault = int | Drop
"""A status of 500 or above, or a connection cut before the request is charged, or after it was charged and served."""

Faults = Mapping[Any, float] | Iterable[Fault | None] | Callable[["RequestInfo"], Fault | None] | None
"""Probabilities; or one entry for each request in order of arrival, None for no fault; or a decision."""


def fault_script(faults: Faults, rng: Random) -> Script:
    """Raises ValueError for a fault that cannot be emulated, or for probabilities above 1."""
    if faults is None:
        return lambda _call: None
    if callable(faults):
        return faults
    if isinstance(faults, Mapping):
        return _by_chance({_checked(fault): share for fault, share in faults.items()}, rng)
    script = iter([_checked(fault) if fault is not None else None for fault in faults])
    return lambda _call: next(script, None)


def _by_chance(shares: Mapping[Fault, float], rng: Random) -> Script:
    if min(shares.values(), default=0.0) < 0 or sum(shares.values()) > 1:
        raise ValueError(f"probabilities of faults must be positive and sum to at most 1: {shares!r}")

    def draw(_call: RequestInfo) -> Fault | None:
        left = rng.random()
        for fault, share in shares.items():
            left -= share
            if left < 0:
                return fault
        return None

    return draw


def _checked(fault: Any) -> Fault:
    if fault in ("drop_before", "drop_after"):
        return "drop_before" if fault == "drop_before" else "drop_after"
    status = int(fault) if isinstance(fault, int) or str(fault).isdigit() else 0
    if not 500 <= status <= 599:  # noqa: PLR2004 - the range of server errors
        raise ValueError(f"a fault is a status from 500 to 599, 'drop_before' or 'drop_after', not {fault!r}")
    return status


def failure(provider: str, status: int) -> Answer:
    """A server error as the provider words it. It says nothing of any limit."""
    if provider == "anthropic":
        overloaded = status == 529  # noqa: PLR2004 - Anthropic's own
        kind, message = (
            ("overloaded_error", "Overloaded") if overloaded else ("api_error", "Internal server error")
        )
        return Answer(status, anthropic_error(kind, message), {"x-should-retry": "true"})
    if status == 503:  # noqa: PLR2004 - what a proxy in front says when nothing behind it answers
        text = (
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        )
        return Answer(status, text, {}, "text/plain")
    message = "The server had an error while processing your request."
    return Answer(
        status, {"error": {"message": message, "type": "server_error", "param": None, "code": None}}, {}
    )
