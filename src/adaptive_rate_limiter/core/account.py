"""Where the time went, against the least that the limits would have allowed.

A bucket neither creates nor hides units, so for every limit
``elapsed = (demand - burst + overflow + left) / rate``: what lies above the lower bound is the refill that
was lost while the bucket was full, and what is left of it at the end. Each moment of overflow belongs to
what the line was waiting for at the time. A limit that changed counts for as long as it was in force.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.course import Course, lower_bound, refill
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.reports import NOBODY, AccountReport

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.gauge import Gauge


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
