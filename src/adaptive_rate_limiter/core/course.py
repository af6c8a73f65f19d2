"""One limit over time, and the least time that it allowed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.gauge import Gauge
    from adaptive_rate_limiter.core.levels import BucketLevel

MOST = 64  # changes that are told apart; those before count as their average

Term = tuple[float, float]  # since when, in seconds, and the limit from then on


class Course:
    """How one limit changed, and what of it overflowed, by cause.

    A limit that changes was as it was until then. A window that turns out to be another was never what it
    was held for, and neither was a limit that was counted in it.
    """

    __slots__ = ("level", "lost", "seen", "terms", "window")

    def __init__(self, gauge: Gauge, now: float) -> None:
        self.window = gauge.window
        self.terms: list[Term] = [(now, gauge.limit)]
        self.lost: dict[str, float] = {}  # cause -> units
        self.level: BucketLevel | None = None
        self.seen = 0.0  # what it had lost when it was last looked at

    def follow(self, gauge: Gauge, now: float) -> None:
        """The limit or the window is another since `now`."""
        if gauge.window != self.window:
            self.window, self.terms = gauge.window, [(now, gauge.limit)]
            return
        self.terms.append((now, gauge.limit))
        if len(self.terms) > MOST:
            (first, limit), (second, after), (third, _) = self.terms[:3]
            both = limit * (second - first) + after * (third - second)
            self.terms[:2] = [(first, both / (third - first) if third > first else after)]

    def overflow(self, level: BucketLevel) -> float:
        """What was lost since the last look."""
        if level is not self.level:
            self.level, self.seen = level, 0.0
        before, self.seen = self.seen, level.lost
        return level.lost - before

    def since(self, start: float) -> list[Term]:
        """The terms in seconds after `start`; the first is taken to have been in force by then."""
        past = max(1, sum(at <= start for at, _ in self.terms))
        return [(0.0, self.terms[past - 1][1]), *((at - start, limit) for at, limit in self.terms[past:])]


def lower_bound(gauge: Gauge, demand: float, terms: Sequence[Term] = ()) -> float:
    """The least seconds in which one limit lets `demand` begin, from a full start.

    A bucket of depth b refilled at rate r: (demand - b) / r. Windows of L units: all but the first
    of ceil(demand / L) have to be waited for. `terms`: the limit over time, if it was not always the same.
    """
    terms = terms or [(0.0, gauge.limit)]
    if gauge.algorithm == "token_bucket":
        depth = gauge.capacity * terms[0][1] / gauge.limit
        return refilled_at(demand - depth, gauge.window, terms)
    return window_bound(demand, gauge.window, terms)


def refilled_at(amount: float, window: float, terms: Sequence[Term]) -> float:
    """When `amount` has flowed in; a larger limit brings nothing but a faster refill."""
    if amount <= 0:
        return 0.0
    for (start, limit), (end, _) in pairwise([*terms, (math.inf, 0.0)]):
        inflow = (end - start) * limit / window
        if amount <= inflow:
            return start + amount * window / limit
        amount -= inflow
    return math.inf


def refill(until: float, window: float, terms: Sequence[Term]) -> float:
    """What has flowed in by then."""
    spans = pairwise([*terms, (math.inf, 0.0)])
    return sum(
        (min(end, until) - start) * limit / window for (start, limit), (end, _) in spans if start < until
    )


def window_bound(demand: float, window: float, terms: Sequence[Term]) -> float:
    """Windows follow each other, and each lets through what the limit was in the end.

    Who fills every window hears of a change with the first replies in the next one, for which it holds already.
    """
    turn, place = 0, 0
    while True:
        start, end = turn * window, (turn + 1) * window
        while place + 1 < len(terms) and terms[place + 1][0] <= start:
            place += 1
        within = [terms[place], *(term for term in terms[place + 1 :] if term[0] < end)]
        limit = within[-1][1]
        alike = 1.0  # windows that see no change, if this one sees none
        if len(within) == 1:
            alike = terms[place + 1][0] // window - turn if place + 1 < len(terms) else math.inf
        needed = math.ceil(demand / limit)
        if needed > alike:
            turn, demand = turn + int(alike), demand - alike * limit
        elif needed > 1 or demand <= within[0][1]:
            return max(0, turn + needed - 1) * window
        else:
            return next(at for at, allowed in within if demand <= allowed)
