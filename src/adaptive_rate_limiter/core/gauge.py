"""How much of one limit is left, as it is counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.levels import BucketLevel, Level
from adaptive_rate_limiter.core.transit import LONGEST
from adaptive_rate_limiter.core.windows import SlidingLevel, WindowLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.quota import Quota

TOGETHER = 0.005  # seconds; a busy thread keeps others waiting for as long (sys.getswitchinterval)
HALF = 0.5  # of all that there can be: where more is left, no limit is near
INSTANT = 1e-4  # seconds to the next look at the least
NAMES: dict[type, str] = {
    BucketLevel: "token_bucket",
    WindowLevel: "fixed_window",
    SlidingLevel: "sliding_window",
}


class Gauge:
    """One limit on one unit. That which a user states counts in the one way that was stated."""

    __slots__ = (
        "active", "buckets", "followed", "invitation", "left", "limit", "models", "source", "unit", "window",
    )  # fmt: skip

    def __init__(
        self, unit: str, limit: float, window: float, models: tuple[Level, ...], source: str = "stated"
    ) -> None:
        self.unit = unit
        self.limit = limit
        self.window = window
        self.source = source
        self.models = models  # the ways of counting
        self.follow(models)
        self.active = models  # those that are plausible: a call is admitted only by all of these
        self.left = limit  # when it was last asked
        self.invitation: tuple[float, float] | None = (
            None  # when the provider said to come again, and with how much
        )

    @classmethod
    def stated(cls, quota: Quota, now: float) -> Gauge:
        level: Level
        if quota.algorithm == "fixed_window":
            level = WindowLevel(quota.limit, quota.window, now)
        elif quota.algorithm == "sliding_window":
            level = SlidingLevel(quota.limit, quota.window, now)
        else:
            level = BucketLevel(quota.limit, quota.window, now, quota.burst)
        return cls(quota.unit, quota.limit, quota.window, (level,))

    def follow(self, models: tuple[Level, ...]) -> None:
        """These count from now on what is taken and given back."""
        self.followed = models
        self.buckets = tuple(level for level in models if isinstance(level, BucketLevel))

    @property
    def rate(self) -> float:
        return self.limit / self.window

    @property
    def lull(self) -> float:
        """Seconds for which the line need not be looked at: those who could go meanwhile go together.

        Only of a limit that cannot fill up meanwhile, or what flows in would be lost.
        """
        return max(INSTANT, min(TOGETHER, 0.5 * self.capacity / self.rate))

    @property
    def capacity(self) -> float:
        """The largest amount that can ever be there at once."""
        return self.active[0].capacity

    @property
    def algorithm(self) -> str:
        """The way of counting that the evidence favours."""
        return NAMES[type(self.models[0])]

    def floor(self, now: float) -> float:  # noqa: ARG002 - one shape
        """What is kept back."""
        return 0.0

    def available(self, now: float) -> float:
        least = math.inf
        for level in self.active:
            left = level.available(now)
            if left < least:  # noqa: PLR1730 - min() costs a call, and this runs for every admission
                least = left
        self.left = least = least - self.floor(now)
        if self.invitation is not None and now >= self.invitation[0]:
            return max(least, self.invitation[1])
        return least

    def spare(self, now: float) -> float:
        """How much may surely be taken without asking again: what lies above half of all that there can be, and above
        what a full bucket may turn out to have lost while requests were on their way.
        """
        left = self.available(now)
        if self.invitation is not None:  # that is for one call only
            return 0.0
        return left - HALF * self.capacity - LONGEST * self.rate

    def catch_up(self, last_sent_at: float, now: float) -> None:
        """Nothing is in doubt any more: every call that was sent, the last at `last_sent_at`, was answered."""

    def take(self, amount: float, now: float) -> None:
        self.invitation = None  # it was for one call, and for what was left before
        for level in self.followed:
            level.take(amount, now)

    def depart(self, amount: float) -> None:
        """What was taken just now waits to be sent: until then a bucket that is full does not refill."""
        for level in self.buckets:
            level.on_the_way += amount

    def arrive(self, amount: float, at: float) -> None:
        """It was sent at `at`, or given up."""
        for level in self.buckets:
            level.arrive(amount, at)

    def give(self, amount: float, now: float, taken_at: float) -> None:
        for level in self.followed:
            level.give(amount, now, taken_at)

    def repay(self, surplus: float, now: float, taken_at: float, *, counted: bool) -> None:  # noqa: ARG002 - one shape
        """Give back what a call did not use, or take what it used above its hold."""
        self.give(surplus, now, taken_at)

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:
        """The provider counted at `counted_at` what was taken before: it returns as much later."""
        for level in self.followed:
            level.delay(amount, taken_at, counted_at)

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be there. More than the limit waits for all that there can be."""
        wanted = min(amount + self.floor(now), self.capacity)
        ready = max(level.ready_at(wanted, now) for level in self.active)
        if self.invitation is not None and amount <= self.invitation[1]:
            return max(now, min(ready, self.invitation[0]))
        return ready

    def eta(self, amount: float, now: float) -> float:
        """When it will have paid `amount`, however much that is."""
        left = self.available(now)
        if amount <= self.capacity:
            return self.ready_at(amount, now)
        if self.algorithm == "token_bucket":
            return now + (amount - left) / self.rate
        whole = self.ready_at(self.capacity, now)
        if whole <= now:  # untouched: its first window begins with the first call
            whole = now + self.window
        return whole + (math.ceil((amount - left) / self.limit) - 1) * self.window

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """A refusal says that `amount` is not there, and that it will be after `retry_after` seconds.

        A bucket lacks what flows in until then. Whatever else is believed, one call goes when the provider says.
        """
        self.invitation = (now + retry_after, amount) if retry_after else None
        for level in self.models:
            left = 0.7 * amount
            if retry_after is not None and isinstance(level, BucketLevel):
                left = min(left, max(-self.limit, amount - retry_after * self.rate))
            level.correct(min(level.available(now), left), now)
