"""What an unannounced limit may be: ways of counting, and for each the limits that explain all that was seen.

Under one way of counting every send needs some least limit to pass. What passed bounds the limit from below,
what was refused from above; between two bounds all is possible. Each way carries a weight that grows when
it foresees what happens. This is a Bayes filter whose every grid has shrunk to an interval, and costs as little.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right

MINUTE = 60.0
GUARD = 0.1  # seconds: the provider counts a call when it arrives, not when it is sent
JITTER = 0.05  # the same for two sends in a row
SURPRISE = 0.02  # chance of an outcome against the prediction
UNEXPLAINED = 0.25  # chance that strangers, and not the way of counting, keep us from a limit that was named
LEAST_WEIGHT = 1e-4  # no way of counting is ever quite ruled out: limits change
GRACE = 0.02  # part of a limit by which bounds may contradict each other: sends overtake each other
DROP = 5.0  # a limit that was lowered is looked for down to this part of what it was
STALE = 45.0  # seconds after which a refusal no longer proves that the limit is as low
FINE = 1.04  # bounds as close as this are one limit
RISE = 1.1  # how much higher the limit may be then
INSTANT = 1e-6  # before a send, so that it counts as sent afterwards
KEPT = 4096  # sends remembered


class History:
    """What passed, and when, in one unit."""

    __slots__ = ("base", "times", "total", "totals")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.totals: list[float] = []  # up to and with each
        self.base = self.total = 0.0  # all that was forgotten, and all

    def add(self, amount: float, at: float) -> None:
        if len(self.times) >= 2 * KEPT:
            self.base = self.totals[KEPT - 1]
            del self.times[:KEPT], self.totals[:KEPT]
        self.total += amount
        self.times.append(max(at, self.times[-1]) if self.times else at)
        self.totals.append(self.total)

    def since(self, at: float) -> float:
        """What was sent after `at`, not with it."""
        place = bisect_right(self.times, at)
        return self.total - (self.totals[place - 1] if place else self.base)

    def leaves_at(self, amount: float) -> float:
        """When the last of all but the newest `amount` was sent; before all times if there is no more."""
        if self.total - self.base <= amount:
            return -math.inf
        place = bisect_left(self.totals, self.total - amount - 1e-9 * self.total)
        return self.times[min(place, len(self.times) - 1)]


class Family(ABC):
    """One way of counting. `low` passes for certain and `high` does not, per minute."""

    __slots__ = ("high", "high_at", "low", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.low, self.high = 0.0, math.inf
        self.high_at = -math.inf

    @abstractmethod
    def needed(self, history: History, amount: float, at: float) -> tuple[float, float]:
        """The least limit under which `amount` may pass, and under which it must.

        What was sent within JITTER before it may come after it.
        """

    @abstractmethod
    def ready_at(self, history: History, amount: float, limit: float, now: float) -> float:
        """When `amount` must pass under `limit`; inf if never."""

    def chance(self, history: History, amount: float, at: float, *, to_the_unit: bool = False) -> float:
        """How likely it is that `amount` passes; bounds that are close count as one limit, or not (`to_the_unit`)."""
        return self.share_above(self.needed(history, amount, at)[1], at, to_the_unit=to_the_unit)

    def share_above(self, needed: float, at: float, *, to_the_unit: bool = False) -> float:
        """The share of the limits in question that are at least `needed`."""
        if needed <= self.low:
            return 1.0
        high = self._high(at, to_the_unit=to_the_unit)
        if needed >= high:
            return 0.0
        if high == math.inf:
            return 0.5
        return math.log(high / needed) / math.log(high / max(self.low, high / DROP))

    def typical(self, at: float, *, to_the_unit: bool = False) -> float:
        """A limit in the middle of what is possible."""
        high = self._high(at, to_the_unit=to_the_unit)
        return self.low if high == math.inf else math.sqrt(max(self.low, high / DROP) * high)

    def _high(self, at: float, *, to_the_unit: bool) -> float:
        """An old refusal proves less; between bounds as close as FINE little is worth finding out."""
        if at - self.high_at > STALE:
            return self.high * RISE
        return self.low if self.high < FINE * self.low and not to_the_unit else self.high

    def passed(self, history: History, amount: float, at: float) -> None:
        """To be called before `history` knows of it."""
        needed = self.needed(history, amount, at)[0]
        if needed > self.low:
            self.low = needed
            if self.high <= needed:
                self.high = needed * (1 + 0.1) + amount

    def refused(self, history: History, amount: float, at: float) -> None:
        needed = self.needed(history, amount, at)[1]
        if needed > self.low:
            self.high, self.high_at = min(self.high, needed), at
        elif self.low - needed <= GRACE * self.low + 2 * amount:
            passed = self.needed(history, 0.0, at)[0]  # what has passed before it
            self.low, self.high, self.high_at = min(passed, needed), needed, at
        elif needed >= self.low / DROP:  # less than that no limit is lowered: this way of counting is wrong
            self.low, self.high, self.high_at = needed / DROP, needed, at


class BucketFamily(Family):
    """Buckets that hold between `least` and `most` seconds of their refill, reckoned from full or empty."""

    __slots__ = ("full", "least", "most", "since")

    def __init__(self, weight: float, least: float, most: float, now: float) -> None:
        super().__init__(weight)
        self.least, self.most = least, most
        self.since = now - INSTANT
        self.full = True

    def needed(self, history: History, amount: float, at: float) -> tuple[float, float]:
        total = history.since(self.since) + amount
        sure = max(amount, total - history.since(max(self.since, at - JITTER)))
        elapsed = at - self.since
        if self.full:
            low, high = sure / (self.most + elapsed + JITTER), total / (self.least + elapsed)
        else:
            low, high = (sure - amount) / (elapsed + JITTER), total / max(1e-9, elapsed - JITTER)
        return MINUTE * low, MINUTE * high

    def ready_at(self, history: History, amount: float, limit: float, now: float) -> float:
        if limit <= 0:
            return math.inf
        seconds = MINUTE * (history.since(self.since) + amount) / limit
        return max(now, self.since + (seconds - self.least if self.full else seconds + JITTER))

    def passed(self, history: History, amount: float, at: float) -> None:
        super().passed(history, amount, at)
        rate = self.low / MINUTE
        left = (at - self.since + (self.least if self.full else 0.0)) * rate - history.since(self.since)
        if at > self.since and left >= max(amount, rate * self.most):
            self.since, self.full = at - INSTANT, True  # it has been full in the meantime

    def refused(self, history: History, amount: float, at: float) -> None:
        super().refused(history, amount, at)
        self.since, self.full = at, False


class SlidingFamily(Family):
    """The past minute counts at every instant."""

    __slots__ = ()

    def needed(self, history: History, amount: float, at: float) -> tuple[float, float]:
        start = at - MINUTE
        sure = history.since(start + JITTER) - history.since(at - JITTER)
        return sure + amount, history.since(start - GUARD) + amount

    def ready_at(self, history: History, amount: float, limit: float, now: float) -> float:
        if amount > limit:
            return math.inf
        return max(now, history.leaves_at(limit - amount) + MINUTE + GUARD)


class FixedFamily(Family):
    """A minute that begins with the first call, and anew with the first after its end."""

    __slots__ = ("opened_at",)

    def __init__(self, weight: float, now: float) -> None:
        super().__init__(weight)
        self.opened_at = now

    def needed(self, history: History, amount: float, at: float) -> tuple[float, float]:
        used = history.since(self.opened_at - INSTANT)
        over = at - self.opened_at - MINUTE
        sure = (
            0.0 if over >= -JITTER else history.since(self.opened_at - INSTANT) - history.since(at - JITTER)
        )
        return max(0.0, sure) + amount, (0.0 if over >= GUARD else used) + amount

    def ready_at(self, history: History, amount: float, limit: float, now: float) -> float:
        if amount > limit:
            return math.inf
        if self.needed(history, amount, now)[1] <= limit:
            return now
        return max(now, self.opened_at + MINUTE + GUARD)

    def passed(self, history: History, amount: float, at: float) -> None:
        super().passed(history, amount, at)
        if at - self.opened_at >= MINUTE - GUARD:
            self.opened_at = at


class AlignedFamily(Family):
    """Minutes of somebody's clock. The next one begins between `earliest` and `latest`."""

    __slots__ = ("earliest", "latest")

    def __init__(self, weight: float, now: float) -> None:
        super().__init__(weight)
        self.earliest, self.latest = now, now + MINUTE

    def _turns(self, at: float) -> int:
        """How many minutes have ended for certain."""
        return max(0, math.floor((at - GUARD - self.latest) / MINUTE) + 1)

    def _used(self, history: History, at: float) -> tuple[float, float]:
        """If the minute that may be ending has ended, and if it has not."""
        shift = MINUTE * self._turns(at)
        unended = history.since(self.earliest + shift - MINUTE)
        return (history.since(self.earliest + shift) if at > self.earliest + shift else unended), unended

    def needed(self, history: History, amount: float, at: float) -> tuple[float, float]:
        ended, unended = self._used(history, at)
        return max(0.0, ended - history.since(at - JITTER)) + amount, unended + amount

    def chance(self, history: History, amount: float, at: float, *, to_the_unit: bool = False) -> float:
        shift = MINUTE * self._turns(at)
        ended, unended = self._used(history, at)
        width = max(GUARD, self.latest - self.earliest)
        likely = min(1.0, max(0.0, (at - GUARD - self.earliest - shift) / width))
        if_ended = self.share_above(ended + amount, at, to_the_unit=to_the_unit)
        if_not = self.share_above(unended + amount, at, to_the_unit=to_the_unit)
        return likely * if_ended + (1 - likely) * if_not

    def ready_at(self, history: History, amount: float, limit: float, now: float) -> float:
        if amount > limit:
            return math.inf
        if self._used(history, now)[1] + amount <= limit:
            return now
        return max(now, self.latest + MINUTE * self._turns(now) + GUARD)

    def passed(self, history: History, amount: float, at: float) -> None:
        shift = MINUTE * self._turns(at)
        ended, unended = self._used(history, at)
        if unended + amount > self.high and ended < unended:
            self.latest = min(self.latest, max(at - shift, self.earliest + JITTER))
        super().passed(history, amount, at)

    def refused(self, history: History, amount: float, at: float) -> None:
        shift = MINUTE * self._turns(at)
        ended, _ = self._used(history, at)
        if self.high == math.inf or (at > self.earliest + shift and ended + amount <= self.low):
            self.earliest = max(self.earliest, min(at - shift, self.latest - JITTER))
        super().refused(history, amount, at)


class Hypotheses:
    """The ways of counting one unit, and what passed in it."""

    __slots__ = ("families", "history")

    def __init__(self, now: float, prior: float = 1.0) -> None:
        self.history = History()
        self.families: list[Family] = [
            BucketFamily(0.20 * prior, 60.0, 60.0, now),  # as deep as the limit: the usual one
            BucketFamily(0.08 * prior, 8.0, 40.0, now),
            BucketFamily(0.06 * prior, 2.0, 8.0, now),
            BucketFamily(0.06 * prior, 0.5, 2.0, now),
            SlidingFamily(0.20 * prior),
            FixedFamily(0.20 * prior, now),
            AlignedFamily(0.20 * prior, now),
        ]

    def named(self, limit: float, now: float, *, ours: bool) -> None:
        """A refusal has named the limit a minute: it is believed under each way of counting that what we sent comes
        near to it by, and those speak for themselves. Under all others strangers must be there, and it is not all
        ours; unless that is sure.
        """
        explained = any(family.high < math.inf for family in self.families)  # a refusal, by some of them
        near = [
            family
            for family in self.families
            if ours or (family.high >= limit * (1 - GRACE) and not (explained and family.high == math.inf))
        ]
        for family in self.families:
            if family in near:
                family.low, family.high, family.high_at = limit, limit * (1 + INSTANT), now
            elif near:
                family.weight *= UNEXPLAINED

    def learn(self, amount: float, at: float, *, passed: bool, weigh: bool, close: float = 0.0) -> None:
        """`close` was sent so soon after a refused call that it may have come before it."""
        history = self.history
        if not passed:
            amount += close
        for family in self.families:
            if weigh:
                low, high = family.needed(history, amount, at)
                if passed:
                    chance = max(family.chance(history, amount, at), family.share_above(low, at))
                else:
                    chance = 1 - min(family.chance(history, amount, at), family.share_above(high, at))
                family.weight *= SURPRISE + (1 - 2 * SURPRISE) * chance
            if passed:
                family.passed(history, amount, at)
            else:
                family.refused(history, amount, at)
        if passed:
            history.add(amount, at)
