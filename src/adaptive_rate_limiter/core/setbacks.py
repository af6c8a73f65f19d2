"""What a refusal holds back beside the limit itself: a pause of all calls, fewer of them at once, no larger ones."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.quota import Cost

FIRST, MOST = 1.0, 60.0  # seconds of pause where the provider names none, doubled each time
JITTER = 0.25  # added to it at random, at the most, as a share: clients that failed together do not return together


class Pause:
    """A time in which nothing at all is sent, and why."""

    __slots__ = ("_random", "reason", "until")

    def __init__(self, seed: str) -> None:
        self.until = -math.inf
        self.reason = ""
        self._random = random.Random(seed.encode(errors="replace"))  # noqa: S311 - spreads retries, guards nothing

    def extend(self, until: float, reason: str) -> None:
        """Until then; an end that is later already stands."""
        if until > self.until:
            self.until, self.reason = until, reason

    def back_off(self, failures: int, now: float, reason: str, asked: float | None = None) -> None:
        """As long as the provider asks for, else doubling with every failure in a row. Jitter only adds."""
        least = asked or min(MOST, FIRST * 2 ** min(failures - 1, 10))
        self.extend(now + least * (1 + JITTER * self._random.random()), reason)


class Concurrency:
    """How many calls may be in flight: additive increase, multiplicative decrease below the bound."""

    __slots__ = ("bound", "in_flight", "most", "window")

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.most = most = bound
        self.window = most
        self.in_flight = 0

    @property
    def full(self) -> bool:
        return self.in_flight >= self.window

    def told(self, most: float) -> None:
        """The provider says how many it allows; what refusals taught below that stands."""
        self.most = min(self.bound, most)
        self.window = min(self.window, self.most)

    def passed(self) -> None:
        if self.window < self.most:
            self.window += 1 / self.window

    def refused(self, in_flight: int) -> None:
        """One of so many was too many."""
        self.window = max(1.0, min(0.8 * min(self.window, in_flight), in_flight - 1.0))


class Sizes:
    """The most that one call may take of a unit, as refusals of larger ones have named it."""

    __slots__ = ("most", "until")

    def __init__(self) -> None:
        self.most: dict[str, float] = {}
        self.until = -math.inf  # somebody may have bought more by then

    def refused(self, unit: str, limit: float, until: float) -> None:
        self.most[unit], self.until = limit, until

    def over(self, cost: Cost, now: float) -> tuple[str, float] | None:
        """A unit of which `cost` takes more, and the most that it may."""
        if now > self.until:
            self.most.clear()
        return next(((unit, most) for unit, most in self.most.items() if cost.get(unit, 0.0) > most), None)
