"""How much of one limit is left: a token bucket, and the shape that it shares with windows (`core/windows.py`).

`available` may be negative: that is debt. Times are seconds of any clock that never goes back; a `now` earlier than
one seen before counts as that one. Each keeps the sums that prove conservation:
`available == initial + refilled + corrected - lost - taken`.
"""

from __future__ import annotations

import math
from typing import Protocol

EPSILON = 1e-9  # one part in 10^9: sums of floats are compared with this much grace


class Level(Protocol):
    """What is left of one limit under one way of counting.

    `give` returns what was taken too much. `recount` says the same where a correction has returned it already.
    """

    limit: float
    window: float
    refilled: float
    corrected: float
    lost: float
    taken: float
    initial: float

    @property
    def capacity(self) -> float: ...
    def available(self, now: float) -> float: ...
    def take(self, amount: float, now: float) -> None: ...
    def give(self, amount: float, now: float, taken_at: float) -> None: ...
    def correct(self, available: float, now: float) -> None: ...
    def recount(self, amount: float) -> None: ...
    def delay(self, amount: float, taken_at: float, counted_at: float) -> None: ...
    def ready_at(self, amount: float, now: float) -> float: ...
    def resize(self, limit: float, window: float, now: float) -> None: ...


class BucketLevel:
    """A token bucket: `limit / window` flows in all the time, up to `burst`."""

    __slots__ = (
        "at", "burst", "corrected", "initial", "limit", "lost", "on_the_way", "rate", "refilled", "taken", "taken_full",
        "value", "window",
    )  # fmt: skip

    def __init__(self, limit: float, window: float, now: float, burst: float | None = None) -> None:
        self.limit = limit
        self.window = window
        self.rate = limit / window
        self.burst = limit if burst is None else burst
        self.initial = self.value = self.burst
        self.on_the_way = 0.0  # taken, and surely not counted by the provider yet
        self.at = now
        self.taken_full: float | None = None  # when something was last taken from a full bucket
        self.refilled = self.corrected = self.lost = self.taken = 0.0

    def available(self, now: float) -> float:
        elapsed = now - self.at
        if elapsed > 0:
            inflow = elapsed * self.rate
            self.at = now
            self.refilled += inflow
            left = self.value + inflow
            most = self.burst - self.on_the_way  # the provider's bucket is no more than full
            if left > most:
                self.lost += left - most
                left = most
            self.value = left
            return left
        return self.value

    def arrive(self, amount: float, at: float) -> None:
        """What was on the way was sent at `at`."""
        if at > self.at:
            self.available(at)
        left = self.on_the_way - amount
        self.on_the_way = left if left > 0 else 0.0

    def take(self, amount: float, now: float) -> None:
        left = self.available(now) if now > self.at else self.value
        if left >= self.burst:
            self.taken_full = now
        self.value = left - amount
        self.taken += amount

    def give(self, amount: float, now: float, taken_at: float) -> None:  # noqa: ARG002 - one shape
        """Credit `amount` now, never backdated: what was used was used when it was generated."""
        self.taken -= amount
        self.value = self.available(now) + amount
        if self.value > self.burst:
            self.lost += self.value - self.burst
            self.value = self.burst

    def recount(self, amount: float) -> None:
        self.taken -= amount
        self.corrected -= amount

    def correct(self, available: float, now: float) -> None:
        available = min(available, self.burst)
        self.corrected += available - self.available(now)
        self.value = available

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be there if nothing else is taken; inf if it is more than the bucket holds."""
        missing = amount - self.available(now)
        if missing <= EPSILON * max(1.0, amount):
            return now
        if amount > self.burst * (1 + EPSILON):
            return math.inf
        return self.at + missing / self.rate

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:  # noqa: ARG002 - one shape
        """A full bucket does not refill: what went in before the provider counted was lost."""
        if self.taken_full == taken_at:
            spilt = min((counted_at - taken_at) * self.rate, self.burst)
            self.lost += spilt
            self.value -= spilt
            self.taken_full = None

    @property
    def capacity(self) -> float:
        return self.burst

    def deepen(self, burst: float, now: float) -> None:
        """Change how much it holds; what was used stays used."""
        used = self.burst - self.available(now)
        self.burst = burst
        self.correct(burst - used, now)

    def resize(self, limit: float, window: float, now: float) -> None:
        """Change the limit in either direction; what was used stays used."""
        used = self.burst - self.available(now)
        self.burst *= limit / self.limit
        self.limit, self.window, self.rate = limit, window, limit / window
        self.correct(self.burst - used, now)
