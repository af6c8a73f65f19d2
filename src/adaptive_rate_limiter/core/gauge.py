"""How much of one limit is left, as it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.levels import BucketLevel, Level, SlidingLevel, WindowLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.quota import Quota

NAMES: dict[type, str] = {
    BucketLevel: "token_bucket",
    WindowLevel: "fixed_window",
    SlidingLevel: "sliding_window",
}


class Gauge:
    """One limit on one unit. That which a user states counts in the one way that was stated."""

    __slots__ = ("active", "limit", "models", "source", "unit", "window")

    def __init__(
        self, unit: str, limit: float, window: float, models: tuple[Level, ...], source: str = "stated"
    ) -> None:
        self.unit = unit
        self.limit = limit
        self.window = window
        self.source = source
        self.models = models  # the ways of counting that are followed
        self.active = models  # those of them that are plausible: a call is admitted only by all of these

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

    @property
    def rate(self) -> float:
        return self.limit / self.window

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
        least = self.active[0].available(now)
        for level in self.active[1:]:
            left = level.available(now)
            if left < least:  # noqa: PLR1730 - min() costs a call, and this runs for every admission
                least = left
        return least - self.floor(now)

    def take(self, amount: float, now: float) -> None:
        for level in self.models:
            level.take(amount, now)

    def give(self, amount: float, now: float, taken_at: float) -> None:
        for level in self.models:
            level.give(amount, now, taken_at)

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:
        """The provider counted at `counted_at` what was taken before: it returns as much later."""
        for level in self.models:
            level.delay(amount, taken_at, counted_at)

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be there. More than the limit waits for all that there can be."""
        wanted = min(amount + self.floor(now), self.capacity)
        return max(level.ready_at(wanted, now) for level in self.active)

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """A refusal says that `amount` is not there. A bucket that has it later lacks what flows in until then."""
        for level in self.models:
            left = 0.7 * amount
            if retry_after is not None and isinstance(level, BucketLevel):
                left = min(left, max(-self.limit, amount - retry_after * self.rate))
            level.correct(min(level.available(now), left), now)
