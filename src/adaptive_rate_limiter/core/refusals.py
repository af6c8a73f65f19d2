"""What a refusal teaches a bucket, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.hypotheses import MINUTE
from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.types import Refusal, RefusalKind

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.queue import Call

# Refusals that the told limits do not explain, and the seconds in which they come, before another limit is looked for
CONTRADICTIONS, CONTRADICTED_WITHIN = 2, 60.0
NO_END = 3600.0  # seconds until a spent quota that names no end, or a size that was too large, may have become another


def learn(bucket: Bucket, call: Call, refusal: Refusal, now: float) -> None:
    """Pace, shrink, back off or stop, as the kind demands. The hold of a call beyond a limit has ended already."""
    kind, in_flight = refusal.kind, bucket.concurrency.in_flight
    bucket.tally.refuse(refusal, now)
    if kind is RefusalKind.RATE_LIMIT:
        _beyond_a_limit(bucket, call, refusal, now)
        return
    if call.trial is not None:
        bucket.discovery.withdrawn(call.trial)
    bucket.give_back(call, now, counts=False)
    if kind is RefusalKind.OVERLOAD:
        _back_off(bucket, "provider overloaded", refusal, now)
    elif kind is RefusalKind.CONCURRENCY:
        bucket.concurrency.refused(in_flight)
        if in_flight <= 1:  # somebody else's calls: none of ours will end and make room
            _back_off(bucket, "concurrency", refusal, now)
    elif kind is RefusalKind.QUOTA_EXHAUSTED:
        after = NO_END if refusal.retry_after is None else refusal.retry_after
        if after > 0:
            bucket.pause.extend(now + after, "quota exhausted")
        else:  # its end has passed, by this machine's clock
            _back_off(bucket, "quota exhausted", refusal, now)
    elif kind is RefusalKind.REQUEST_TOO_LARGE and refusal.unit is not None and refusal.limit is not None:
        bucket.sizes.refused(refusal.unit, refusal.limit, now + NO_END)


def _back_off(bucket: Bucket, reason: str, refusal: Refusal, now: float) -> None:
    bucket.failures += 1
    bucket.pause.back_off(bucket.failures, now, reason, refusal.retry_after)


def _beyond_a_limit(bucket: Bucket, call: Call, refusal: Refusal, now: float) -> None:
    after, ledger = refusal.retry_after, bucket.ledger
    bucket.limited += 1
    if after is not None:
        bucket.pause.extend(now + after, f"retry-after of {after:g} s")
    if bucket.led:
        ledger.empty(refusal, call.cost, now)
        return
    explained = after is not None or any(
        gauge.available(now) < call.cost.get(gauge.unit, 0.0) for gauge in ledger.gauges
    )
    named = any(gauge.unit == refusal.unit for gauge in ledger.gauges)
    emptied = (explained or named) and ledger.empty(refusal, call.cost, now)
    if call.trial is None and not (explained and emptied):
        bucket.tally.contradict(refusal, now)
        if not _names_another(bucket, refusal) and _first_contradictions(bucket, now):
            return
        bucket.untold = True  # the limits that are known would have let it pass: there is another one
        call.trial = bucket.discovery.sent(call.cost, call.hold.at if call.hold else now)
    if call.trial is not None:
        bucket.discovery.refused(call.trial, now, refusal.unit, after)
        if refusal.limit is not None and refusal.window == MINUTE:
            bucket.discovery.named(call.trial, refusal.limit, now)
        bucket.tally.infer(bucket.inferred_limits().get(REQUESTS), now)


def _names_another(bucket: Bucket, refusal: Refusal) -> bool:
    """Whether it names a limit that is not among the known."""
    named = (refusal.unit, refusal.limit, refusal.window)
    return refusal.limit is not None and all(
        (gauge.unit, gauge.limit, gauge.window) != named for gauge in bucket.ledger.gauges
    )


def _first_contradictions(bucket: Bucket, now: float) -> bool:
    """Wait out the first refusals that the told limits do not explain: a burst, or a neighbour's."""
    if now - bucket.contradicted_at > CONTRADICTED_WITHIN:
        bucket.contradictions = 0
    bucket.contradicted_at = now
    bucket.contradictions += 1
    if bucket.contradictions > CONTRADICTIONS or not bucket.ledger.gauges:
        return False
    bucket.pause.back_off(bucket.contradictions, now, "a refusal that no header explains")
    return True
