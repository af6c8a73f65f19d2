"""Where the time went, against the least that the limits would have allowed.

A bucket neither creates nor hides units, so for every limit
``elapsed = (demand - burst + overflow + left) / rate``: what lies above the lower bound is the refill that
was lost while the bucket was full, and what is left of it at the end. Each moment of overflow belongs to
what the line was waiting for at the time. A limit that changed counts for as long as it was in force.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.course import Course, lower_bound, refill
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.quota import REQUESTS

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.gauge import Gauge

NOBODY = "empty queue"
WORTH_SAYING = 0.0005  # of the time: what would be said as 0.1 %
TENTH = 0.05  # seconds: what would be said as 0.1 s
WORDS = {NOBODY: "an empty line", "undiscovered limit": "finding out the limit"}


@dataclass(frozen=True, slots=True)
class AccountReport:
    """`elapsed` seconds were taken for work that needed at least `lower_bound` of the limit on `binding`.

    `share` is lower_bound / elapsed, at most 1. `waited` tells how long each reason held the line back.
    Of the binding limit, if it is a token bucket: `lost` tells the seconds of refill that overflowed, by
    cause, and `left` the seconds of refill that were not used in the end.
    """

    elapsed: float
    lower_bound: float
    share: float
    binding: str | None
    waited: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    left: float = 0.0

    def __str__(self) -> str:
        if not self.lower_bound:
            return self._held_back() or "no limit was reached"
        parts = [f"{self.share:.0%} of what the limits allowed", f"{self.binding} bound{self._how_long()}"]
        parts += [
            f"{seconds / self.elapsed:.1%} lost to {self._named(cause)}"
            for cause, seconds in self.lost.items()
            if seconds >= WORTH_SAYING * self.elapsed
        ]
        if self.left:
            parts.append(f"{self.left / self.elapsed:.1%} left unused")
        return "; ".join(parts)

    def _held_back(self) -> str:
        waits = [
            f"{seconds:.1f} s by {WORDS.get(cause, cause)}"
            for cause, seconds in self.waited.items()
            if seconds >= TENTH
        ]
        return f"no limit was used up; held back {', '.join(waits)}" if waits else ""

    def _how_long(self) -> str:
        held_back = self.waited.get(self.binding or "", 0.0)
        return f" {held_back / self.elapsed:.0%} of the time" if held_back else ""

    def _named(self, cause: str) -> str:
        """A bucket for which the line waits is full because more came back than fits, or because nobody went in time."""
        if cause != self.binding:
            return WORDS.get(cause, cause)
        return "calls that went late" if cause == REQUESTS else "reservations that were too large"


def cause_of(reason: str) -> str:
    """A reason to wait without its figures ("retry-after of 1.4 s"): there are few of these."""
    return reason.partition(" of ")[0]


class Account:
    """Adds up, for one bucket, what the line waited for and what each limit lost meanwhile."""

    __slots__ = ("admitted", "at", "courses", "last", "reason", "started_at", "waited")

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.last = self.at = 0.0
        self.reason: str | None = None
        self.waited: dict[str, float] = {}
        self.courses: dict[Gauge, Course] = {}
        self.admitted = 0

    def admit(self, now: float) -> None:
        if self.started_at is None:
            self.started_at = now
        self.last = now
        self.admitted += 1

    def hold_back(self, reason: str | None, gauges: list[Gauge], now: float) -> None:
        """From `now` on the line waits for `reason` (None: nobody waits)."""
        if self.reason is not None:
            self.waited[self.reason] = self.waited.get(self.reason, 0.0) + now - self.at
        self.follow(gauges, now)
        for gauge in gauges:
            self._count_overflow(gauge, now)
        self.reason, self.at = None if reason is None else cause_of(reason), now

    def follow(self, gauges: list[Gauge], now: float) -> None:
        """Note which limits are others than they were."""
        for gauge in gauges:
            course = self.courses.get(gauge) or self._begin(gauge, gauges, now)
            if course.terms[-1][1] != gauge.limit or course.window != gauge.window:
                course.follow(gauge, now)

    def _begin(self, gauge: Gauge, gauges: list[Gauge], now: float) -> Course:
        """Follow a new limit; those that are gone are forgotten."""
        self.courses = {known: self.courses[known] for known in gauges if known in self.courses}
        course = self.courses[gauge] = Course(gauge, now)
        return course

    def _count_overflow(self, gauge: Gauge, now: float) -> None:
        level, course = gauge.active[0], self.courses[gauge]
        if not isinstance(level, BucketLevel):
            return
        level.available(now)
        overflow = course.overflow(level)
        if overflow > 0 and self.started_at is not None:
            cause = self.reason or NOBODY
            course.lost[cause] = course.lost.get(cause, 0.0) + overflow

    def report(self, gauges: list[Gauge], now: float) -> AccountReport:
        """The account until `now`, or until the last admission if nobody waits."""
        self.hold_back(self.reason, gauges, now)
        if self.started_at is None:
            return AccountReport(0.0, 0.0, 1.0, None)
        elapsed = (now if self.reason else self.last) - self.started_at
        bound, binding = 0.0, None
        for gauge in gauges:
            terms = self.courses[gauge].since(self.started_at)
            needed = lower_bound(gauge, gauge.models[0].taken, terms)
            if needed > bound:
                bound, binding = needed, gauge
        share = min(1.0, bound / elapsed) if elapsed > 0 else 1.0
        if binding is None:
            return AccountReport(elapsed, bound, share, None, dict(self.waited))
        lost, left = self._refill_unused(binding, self.started_at, elapsed, bound)
        return AccountReport(elapsed, bound, share, binding.unit, dict(self.waited), lost, left)

    def _refill_unused(
        self, gauge: Gauge, start: float, elapsed: float, bound: float
    ) -> tuple[dict[str, float], float]:
        """Seconds of refill that overflowed, by cause, and that were left: together what is above the bound."""
        above = elapsed - bound
        if above <= 0 or not isinstance(gauge.active[0], BucketLevel):
            return {}, 0.0
        course = self.courses[gauge]
        terms = course.since(start)
        inflow = refill(elapsed, gauge.window, terms) - refill(bound, gauge.window, terms)
        lost = {cause: above * units / inflow for cause, units in course.lost.items()}
        total = math.fsum(lost.values())
        if total > above:  # since the last admission nobody wanted it: that is no loss
            lost = {cause: seconds * above / total for cause, seconds in lost.items()}
            total = above
        return lost, above - total
