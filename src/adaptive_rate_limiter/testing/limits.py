"""How providers enforce a limit: pure state machines, with the time (float seconds) as an argument.

Written apart from the limiter on purpose: they judge it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Literal, get_args

Algorithm = Literal["token_bucket", "fixed_window", "sliding_window"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

ROUNDING = 1e-9
"""Seconds, and share of a limit: waiting exactly `retry_after` must be enough in floating point too."""


class Limit(ABC):
    """`limit` units in `window` seconds. A time earlier than the last one counts as the last one."""

    def __init__(self, limit: float, window: float = 60.0) -> None:
        self.window = window
        self.limit = self._checked(limit)
        self._at = -math.inf

    def _checked(self, limit: float) -> float:
        if not (0 < limit < math.inf and 0 < self.window < math.inf):
            raise ValueError(f"limit and window must be positive and finite: {limit!r} in {self.window!r} s")
        return limit

    @property
    def capacity(self) -> float:
        """The most that a single request may cost; a larger one never fits."""
        return self.limit

    @abstractmethod
    def balance(self, now: float) -> float:
        """What is left; negative while in debt."""

    def remaining(self, now: float) -> float:
        """What is left, never negative: the number that providers tell."""
        return max(0.0, self.balance(now))

    def fits(self, cost: float, now: float) -> bool:
        return cost <= self.balance(now) + ROUNDING * self.limit

    @abstractmethod
    def charge(self, cost: float, now: float) -> None:
        """Take the cost whether it fits or not; usage that is known late may leave a debt."""

    def admit(self, cost: float, now: float) -> bool:
        """Check, and charge if it fits."""
        fits = self.fits(cost, now)
        if fits:
            self.charge(cost, now)
        return fits

    def charge_refused(self, cost: float, now: float) -> None:
        """For providers whose refusals count as well."""
        self.charge(cost, now)

    @abstractmethod
    def refund(self, cost: float, now: float) -> None:
        """Give back, newest first; never more than is charged at this moment."""

    @abstractmethod
    def reset_after(self, now: float) -> float:
        """Seconds until: a bucket is full, a fixed window ends, the oldest entry leaves a sliding window."""

    @abstractmethod
    def retry_after(self, cost: float, now: float) -> float:
        """Seconds until the cost fits if nobody else sends; 0 if it does now, infinity if it never will."""

    def set_limit(self, limit: float, now: float) -> None:
        """Effective at once in both directions. What is used stays used."""
        self.balance(now)  # the time until now passed under the old limit
        self.limit = self._checked(limit)


class TokenBucket(Limit):
    """Continuous refill of limit / window; at most `burst` seconds of it are kept (default: a full window)."""

    def __init__(self, limit: float, window: float = 60.0, *, burst: float | None = None) -> None:
        super().__init__(limit, window)
        self._burst = window if burst is None else burst
        self._spent = 0.0  # counted down from full, so that an idle bucket is exactly full, without rounding

    @property
    def rate(self) -> float:
        return self.limit / self.window

    @property
    def capacity(self) -> float:
        # A bucket that cannot hold one unit would never admit anything.
        return max(1.0, self.limit * self._burst / self.window)

    def balance(self, now: float) -> float:
        if now > self._at:
            if self._spent:
                self._spent = max(0.0, self._spent - (now - self._at) * self.rate)
            self._at = now
        return self.capacity - self._spent

    def charge(self, cost: float, now: float) -> None:
        self.balance(now)
        self._spent += cost

    def charge_refused(self, cost: float, now: float) -> None:
        # No debt: a bucket would not let a client that keeps trying in again, not even after it stops.
        self.charge(min(cost, self.remaining(now)), now)

    def refund(self, cost: float, now: float) -> None:
        self.balance(now)
        self._spent = max(0.0, self._spent - cost)

    def reset_after(self, now: float) -> float:
        self.balance(now)
        return self._spent / self.rate

    def retry_after(self, cost: float, now: float) -> float:
        if self.fits(cost, now):
            return 0.0
        return math.inf if cost > self.capacity else (cost - self.balance(now)) / self.rate

    def set_limit(self, limit: float, now: float) -> None:
        """The level is kept and cut to the new depth, as in golang.org/x/time/rate: a raise is no gift."""
        level = self.balance(now)
        self.limit = self._checked(limit)
        self._spent = max(0.0, self.capacity - level)


class FixedWindow(Limit):
    """A window opens with the first charge, or, if `aligned`, at every epoch + k * window."""

    def __init__(
        self, limit: float, window: float = 60.0, *, aligned: bool = False, epoch: float = 0.0
    ) -> None:
        super().__init__(limit, window)
        self._epoch = epoch if aligned else None
        self._used = 0.0
        self._ends = -math.inf

    @property
    def _over(self) -> bool:
        return self._at + ROUNDING >= self._ends

    def balance(self, now: float) -> float:
        self._at = max(self._at, now)
        if self._over:
            self._used = 0.0
            if self._epoch is not None:
                passed = math.floor((self._at + ROUNDING - self._epoch) / self.window)
                self._ends = self._epoch + (passed + 1) * self.window
                if self._over:  # the division rounded down
                    self._ends += self.window
        return self.limit - self._used

    def charge(self, cost: float, now: float) -> None:
        self.balance(now)
        if self._over:
            self._ends = self._at + self.window
        self._used += cost

    def refund(self, cost: float, now: float) -> None:
        self.balance(now)
        self._used = max(0.0, self._used - cost)

    def reset_after(self, now: float) -> float:
        self.balance(now)
        return max(0.0, min(self.window, self._ends - self._at))  # a + w - a may be above w

    def retry_after(self, cost: float, now: float) -> float:
        if self.fits(cost, now):
            return 0.0
        return math.inf if cost > self.limit else self.reset_after(now)


class SlidingWindow(Limit):
    """An exact log: at no moment more than `limit` units in the past `window` seconds."""

    def __init__(self, limit: float, window: float = 60.0) -> None:
        super().__init__(limit, window)
        self._log: deque[tuple[float, float]] = deque()  # when it leaves, cost
        self._used = 0.0

    def balance(self, now: float) -> float:
        self._at = max(self._at, now)
        while self._log and self._log[0][0] <= self._at + ROUNDING:
            self._used -= self._log.popleft()[1]
        if not self._log:
            self._used = 0.0  # rounding ends with the last entry
        return self.limit - self._used

    def charge(self, cost: float, now: float) -> None:
        self.balance(now)
        self._log.append((self._at + self.window, cost))
        self._used += cost

    def refund(self, cost: float, now: float) -> None:
        self.balance(now)
        while cost > 0 and self._log:
            leaves, share = self._log.pop()
            taken = min(share, cost)
            cost -= taken
            self._used -= taken
            if share > taken:
                self._log.append((leaves, share - taken))

    def reset_after(self, now: float) -> float:
        self.balance(now)
        return min(self.window, self._log[0][0] - self._at) if self._log else 0.0

    def retry_after(self, cost: float, now: float) -> float:
        missing = cost - self.balance(now) - ROUNDING * self.limit
        if missing <= 0:
            return 0.0
        for leaves, share in self._log:
            missing -= share
            if missing <= 0:
                return min(self.window, leaves - self._at)
        return math.inf


def new_limit(
    algorithm: Algorithm,
    limit: float,
    window: float,
    *,
    burst: float | None = None,
    aligned: bool = False,
    epoch: float = 0.0,
) -> Limit:
    """`burst` concerns token buckets; `aligned` and `epoch` concern fixed windows."""
    if algorithm == "token_bucket":
        return TokenBucket(limit, window, burst=burst)
    if algorithm == "fixed_window":
        return FixedWindow(limit, window, aligned=aligned, epoch=epoch)
    if algorithm == "sliding_window":
        return SlidingWindow(limit, window)
    raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
