"""What a limiter that knew nothing before does after one response: the core itself is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage, charging_for
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.options import call_from
from adaptive_rate_limiter.report import snapshot_bucket
from adaptive_rate_limiter.types import RefusalKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adaptive_rate_limiter.core.queue import Call
    from adaptive_rate_limiter.types import RateLimitInfo

__all__ = ["MAX_PAUSE", "Outlook", "Pace", "outlook"]

MAX_PAUSE = 300.0  # seconds, as Limiter has it unless told
MOST_STEPS = 10_000  # of the core, each an instant at which it asks to be asked again
INSTANT = 0.001  # seconds between two steps at the least, as for its timers
BACKING_OFF = frozenset({RefusalKind.OVERLOAD, RefusalKind.CONCURRENCY})


class Pace(NamedTuple):
    """At most `limit` of `unit` in `window` seconds; `left` of it may be used before the first wait."""

    unit: str
    limit: float
    window: float
    left: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What comes next. `action` is one of pace, wait, stop, back_off, never_retry, nothing_told.

    `wait`: seconds until one more call is sent, None where no time brings it. `refused`: the wait is longer
    than MAX_PAUSE, and until its end calls raise CapacityExceededError instead of standing in line.
    `reasons` are what the limiter itself says that it waits for, in order.
    """

    action: str
    wait: float | None
    reasons: tuple[str, ...]
    refused: bool
    paces: tuple[Pace, ...]


def outlook(info: RateLimitInfo, call: Mapping[str, Any], url: str | None = None) -> Outlook:
    """Feed a bucket of the core one call of this size (arguments of `Limiter.acquire`) that got this response,
    then put one more like it in line, and see when it goes.
    """
    bucket, following = _after(info, call, url, MAX_PAUSE)
    paces = _paces(bucket, following)
    try:
        wait, reasons = _line(bucket, following)
        refused = False
    except CapacityExceededError:
        wait, reasons = _line(*_after(info, call, url, math.inf))
        refused = True
    return Outlook(_action(info, wait, reasons, paces, refused=refused), wait, reasons, refused, paces)


def _after(
    info: RateLimitInfo, size: Mapping[str, Any], url: str | None, max_pause: float
) -> tuple[Bucket, Call]:
    """A bucket that has seen the response, and the call that comes next."""
    bucket = Bucket("next", (), 0.0, max_pause)
    bucket.charge_like(charging_for(url))
    call = _call(bucket, size)
    bucket.record(call, 0.0)
    bucket.observe(call, info, 0.0)
    if info.refusal is None:
        bucket.settle(call, Usage(), 0.0)
    return bucket, _call(bucket, size)


def _call(bucket: Bucket, size: Mapping[str, Any]) -> Call:
    return call_from(bucket, 0.0, None, None, None, **{**size, "estimated": True})


def _paces(bucket: Bucket, call: Call) -> tuple[Pace, ...]:
    """The limits that such a call is held to; the same limit in two scopes counts once."""
    paces: dict[tuple[str, float, float], Pace] = {}
    for told in snapshot_bucket(bucket, 0.0).limits:
        if call.cost.get(told.unit) and math.isfinite(told.remaining):
            pace = Pace(told.unit, told.limit, told.window, max(0.0, told.remaining))
            same = paces.get(pace[:3], pace)
            paces[pace[:3]] = min(same, pace, key=lambda one: one.left)
    return tuple(paces.values())


def _line(bucket: Bucket, call: Call) -> tuple[float | None, tuple[str, ...]]:
    """When the call goes (None: no time brings it) and what it waits for; time jumps to where the core looks next.

    Raises CapacityExceededError where the core refuses it instead.
    """
    bucket.submit(call, 0.0)
    now, reasons = 0.0, dict[str, None]()
    for _ in range(MOST_STEPS):
        if call.hold is not None:
            return now, tuple(reasons)
        bucket.dispatch(now)
        if call.error is not None:
            raise call.error
        if call.hold is None:
            if bucket.wait is not None:
                reasons[bucket.wait.limit] = None
            if bucket.wake_at == math.inf:
                break
            now = max(bucket.wake_at, now + INSTANT)
    return None, tuple(reasons)


def _action(
    info: RateLimitInfo,
    wait: float | None,
    reasons: tuple[str, ...],
    paces: tuple[Pace, ...],
    *,
    refused: bool,
) -> str:
    refusal = info.refusal
    if refusal is not None:
        if not refusal.retryable:
            return "never_retry"
        if refused:
            return "stop"
        told = refusal.retry_after is not None or any(pace.unit in reasons for pace in paces)
        return "back_off" if refusal.kind in BACKING_OFF or not told else "wait"
    if refused:
        return "stop"
    if wait != 0:
        return "wait"
    return "pace" if info.quotas else "nothing_told"
