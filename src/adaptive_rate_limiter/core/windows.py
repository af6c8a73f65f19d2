"""How much of one limit is left where a provider counts in windows: fixed ones, and one that slides."""

from __future__ import annotations

import math
from bisect import insort

from adaptive_rate_limiter.core.levels import EPSILON

BINS = 2400  # of a sliding window: 25 ms of a minute


class WindowLevel:
    """A fixed window: all of `limit` comes back at `ends_at`. The first take opens a window of unknown end."""

    __slots__ = (
        "at", "corrected", "ends_at", "initial", "limit", "lost", "opened_by_take", "refilled",
        "taken", "turned_at", "used", "window",
    )  # fmt: skip

    def __init__(self, limit: float, window: float, now: float, ends_at: float = math.inf) -> None:
        self.limit = limit
        self.window = window
        self.used = 0.0
        self.at = now
        self.ends_at = ends_at
        self.turned_at = -math.inf  # when all came back the last time
        self.opened_by_take: float | None = None
        self.initial = limit
        self.refilled = self.corrected = self.lost = self.taken = 0.0

    def available(self, now: float) -> float:
        if now > self.at:  # noqa: PLR1730 - max() costs a call, and this runs many times for every call
            self.at = now
        if self.at >= self.ends_at:
            self.refilled += self.used
            self.used = 0.0
            self.turned_at, self.ends_at = self.ends_at, math.inf
        return self.limit - self.used

    @property
    def capacity(self) -> float:
        return self.limit

    def opened_at(self, now: float) -> float:
        """When the window that is open at `now` began for us; never, if none is.

        The end may have been told too late, by a reply that was long on its way: it says nothing of the beginning.
        """
        self.available(now)
        return -math.inf if self.ends_at == math.inf else self.turned_at

    def take(self, amount: float, now: float) -> None:
        if now > self.at:
            self.available(now)
        if self.ends_at == math.inf:
            self.ends_at = self.at + self.window
            self.turned_at = self.opened_by_take = self.at
        self.used += amount
        self.taken += amount

    def give(self, amount: float, now: float, taken_at: float) -> None:
        self.available(now)
        if amount < 0:  # used more than was held: it is charged now
            self.take(-amount, now)
            return
        self.taken -= amount
        if taken_at >= self.turned_at - EPSILON:
            self.used -= amount
        else:  # of an earlier window: it came back with that
            self.lost += amount
        if self.used < 0:
            self.lost -= self.used
            self.used = 0.0

    def recount(self, amount: float) -> None:
        self.taken -= amount
        self.corrected -= amount

    def correct(self, available: float, now: float) -> None:
        available = min(available, self.limit)
        self.corrected += available - self.available(now)
        self.used = self.limit - available
        if self.used > 0 and self.ends_at == math.inf:
            self.ends_at = self.at + self.window

    def ready_at(self, amount: float, now: float) -> float:
        if amount - self.available(now) <= EPSILON * max(1.0, amount):
            return now
        if amount > self.limit * (1 + EPSILON):
            return math.inf
        return self.ends_at

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:  # noqa: ARG002 - one shape
        """The provider opened the window no earlier than `taken_at` and no later than `counted_at`."""
        if self.opened_by_take == taken_at:
            self.ends_at = max(self.ends_at, counted_at + self.window)

    def resize(self, limit: float, window: float, now: float) -> None:
        self.available(now)
        self.corrected += limit - self.limit
        self.ends_at = min(self.ends_at, self.at + window)
        self.limit, self.window = limit, window


class SlidingLevel:
    """A sliding window: each unit comes back `window` seconds after it was taken.

    Kept in so many bins that return at their later edge: memory is bounded, and the answer is late by one bin at the
    most, never early.
    """

    __slots__ = (
        "at", "bins", "corrected", "initial", "keys", "limit", "lost", "next_return", "refilled", "taken", "used",
        "width", "window",
    )  # fmt: skip

    def __init__(self, limit: float, window: float, now: float) -> None:
        self.limit = limit
        self.window = window
        self.width = window / BINS
        self.bins: dict[int, float] = {}
        self.keys: list[int] = []  # of the bins, the oldest first
        self.next_return = math.inf  # of the oldest
        self.used = 0.0
        self.at = now
        self.initial = limit
        self.refilled = self.corrected = self.lost = self.taken = 0.0

    @property
    def capacity(self) -> float:
        return self.limit

    def returns_at(self, key: int) -> float:
        return (key + 1) * self.width + self.window

    def available(self, now: float) -> float:
        if now > self.at:  # noqa: PLR1730 - max() costs a call, and this runs many times for every call
            self.at = now
        if self.at >= self.next_return:
            keys = self.keys
            while keys and self.returns_at(keys[0]) <= self.at:
                amount = self.bins.pop(keys.pop(0))
                self.used -= amount
                self.refilled += amount
            self._look_ahead()
        return self.limit - self.used

    def _look_ahead(self) -> None:
        if self.keys:
            self.next_return = self.returns_at(self.keys[0])
        else:
            self.next_return = math.inf
            self.refilled += self.used  # rounding only
            self.used = 0.0

    def take(self, amount: float, now: float) -> None:
        if now > self.at:
            self.available(now)
        key = int(self.at / self.width)
        if key in self.bins:
            self.bins[key] += amount
            self.used += amount
        else:
            self._add(key, amount)
        self.taken += amount

    def _add(self, key: int, amount: float) -> None:
        if key not in self.bins:
            self.bins[key] = 0.0
            insort(self.keys, key)
            if self.keys[0] == key:
                self.next_return = self.returns_at(key)
        self.bins[key] += amount
        self.used += amount

    def give(self, amount: float, now: float, taken_at: float) -> None:
        if amount < 0:  # used more than was held: it is charged now
            self.take(-amount, now)
            return
        self.available(now)
        self.taken -= amount
        key = int(taken_at / self.width)
        credit = min(amount, self.bins.get(key, 0.0))
        if credit > 0:
            self.bins[key] -= credit
            self.used -= credit
        self.lost += amount - credit  # its bin has gone and came back with it

    def recount(self, amount: float) -> None:
        self.taken -= amount
        self.corrected -= amount

    def correct(self, available: float, now: float) -> None:
        available = min(available, self.limit)
        change = available - self.available(now)
        self.corrected += change
        if change < 0:
            self._add(int(self.at / self.width), -change)
            return
        keys, bins = self.keys, self.bins
        while keys and change > 0:  # the oldest first: what the provider no longer counts has expired there
            held = bins[keys[0]]
            if held > change:
                bins[keys[0]] -= change
                self.used -= change
                break
            del bins[keys.pop(0)]
            self.used -= held
            change -= held
        self._look_ahead()

    def ready_at(self, amount: float, now: float) -> float:
        missing = amount - self.available(now)
        if missing <= EPSILON * max(1.0, amount):
            return now
        if amount > self.limit * (1 + EPSILON):
            return math.inf
        for key in self.keys:
            missing -= self.bins[key]
            if missing <= EPSILON * max(1.0, amount):
                return self.returns_at(key)
        return self.at + self.window

    def returning(self, until: float) -> float:
        """What comes back until then."""
        total = 0.0
        for key in self.keys:
            if self.returns_at(key) > until + self.width:
                break
            total += self.bins[key]
        return total

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:
        """The provider may have counted `amount` as late as `counted_at`: it returns that much later."""
        old, new = int(taken_at / self.width), int(counted_at / self.width)
        if new <= old:
            return
        moved = min(amount, self.bins.get(old, 0.0))
        if moved > 0:
            self.bins[old] -= moved
            self.used -= moved
            self._add(new, moved)

    def resize(self, limit: float, window: float, now: float) -> None:
        self.available(now)
        self.corrected += limit - self.limit
        self.limit = limit
        if window != self.window:
            used, self.used = self.used, 0.0
            self.bins.clear()
            self.keys.clear()
            self.next_return = math.inf
            self.window, self.width = window, window / BINS
            self._add(int(self.at / self.width), used)
