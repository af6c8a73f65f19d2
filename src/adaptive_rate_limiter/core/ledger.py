"""What was reserved, what was settled, and what is left under every limit of one bucket."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import Shot, inferred_window
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.levels import EPSILON
from adaptive_rate_limiter.core.quota import CONCURRENT_REQUESTS, REQUESTS, Cost, Quota
from adaptive_rate_limiter.core.told import HALF, JITTER, LOOK_AGAIN, ToldGauge
from adaptive_rate_limiter.core.transit import Transit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adaptive_rate_limiter.types import QuotaReading, Refusal

RECENT = 1024  # holds remembered for a limit that is told for the first time
OVERTAKING = 64  # sends, after one, that may have overtaken it
TINY, HUGE = 1e-3, 1e12  # limits beyond are no limits
MINUTE = 60.0  # what a limit counts in where neither header nor arithmetic says so


class HoldState(Enum):
    """A hold leaves RESERVED once; whatever comes later changes nothing."""

    RESERVED = "reserved"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Hold:
    """What one call has reserved. `spent` is the ledger's running total per unit, this hold included.

    `returned` is what the sliding window of each told gauge had given back until then.
    """

    __slots__ = (
        "answered", "at", "cost", "counted_at", "on_the_way", "returned", "sent", "sent_at", "seq", "spent", "state", "told", "written",
    )  # fmt: skip

    def __init__(self, cost: Cost, at: float, seq: int, spent: dict[str, float]) -> None:
        self.cost = cost
        self.at = at
        self.sent_at = at  # later than `at` where a busy caller took its time
        self.sent = False  # it has left, as far as anybody will say
        self.on_the_way = False  # somebody will say when it is sent, and has not yet
        self.written = False  # `sent_at` is when the request left this machine, not when it was about to
        self.counted_at = at  # by the provider, as far as we know: windows give it back after that
        self.seq = seq
        self.spent = spent
        self.returned: Sequence[float] = ()
        self.answered = False
        self.told: Sequence[Gauge] = ()  # those of which its reply told what remains
        self.state = HoldState.RESERVED


LONGEST_UNSENT = 5.0  # seconds from an admission to its send: for a busy process, or one that sends otherwise
MOST_TOLD = 32  # limits: a peer that tells a new one with each reply must not fill the memory


class Ledger:
    """The gauges of one bucket, moved together: a call is paid from all of them or from none."""

    __slots__ = (
        "gauges",
        "on_the_way",
        "recent",
        "sends_told",
        "seq",
        "spent",
        "told",
        "transit",
        "unanswered",
    )

    def __init__(self, quotas: Iterable[Quota] = (), now: float = 0.0) -> None:
        self.gauges: list[Gauge] = [Gauge.stated(quota, now) for quota in quotas]
        self.spent: dict[str, float] = {}
        self.unanswered: dict[str, float] = {}  # what was reserved and may not be counted in any header yet
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
        spent, unanswered = self.spent, self.unanswered
        for unit, amount in cost.items():
            spent[unit] = spent.get(unit, 0.0) + amount
            unanswered[unit] = unanswered.get(unit, 0.0) + amount
        for gauge in self.gauges:
            amount = cost.get(gauge.unit, 0.0)
            if amount:
                gauge.take(amount, now)
        self.seq += 1
        hold = Hold(cost, now, self.seq, spent.copy())
        if self.told:
            hold.returned = [gauge.sliding.refilled for gauge in self.told]
        self.recent.append(hold)
        if self.sends_told:
            hold.on_the_way = True
            self.on_the_way.append(hold)
            for gauge in self.gauges:
                if gauge.unit in cost:
                    gauge.depart(cost[gauge.unit])
        return hold

    def depart(self, hold: Hold, now: float, *, written: bool, traced: bool) -> None:
        """The call is about to be sent, and if `traced` its end will be told; or it was just `written`.

        Needs no lock.
        """
        self.sends_told = True
        hold.sent_at, hold.written = now, written
        hold.sent = written or not traced

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
        if not self._end(hold, HoldState.SETTLED):
            return False
        for gauge in self.gauges:
            held = hold.cost.get(gauge.unit, 0.0)
            surplus = held - actual.get(gauge.unit, held)
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
        if hold.state is not HoldState.RESERVED:
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
        for unit, amount in hold.cost.items():
            self.unanswered[unit] -= amount
        for gauge in self.told:
            if counted is None or gauge.unit in counted:
                gauge.answered(hold.cost.get(gauge.unit, 0.0), hold.seq)

    # What can be paid

    def shortage(self, cost: Cost, now: float) -> tuple[Gauge, float] | None:
        """The first gauge that cannot pay, and how much it lacks; None if all can.

        More than a limit ever holds is paid by a full gauge, and leaves debt: the estimate may be wrong.
        """
        if self.on_the_way:
            self._look_out(now)
        for gauge in self.gauges:
            amount = cost.get(gauge.unit)
            if amount:
                left = gauge.available(now)
                if left < amount - EPSILON * amount:
                    if self.unanswered.get(gauge.unit, 0.0) <= EPSILON:
                        gauge.catch_up(self.recent[-1].at if self.recent else now, now)
                        left = gauge.available(now)
                    wanted = min(amount, gauge.capacity - gauge.floor(now))
                    if left < wanted * (1 - EPSILON):
                        return gauge, wanted - left
        return None

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
                ready = _eta(gauge, amount, now)
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
            if cost.get(gauge.unit, 0.0) > gauge.capacity * (1 + EPSILON):
                return gauge
        return None

    # What headers say

    def read(self, readings: tuple[QuotaReading, ...], hold: Hold, now: float) -> bool:
        """Take in the limits that the reply to `hold` told. What a partial set leaves out is kept.

        True if all are well known, and far from being reached.
        """
        matched = self._matched(readings, hold, now)
        for gauge, reading in matched:
            if gauge.counts(reading):
                gauge.told_by = hold.seq
        self._answer(hold)
        told: list[Gauge] = []
        at_ease = len(matched) == len(self.told)
        for gauge, reading in matched:
            gauge.readings += 1
            if not gauge.is_at_ease(reading):
                at_ease = False
            elif gauge.readings % LOOK_AGAIN:
                continue
            if reading.remaining is not None:
                told.append(gauge)
            place = gauge.place
            returned = hold.returned[place] if place < len(hold.returned) else 0.0
            unit = reading.unit
            since = self.spent.get(unit, 0.0) - hold.spent.get(unit, 0.0)
            newest = hold.seq > gauge.newest
            shot = Shot(
                reading,
                newest,
                hold.sent_at,
                since,
                self._overtaking(hold, unit) if since else 0.0,
                gauge.returned(now) - returned,
                self.unanswered.get(unit, 0.0),
                now,
            )
            gauge.read(shot)
            if newest:
                gauge.newest = hold.seq
        hold.told = told
        return at_ease

    def _matched(
        self, readings: tuple[QuotaReading, ...], hold: Hold, now: float
    ) -> list[tuple[ToldGauge, QuotaReading]]:
        """Each reading with its gauge, a new one where there is none; without those that make no sense."""
        told = self.told
        if len(told) == len(readings):  # the same set as ever, in the same order
            for gauge, reading in zip(told, readings, strict=True):
                if not (gauge.tells(reading) and _plausible(reading)):
                    break
            else:
                return list(zip(told, readings, strict=True))
        readings = tuple(reading for reading in readings if _plausible(reading))
        matched = []
        for reading in readings:
            found = self._gauge_for(reading, readings) or self._new_gauge(reading, hold, now)
            if found is not None:
                matched.append((found, reading))
        return matched

    def _gauge_for(self, reading: QuotaReading, together: tuple[QuotaReading, ...]) -> ToldGauge | None:
        told = [gauge for gauge in self.told if gauge.unit == reading.unit and gauge.scope == reading.scope]
        siblings = sum(other.unit == reading.unit and other.scope == reading.scope for other in together)
        if siblings > 1 or len(told) > 1:  # several windows on one unit: the window tells them apart
            told = [gauge for gauge in told if gauge.window == (reading.window or MINUTE)]
        return told[0] if told else None

    def _new_gauge(self, reading: QuotaReading, hold: Hold, now: float) -> ToldGauge | None:
        limit = reading.limit or reading.remaining or 0.0
        if limit < TINY or reading.unit == CONCURRENT_REQUESTS or len(self.told) >= MOST_TOLD:
            return None
        window = inferred_window(reading) or MINUTE
        lately = [past for past in self.recent if past.at > now - window and reading.unit in past.cost]
        since = lately[0].at if lately else now
        gauge = ToldGauge(reading, limit, window, since, len(self.told))
        for past in lately:
            if past.state not in {HoldState.CANCELLED, HoldState.REFUSED}:
                gauge.take(past.cost[reading.unit], past.at)
                if self.sends_told and not past.sent and past.state is HoldState.RESERVED:
                    if not past.on_the_way:
                        past.on_the_way = True
                        self.on_the_way.append(past)
                    gauge.depart(past.cost[reading.unit])
        if reading.remaining is not None:
            sent_since = self.spent.get(reading.unit, 0.0) - hold.spent.get(reading.unit, 0.0)
            if limit - reading.remaining <= gauge.fixed.taken:  # no more than our own: nobody else was here
                sent_since -= self._overtaking(hold, reading.unit)
            sure = reading.remaining - min(sent_since, self.unanswered.get(reading.unit, 0.0))
            for level in gauge.models:
                level.correct(min(level.available(now), sure), now)
        self.gauges.append(gauge)
        self.told.append(gauge)
        return gauge

    def _overtaking(self, hold: Hold, unit: str) -> float:
        """What was sent just after `hold`, and may have been counted before it."""
        recent, total = self.recent, 0.0
        place = len(recent) - (self.seq - hold.seq)  # of the one after it
        if place > 0:
            until = hold.sent_at + JITTER
            for later in range(place, min(len(recent), place + OVERTAKING)):
                if recent[later].at > until:
                    break
                total += recent[later].cost.get(unit, 0.0)
        return total

    # What only the provider can see

    def arrived(self, hold: Hold, now: float) -> None:
        """A reply came: the provider has counted `hold`, and windows give it back that much later."""
        by = self.transit.counted_by(hold, now)
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


def _plausible(reading: QuotaReading) -> bool:
    """Whether arithmetic with it can be trusted: a limit near zero makes waits endless."""
    limit, window, remaining, reset = reading.limit, reading.window, reading.remaining, reading.reset_after
    return (
        (limit is None or TINY <= limit <= HUGE)
        and (window is None or TINY <= window <= HUGE)
        and (remaining is None or 0 <= remaining <= HUGE)
        and (reset is None or 0 <= reset <= HUGE)
    )


def _eta(gauge: Gauge, amount: float, now: float) -> float:
    left = gauge.available(now)
    if amount <= gauge.capacity:
        return gauge.ready_at(amount, now)
    if gauge.algorithm == "token_bucket":
        return now + (amount - left) / gauge.rate
    whole = gauge.ready_at(gauge.capacity, now)
    if whole <= now:  # untouched: its first window begins with the first call
        whole = now + gauge.window
    return whole + (math.ceil((amount - left) / gauge.limit) - 1) * gauge.window
