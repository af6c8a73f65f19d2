"""What was reserved, what was settled, and what is left under every limit of one bucket."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.gauge import HALF, Gauge
from adaptive_rate_limiter.core.hold import RESERVED, SETTLED, Hold, HoldState
from adaptive_rate_limiter.core.levels import EPSILON
from adaptive_rate_limiter.core.matching import matched
from adaptive_rate_limiter.core.quota import REQUESTS, Cost, Quota
from adaptive_rate_limiter.core.shots import shot_of
from adaptive_rate_limiter.core.told import JITTER, LOOK_AGAIN, ToldGauge
from adaptive_rate_limiter.core.transit import Transit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adaptive_rate_limiter.types import QuotaReading, Refusal

RECENT = (
    256  # holds remembered beside those in flight; more of them leave a processor's cache before they end
)
LONGEST_UNSENT = 5.0  # seconds from an admission to its send: for a busy process, or one that sends otherwise
GRACE, NEARLY = 1 + EPSILON, 1 - EPSILON


class Ledger:
    """The gauges of one bucket, moved together: a call is paid from all of them or from none."""

    __slots__ = (
        "gauges", "on_the_way", "recent", "sends_told", "seq", "spent", "told", "transit", "unanswered",
    )  # fmt: skip

    def __init__(self, quotas: Iterable[Quota] = (), now: float = 0.0) -> None:
        self.gauges: list[Gauge] = [Gauge.stated(quota, now) for quota in quotas]  # one for each limit
        self.spent: dict[str, float] = defaultdict(float)  # by unit, in all
        self.unanswered: set[Hold] = set()  # maybe in no header yet
        self.told: list[ToldGauge] = []  # those of the gauges that headers tell, in the order of their first
        self.recent: deque[Hold] = deque(maxlen=RECENT)
        self.transit = Transit()
        self.sends_told = False  # somebody watches the wire, and says when each call is really sent
        self.on_the_way: deque[Hold] = (
            deque()
        )  # those that were not sent yet, in the order of their admission
        self.seq = 0

    # Holds

    def reserve(self, cost: Cost, now: float) -> Hold:
        """Take `cost` from every gauge; whether it can pay was asked before (`shortage`)."""
        hold = self.hold(cost, now)
        self.take(hold)
        return hold

    def hold(self, cost: Cost, at: float) -> Hold:
        """The next of all, of which no gauge has heard."""
        self.seq += 1
        return Hold(cost, at, self.seq)

    def take(self, hold: Hold) -> None:
        """Every gauge hears of it."""
        cost, spent, sends_told = hold.cost, self.spent, self.sends_told
        for unit, taken in cost.items():
            spent[unit] += taken
        for gauge in self.gauges:
            amount = cost.get(gauge.unit)
            if amount:
                gauge.take(amount, hold.at)
                if sends_told:
                    gauge.depart(amount)
        if self.told:
            hold.marks = [gauge.mark(cost, spent) for gauge in self.told]
        self.recent.append(hold)
        self.unanswered.add(hold)
        if sends_told:
            hold.on_the_way = True
            self.on_the_way.append(hold)

    def reserved_after(self, hold: Hold, unit: str) -> float:
        """What was reserved of `unit` since; after a hold that is long gone, at least."""
        return math.fsum(later.cost.get(unit, 0.0) for later in self.remembered() if later.seq > hold.seq)

    def remembered(self) -> list[Hold]:
        """Those of late, and all that are in flight, in the order of their admission."""
        return sorted({*self.recent, *self.unanswered}, key=lambda hold: hold.seq)

    def depart(self, hold: Hold, now: float, written: bool, traced: bool) -> None:
        """The call is about to be sent, and if `traced` its end will be told; or it was just `written`.

        Needs no lock.
        """
        self.sends_told = True
        hold.sent_at, hold.written = now, written
        hold.sent = written or not traced

    def resume(self, hold: Hold, now: float) -> None:
        """Whoever waited for the admission goes on: the call is not sent before. Needs no lock."""
        hold.sent_at = now

    def _look_out(self, now: float) -> None:
        """Who was sent has reached the provider soon after; who was not in a long time is somebody else's concern."""
        waiting = self.on_the_way
        while waiting:
            hold = waiting[0]
            if hold.on_the_way:
                at = (
                    hold.sent_at + JITTER
                    if hold.sent
                    else hold.at + min(LONGEST_UNSENT, self.shortest_window)
                )
                if at > now:
                    break
                self._arrive(hold, at)
            waiting.popleft()

    def _arrive(self, hold: Hold, at: float) -> None:
        if hold.on_the_way:
            hold.on_the_way = False
            for gauge in self.gauges:
                if gauge.unit in hold.cost:
                    gauge.arrive(hold.cost[gauge.unit], at)

    def settle(self, hold: Hold, actual: Cost, now: float) -> bool:
        """Replace the reservation by what was really used. False if the hold had already ended."""
        if not self._end(hold, SETTLED):
            return False
        cost = hold.cost
        for gauge in self.gauges:
            unit = gauge.unit
            held = cost.get(unit, 0.0)
            surplus = held - actual.get(unit, held)
            if surplus:
                gauge.repay(surplus, now, hold.counted_at, counted=gauge in hold.told)
        return True

    def cancel(self, hold: Hold, now: float) -> bool:
        """Give all of it back: the request was never sent."""
        return self._give_back(hold, HoldState.CANCELLED, now, keep=())

    def refuse(self, hold: Hold, now: float, *, counts: bool) -> bool:
        """Give the tokens back; the request itself only if this provider does not count refusals."""
        return self._give_back(hold, HoldState.REFUSED, now, keep=(REQUESTS,) if counts else ())

    def lapse(self, hold: Hold) -> bool:
        """Nobody will ever know what became of it: it stays charged, and ages out like any other use."""
        return self._end(hold, HoldState.UNKNOWN)

    def _give_back(self, hold: Hold, state: HoldState, now: float, keep: tuple[str, ...]) -> bool:
        if not self._end(hold, state, keep):
            return False
        for gauge in self.gauges:
            amount = hold.cost.get(gauge.unit, 0.0)
            if amount and gauge.unit not in keep:
                gauge.repay(amount, now, hold.counted_at, counted=gauge in hold.told)
        return True

    def _end(self, hold: Hold, state: HoldState, counted: tuple[str, ...] | None = None) -> bool:
        if hold.state is not RESERVED:
            return False
        hold.state = state
        if hold.on_the_way:
            self._arrive(hold, hold.sent_at)
        self._answer(hold, counted)
        return True

    def _answer(self, hold: Hold, counted: tuple[str, ...] | None = None) -> None:
        """Whatever the provider counts for `hold`, all units or those that are `counted`, it has counted by now."""
        if hold.answered:
            return
        hold.answered = True
        self.unanswered.discard(hold)
        for gauge in self.told:
            amount = hold.cost.get(gauge.unit)
            if amount:
                gauge.answered(amount, hold.seq, counted=counted is None or gauge.unit in counted)

    def in_flight(self) -> dict[str, float]:
        """By unit: what was reserved, and may not be counted in any header yet."""
        total: dict[str, float] = defaultdict(float)
        for hold in self.unanswered:
            for unit, amount in hold.cost.items():
                total[unit] += amount
        return total

    # What can be paid

    def shortage(self, cost: Cost, now: float, *, certain: bool = False) -> tuple[Gauge, float] | None:
        """The first gauge that cannot pay, and how much it lacks; None if all can.

        More than a limit ever holds is paid by a full gauge, and leaves debt, unless it is certain: the estimate
        may be wrong.
        """
        if self.on_the_way:
            self._look_out(now)
        for gauge in self.gauges:
            amount = cost.get(gauge.unit)
            if amount:
                left = gauge.available(now)
                if left < amount * NEARLY:
                    if not self.unanswered:
                        gauge.catch_up(self.recent[-1].at if self.recent else now, now)
                        left = gauge.available(now)
                    wanted = min(amount, gauge.capacity - gauge.floor(now))
                    if left < wanted * NEARLY or (certain and amount > gauge.capacity * GRACE):
                        return gauge, wanted - left
        return None

    def spare(self, now: float) -> dict[str, float]:
        """By unit: what may surely be taken without asking again."""
        spare: dict[str, float] = {}
        for gauge in self.gauges:
            spare[gauge.unit] = min(gauge.spare(now), spare.get(gauge.unit, math.inf))
        return spare

    def ready_at(self, cost: Cost, now: float) -> tuple[float, Gauge | None]:
        """When all gauges can pay `cost`, if nothing else is taken, and the one that is last."""
        latest, binding = now, None
        for gauge in self.gauges:
            amount = cost.get(gauge.unit)
            if amount:
                ready = gauge.ready_at(amount, now)
                if ready > latest:
                    latest, binding = ready, gauge
        return latest, binding

    def eta(self, total: Cost, now: float) -> tuple[float, Gauge | None]:
        """When the gauges will have paid `total`, however much that is, and the gauge that binds."""
        latest, binding = now, None
        for gauge in self.gauges:
            amount = total.get(gauge.unit)
            if amount:
                ready = gauge.eta(amount, now)
                if ready > latest:
                    latest, binding = ready, gauge
        return latest, binding

    @property
    def longest_window(self) -> float:
        """Seconds; no limit keeps a call waiting for longer, but for debt."""
        longest = 0.0
        for gauge in self.gauges:
            longest = max(longest, gauge.window)
        return longest

    @property
    def shortest_window(self) -> float:
        return min((gauge.window for gauge in self.gauges), default=math.inf)

    def too_large(self, cost: Cost) -> Gauge | None:
        """A gauge whose whole limit is smaller than `cost`."""
        for gauge in self.gauges:
            if cost.get(gauge.unit, 0.0) > gauge.capacity * GRACE:
                return gauge
        return None

    # What headers say

    def read(self, readings: tuple[QuotaReading, ...], hold: Hold, now: float) -> bool:
        """Take in the limits that the reply to `hold` told. What a partial set leaves out is kept.

        True if all are well known, and far from being reached.
        """
        found = matched(self, readings, hold, now)
        at_ease = len(found) == len(self.told)
        taken: list[tuple[ToldGauge, QuotaReading]] = []
        for gauge, reading in found:
            gauge.readings += 1
            if not gauge.is_at_ease(reading):
                at_ease = False
            elif gauge.readings % LOOK_AGAIN:
                continue
            taken.append((gauge, reading))
            if gauge.counts(reading):
                gauge.told_by = hold.seq
        self._answer(hold)
        told: list[Gauge] = []
        for gauge, reading in taken:
            if reading.remaining is not None:
                told.append(gauge)
            gauge.read(shot_of(self, gauge, reading, hold, now))
            gauge.newest = max(gauge.newest, hold.seq)
        hold.told = told
        return at_ease

    # What only the provider can see

    def arrived(self, hold: Hold, now: float, processing: float = 0.0) -> None:
        """A reply came, on which the provider says to have worked for `processing` seconds: it has counted `hold`, and
        windows give it back that much later.
        """
        by = self.transit.counted_by(hold, now, processing)
        for gauge in self.gauges:
            amount = hold.cost.get(gauge.unit, 0.0)
            if amount:
                gauge.delay(amount, hold.counted_at, by)
        hold.counted_at = by

    def empty(self, refusal: Refusal, cost: Cost, now: float) -> bool:
        """A refusal says that its unit (None: whichever is scarcest) is short; False if it speaks of none of the gauges."""
        unit = refusal.unit
        gauges = [g for g in self.gauges if cost.get(g.unit) and unit in (None, g.unit)]
        if not gauges:
            return False
        scarcest = min(gauges, key=lambda gauge: gauge.available(now) / gauge.limit)
        if scarcest.available(now) > HALF * scarcest.limit:
            return False  # there is another limit, of which no header tells
        scarcest.refused(cost[scarcest.unit], refusal.retry_after, now)
        return True

    def share(self, cost: Cost) -> float:
        """The largest part of any limit that `cost` takes (its dominant share)."""
        shares = [cost[gauge.unit] / gauge.limit for gauge in self.gauges if gauge.unit in cost]
        return max(shares, default=cost.get(REQUESTS, 1.0))
