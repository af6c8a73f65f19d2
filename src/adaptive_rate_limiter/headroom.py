"""Leave a part of every told limit unused: the provider's `remaining` is kept above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.levels import BucketLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.told import ToldGauge

__all__ = ["keep_headroom"]


class Headroom(Gauge):
    """A told limit seen through a higher floor, and a bucket at a slower pace: a full one is never emptied below the
    floor, and what flows in is not all used either. Windows are counted by the told one alone.

    A call that is larger than what the floor leaves goes when all of the limit is there.
    """

    __slots__ = ("pace", "part", "peak", "told")

    def __init__(self, told: ToldGauge, part: float, now: float) -> None:
        super().__init__(told.unit, told.limit, told.window, told.models, "headroom")
        self.told = told
        self.part = part
        self.peak = 0.0  # the most that was ever left: a bucket may hold less than the limit that is told
        self.pace = BucketLevel(self.rate * told.window, told.window, now, told.capacity)
        self.pace.correct(told.bucket.available(now), now)
        self.follow((self.pace,))
        self.look(now)

    @property
    def rate(self) -> float:
        return (1 - self.part) * super().rate

    def look(self, now: float) -> None:
        """A header was read."""
        told, pace = self.told, self.pace
        if (self.limit, self.window) != (told.limit, told.window):
            self.limit, self.window = told.limit, told.window
            pace.resize(self.rate * told.window, told.window, now)
        if pace.burst != told.capacity:
            pace.deepen(told.capacity, now)
        self.active = told.active
        if told.readings > 1:
            # It follows the likeliest way of counting. The told one waits for all that are plausible, as long as
            # a window at times: to wait so long for what is not even needed would be too much.
            likeliest = told.models[told.contest.likeliest]
            self.active = (told.bucket, pace) if likeliest is told.bucket else (likeliest,)
        self.peak = min(told.capacity, max(self.peak, told.available(now) + told.floor(now)))

    def floor(self, now: float) -> float:
        return self.told.floor(now) + self.part * self.peak

    def available(self, now: float) -> float:
        self.invitation = self.told.invitation  # the provider's word goes before ours
        return super().available(now)

    def ready_at(self, amount: float, now: float) -> float:
        self.invitation = self.told.invitation
        return super().ready_at(amount, now)

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        self.told.refused(amount, retry_after, now)


def keep_headroom(bucket: Bucket, part: float, now: float) -> None:
    """Keep `part` of each limit that is told; to be called whenever headers were read."""
    ledger = bucket.ledger
    kept = [gauge for gauge in ledger.gauges if type(gauge) is Headroom]
    for gauge in kept:
        gauge.look(now)
    if len(kept) < len(ledger.told):
        known = {gauge.told for gauge in kept}
        ledger.gauges.extend(Headroom(told, part, now) for told in ledger.told if told not in known)
