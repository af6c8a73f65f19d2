"""What the limiter knows, as values and as sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from adaptive_rate_limiter.core.leased_ledger import LeasedLedger

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from adaptive_rate_limiter.clock import Clock
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.quota import Cost
    from adaptive_rate_limiter.core.reports import AccountReport, TallyReport
    from adaptive_rate_limiter.options import WorkOptions

__all__ = ["BucketSnapshot", "Forecast", "LimitSnapshot", "LimiterSnapshot", "Reports"]

AT_ONCE = 0.05  # seconds: what would be said as 0.0 s
TEN = 10


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """One limit: `remaining` of `limit` per `window` seconds; `source` is "stated", "told" or "inferred".

    `capacity`: the most that can remain at once; of a token bucket, its depth.
    """

    unit: str
    limit: float
    window: float
    remaining: float
    algorithm: str
    source: str
    capacity: float = math.nan


@dataclass(frozen=True, slots=True)
class BucketSnapshot:
    """One bucket. `paused_for` and `eta` (of the last call in line) are seconds.

    `most_in_flight`: calls that may be in flight now; inf where nothing bounds them. `host` and `credential` (a
    short keyed hash) are None until a request was seen. `tally`: what was counted since the bucket was made. `on_outage`:
    what is done while the backend that processes share is out of reach, None where there is none; `outage`: it is.
    """

    bucket_id: str
    waiting: int
    in_flight: int
    admitted: int
    refused: int
    paused_for: float
    eta: float
    limits: tuple[LimitSnapshot, ...]
    account: AccountReport
    tally: TallyReport
    model: str | None = None
    host: str | None = None
    credential: str | None = None
    most_in_flight: float = math.inf
    on_outage: str | None = None
    outage: bool = False


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """All buckets of a limiter at one moment."""

    buckets: tuple[BucketSnapshot, ...]

    @property
    def waiting(self) -> int:
        return sum(bucket.waiting for bucket in self.buckets)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Some work takes `seconds` and is bound by the limit on `binds`; None where no limit is known yet."""

    seconds: float | None
    binds: str | None

    def __str__(self) -> str:
        if self.seconds is None:
            return "no limit is known yet"
        if self.seconds < AT_ONCE:
            return "at once"
        return f"about {duration(self.seconds)}" + (f", bound by {self.binds}" if self.binds else "")


class Reports(Protocol):
    """What a limiter tells those who show it: views, plots and progress know no more of it."""

    clock: Clock

    @property
    def waiting(self) -> int: ...

    def snapshot(self) -> LimiterSnapshot: ...

    def explain(self, model: str | None = None, *, most: int = 20) -> list[str]: ...

    def forecast(self, *, model: str | None = None, **amounts: Unpack[WorkOptions]) -> Forecast: ...


def snapshot_bucket(bucket: Bucket, now: float) -> BucketSnapshot:
    limits = [
        LimitSnapshot(
            gauge.unit,
            gauge.limit,
            gauge.window,
            gauge.available(now),
            gauge.algorithm,
            gauge.source,
            gauge.capacity,
        )
        for gauge in bucket.ledger.gauges
    ]
    limits += [
        LimitSnapshot(unit, limit, 60.0, math.nan, "unknown", "inferred")
        for unit, limit in bucket.inferred_limits().items()
    ]
    host, credential = bucket.origin or (None, None)
    in_flight = bucket.concurrency.in_flight
    lease = bucket.ledger.lease if isinstance(bucket.ledger, LeasedLedger) else None
    return BucketSnapshot(
        bucket_id=bucket.bucket_id,
        waiting=bucket.queue.count,
        in_flight=in_flight,
        admitted=bucket.account.admitted,
        refused=bucket.tally.refused,
        paused_for=max(0.0, bucket.pause.until - now),
        eta=line_eta(bucket, now) - now if bucket.queue.count else 0.0,
        limits=tuple(limits),
        account=bucket.account.report(bucket.ledger.gauges, now),
        tally=bucket.tally.report(bucket.account, bucket.ledger, bucket.queue, in_flight, now),
        model=bucket.model,
        host=host,
        credential=credential or None,
        most_in_flight=bucket.concurrency.window,
        on_outage=lease.on_outage if lease is not None else None,
        outage=lease is not None and lease.outage,
    )


def line_eta(bucket: Bucket, now: float) -> float:
    """When the last call in line goes, as far as the limits are known."""
    return bucket.eta(dict.fromkeys(bucket.queue.totals, 0.0), now)


def explain_bucket(bucket: Bucket, now: float, most: int) -> list[str]:
    """Sentences for those in line, the oldest first."""
    waiting = sorted(bucket.queue.calls(), key=lambda call: call.rank)
    sentences = []
    total: dict[str, float] = {}
    for ahead, call in enumerate(waiting[:most]):
        for unit, amount in call.cost.items():
            total[unit] = total.get(unit, 0.0) + amount
        why, goes_in = _why(bucket, total, now)
        who = f" of {call.tenant}" if call.tenant else ""
        behind = f"{ahead:,} ahead of it" if ahead else "next in line"
        when = f"goes in about {duration(goes_in)}" if goes_in >= AT_ONCE else "goes as soon as that allows"
        place = f"call {ahead + 1:,} of {len(waiting):,}{who}"
        sentences.append(f"{bucket.bucket_id}: {place} {why}, {behind}, {when}")
    return sentences


def _why(bucket: Bucket, total: Cost, now: float) -> tuple[str, float]:
    """What the last of the calls that take `total` waits for, and how many seconds longer."""
    goes_at, gauge = bucket.ledger.eta(total, now)
    for unit, limit in bucket.inferred_limits().items():
        goes_at = max(goes_at, now + 60.0 * total.get(unit, 0.0) / limit)
    goes_in = max(goes_at, bucket.pause.until) - now
    if now < bucket.pause.until:
        return f"waits out a pause ({bucket.pause.reason})", goes_in
    if gauge is not None:
        missing = total[gauge.unit] - gauge.available(now)
        per = f"{gauge.limit:,.0f} per {gauge.window:g} s"
        return f"waits for {gauge.unit} ({figure(missing)} missing of {per})", goes_in
    if bucket.wait is not None:
        return f"waits for {bucket.wait.limit}", goes_in
    return "is about to go", goes_in


def forecast_bucket(bucket: Bucket, work: Cost, now: float) -> Forecast:
    """How long `work` takes, put in line now."""
    inferred = bucket.inferred_limits()
    totals = bucket.queue.totals
    total = {unit: amount + totals.get(unit, 0.0) for unit, amount in work.items()}
    if not any(total.get(unit) for unit in (*inferred, *(gauge.unit for gauge in bucket.ledger.gauges))):
        return Forecast(None, None)
    ready, gauge = bucket.ledger.eta(total, now)
    binds = gauge.unit if gauge is not None else None
    for unit, limit in inferred.items():
        by_inferred = now + total.get(unit, 0.0) * 60.0 / limit
        if by_inferred > ready:
            ready, binds = by_inferred, unit
    if bucket.pause.until > ready:
        ready, binds = bucket.pause.until, bucket.pause.reason
    return Forecast(max(0.0, ready - now), binds)


def figure(amount: float) -> str:
    """An amount as a person says it."""
    return f"{amount:,.0f}" if abs(amount) >= TEN or amount == int(amount) else f"{amount:.1f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.8 s, 33 min, 2 h 5 min."""
    if seconds < 100:  # noqa: PLR2004 - below, seconds say more than minutes
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits are enough
    minutes = round(seconds / 60)
    if minutes < 120:  # noqa: PLR2004 - below, minutes say more than hours
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
