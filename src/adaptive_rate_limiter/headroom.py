"""Leave a part of every told limit to others: what our own calls take is counted beside what the provider tells.

Headers alone cannot do it. They raise what is believed to be left as soon as it is there, so that whatever was
kept back would be spent after all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.ledger import HoldState
from adaptive_rate_limiter.core.levels import BucketLevel, SlidingLevel, WindowLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.core.told import ToldGauge

__all__ = ["keep_headroom"]


class OwnUse(Gauge):
    """A share of one told limit, counted like that one, which only our own calls take from."""

    __slots__ = ("fixed", "share", "told")

    def __init__(self, told: ToldGauge, share: float, since: float) -> None:
        limit = share * told.limit
        self.fixed = WindowLevel(limit, told.window, since)
        levels = (BucketLevel(limit, told.window, since), self.fixed, SlidingLevel(limit, told.window, since))
        super().__init__(told.unit, limit, told.window, levels)
        self.told = told
        self.share = share

    def follow(self, now: float) -> None:
        """Count as the told limit is counted now, with its size and the end of its window."""
        told = self.told
        limit = self.share * told.limit
        if limit != self.limit or told.window != self.window:
            for level in self.models:
                level.resize(limit, told.window, now)
            self.limit, self.window = limit, told.window
        if len(told.active) != len(self.active):
            plausible = {type(level) for level in told.active}
            self.active = tuple(level for level in self.models if type(level) in plausible)
        if told.window_end is not None and self.fixed.ends_at != told.fixed.ends_at < math.inf:
            self.fixed.ends_at = told.fixed.ends_at
            self.fixed.opened_by_take = None

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """It is the provider's limit that is spent."""
        self.told.refused(amount, retry_after, now)


def keep_headroom(bucket: Bucket, share: float, now: float) -> None:
    """Take no more than `share` of each limit that is told; to be called whenever headers were read."""
    ledger = bucket.ledger
    own = [gauge for gauge in ledger.gauges if type(gauge) is OwnUse]
    for gauge in own:
        gauge.follow(now)
    if len(own) < len(ledger.told):
        known = {gauge.told for gauge in own}
        ledger.gauges += [_own_use(ledger, told, share, now) for told in ledger.told if told not in known]


def _own_use(ledger: Ledger, told: ToldGauge, share: float, now: float) -> OwnUse:
    """With what was sent before the limit was known."""
    lately = [hold for hold in ledger.recent if hold.at > now - told.window and told.unit in hold.cost]
    own = OwnUse(told, share, lately[0].at if lately else now)
    for hold in lately:
        if hold.state not in {HoldState.CANCELLED, HoldState.REFUSED}:
            own.take(hold.cost[told.unit], hold.at)
    own.follow(now)
    return own
