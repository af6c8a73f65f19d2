"""What a call is told that can never pass, or not in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.exceptions import CapacityExceededError

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.queue import Call


def never(bucket: Bucket, call: Call, now: float) -> CapacityExceededError | None:
    """What to say to a call, certain of its size, that is larger than a whole limit; None if it is not."""
    unit, most = None, 0.0
    gauge = bucket.ledger.too_large(call.cost)
    if gauge is not None:
        unit, most = gauge.unit, gauge.capacity
    elif bucket.sizes.most and (found := bucket.sizes.over(call.cost, now)) is not None:
        unit, most = found
    if unit is None:
        return None
    bucket.tally.reject("too_large", unit, None, now)
    return CapacityExceededError(
        f"{call.cost[unit]:,.0f} {unit} can never pass {bucket.bucket_id}: the whole limit is {most:,.0f}",
        bucket.bucket_id,
    )


def in_vain(bucket: Bucket, call: Call, now: float) -> CapacityExceededError | None:
    """What to say to a call that cannot go before its deadline, or behind a pause that is too long."""
    pause, ledger = bucket.pause, bucket.ledger
    if call.deadline is None and now >= pause.until and ledger.longest_window <= bucket.max_pause:
        return None
    alone = max(pause.until, ledger.ready_at(call.cost, now)[0])
    if alone - now > bucket.max_pause:
        return too_long(bucket, alone - now, "max_pause", f"beyond max_pause={bucket.max_pause:g}", now)
    if call.deadline is not None:
        ready = max(alone, bucket.eta(call.cost, now))
        if ready > call.deadline:
            why = f"beyond its deadline in {call.deadline - now:.3g} s"
            return too_long(bucket, ready - now, "deadline", why, now)
    return None


def too_long(bucket: Bucket, seconds: float, reason: str, why: str, now: float) -> CapacityExceededError:
    """What to say to a call that could go in `seconds`, which is too late: `why`."""
    limit = (
        bucket.pause.reason
        if now < bucket.pause.until
        else (bucket.wait.limit if bucket.wait else "the limit")
    )
    bucket.tally.reject(reason, limit, max(0.0, seconds), now)
    return CapacityExceededError(
        f"{bucket.bucket_id} has room for this call in {seconds:,.3f} s ({limit}), {why}",
        bucket.bucket_id,
        max(0.0, seconds),
    )
