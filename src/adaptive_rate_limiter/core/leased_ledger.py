"""A ledger whose limits are shared: what headers tell goes to the pool, which alone lets calls go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import Shot, fit_of_reset
from adaptive_rate_limiter.core.leased_gauge import LeaseGauge, slack
from adaptive_rate_limiter.core.ledger import Ledger
from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.core.told import ToldGauge

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.hold import Hold, HoldState
    from adaptive_rate_limiter.core.lease import Lease
    from adaptive_rate_limiter.core.quota import Cost
    from adaptive_rate_limiter.types import QuotaReading


class LeasedLedger(Ledger):
    __slots__ = ("late", "lease", "sent")

    def __init__(self, lease: Lease) -> None:
        super().__init__()
        self.lease = lease
        self.sent = 0.0  # requests, but for those that were given back
        self.late: dict[Hold, None] = {}  # sent long after their admission, which the pool has not heard of

    def reserve(self, cost: Cost, now: float) -> Hold:
        self.sent += cost.get(REQUESTS, 0.0)
        return super().reserve(cost, now)

    def _give_back(self, hold: Hold, state: HoldState, now: float, keep: tuple[str, ...]) -> bool:
        given = super()._give_back(hold, state, now, keep)
        if given:
            self.sent -= hold.cost.get(REQUESTS, 0.0)
        return given

    def depart(self, hold: Hold, now: float, written: bool, traced: bool) -> None:
        super().depart(hold, now, written, traced)
        self._look_at_clock(hold)

    def resume(self, hold: Hold, now: float) -> None:
        super().resume(hold, now)
        self._look_at_clock(hold)

    def _look_at_clock(self, hold: Hold) -> None:
        if self.lease.outage:
            return  # what is sent without a pool counts from when it is told
        if hold.sent_at - hold.at > slack(self.shortest_window):
            self.late[hold] = None

    def take_late(self) -> list[Hold]:
        """Those that are to be told of now. Others may come in meanwhile, of threads that take no lock."""
        return [self.late.popitem()[0] for _ in range(len(self.late))]

    def read(self, readings: tuple[QuotaReading, ...], hold: Hold, now: float) -> bool:
        judged = {told: (told.contest.copy(), told.active, told.followed) for told in self.told}
        at_ease = super().read(readings, hold, now)
        if any(isinstance(gauge, ToldGauge) for gauge in self.gauges):
            shared = (self.lease.shared(gauge, hold) for gauge in self.gauges)
            self.gauges[:] = [gauge for gauge in shared if gauge is not None]
        for told in self.told:
            if told not in hold.told:
                continue
            reading = next((reading for reading in readings if told.tells(reading)), None)
            if reading is not None and self.lease.workers > 1:
                if told in judged:
                    told.contest, told.active, followed = judged[told]
                    told.follow(followed)
                _weigh_reset(told, reading, hold, now)
            for gauge in self.gauges:
                if reading is not None and isinstance(gauge, LeaseGauge) and gauge.shape is told:
                    gauge.note(reading, hold)
        return at_ease


def _weigh_reset(told: ToldGauge, reading: QuotaReading, hold: Hold, now: float) -> None:
    """Judge ways of counting by the reset alone: what remains depends on the others, who are many.

    The oldest use of a sliding window may be theirs, so it is never less likely than a fixed one.
    """
    if reading.reset_after is None:
        return
    shot = Shot(
        reading,
        newest=True,
        sent_at=hold.sent_at,
        since=0.0,
        overtaking=0.0,
        ahead=0.0,
        returned=0.0,
        unread=0.0,
        in_doubt=0.0,
        now=now,
    )
    bucket, fixed, sliding = fit_of_reset(told, shot, reading.reset_after)
    if told.contest.judge((bucket, fixed, max(fixed, sliding))):
        told.choose()
