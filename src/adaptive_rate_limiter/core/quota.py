"""Units, quotas, and what one call costs in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from adaptive_rate_limiter.exceptions import ConfigurationError

REQUESTS = "requests"
CONCURRENT_REQUESTS = "concurrent_requests"  # bounds what is in flight; no use of it ages
TOKENS = "tokens"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"

ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")

Cost: TypeAlias = Mapping[str, float]
"""What a call takes from each unit, ``{"requests": 1, "tokens": 812}``."""


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `limit` of `unit` in each `window` seconds.

    `algorithm` says how the provider counts: "token_bucket" (refills all the time, the default),
    "fixed_window" or "sliding_window". `burst` is the depth of a token bucket, `limit` unless told.

    Raises ConfigurationError, naming the argument and its value, where one is no positive number.
    """

    unit: str
    limit: float
    window: float = 60.0
    algorithm: str = "token_bucket"
    burst: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise ConfigurationError(
                f'quota.unit must be a word like "requests" or "tokens", got {self.unit!r}'
            )
        _positive("quota.limit", self.limit)
        _positive("quota.window", self.window)
        if self.burst is not None:
            _positive("quota.burst", self.burst)
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(
                f"quota.algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}"
            )


def quotas_from(given: Any) -> tuple[Quota, ...]:
    """Read `quotas=`: Quota objects, mappings of their fields, or ``{unit: number per minute}``."""
    if given is None:
        return ()
    if isinstance(given, Quota):
        return (given,)
    if isinstance(given, Mapping):
        if given.keys() & {"unit", "limit", "window", "algorithm", "burst"}:
            return (_quota_from_fields(given),)
        return tuple(Quota(unit, limit) for unit, limit in given.items())
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return tuple(quota for item in given for quota in quotas_from(item))
    raise ConfigurationError(
        f"quotas must be Quota objects, mappings of their fields, or {{unit: number per minute}}, got {given!r}"
    )


def _quota_from_fields(fields: Mapping[str, Any]) -> Quota:
    known = {"unit", "limit", "window", "algorithm", "burst"}
    if unknown := sorted(fields.keys() - known):
        raise ConfigurationError(f"quota has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    for name in ("unit", "limit"):
        if name not in fields:
            raise ConfigurationError(f"quota.{name} is missing in {dict(fields)!r}")
    return Quota(**fields)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be a positive finite number, got {value!r}")
