"""What a bucket has counted and where its time went, as values that can be copied, pickled and said."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from adaptive_rate_limiter.core.quota import REQUESTS

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)  # seconds of waiting
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


class Waits:
    """How many waits were at most as long as each of BOUNDS and longer than the bound before; the last: longer."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0  # in all

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> Waits:
        copied = Waits()
        copied.counts, copied.seconds = self.counts.copy(), self.seconds
        return copied


@dataclass(frozen=True, slots=True)
class TallyReport:
    """What a bucket has counted since it was made; an attempt is one, amounts are in their units, times in seconds.

    `serial`: no other bucket of this process has it. `idle`: since the last admission; inf if there was none.
    `admitted`: all, those included that moved to another bucket when their request showed where they belong.
    `ended`: by outcome: settled, cancelled, refused, unknown, moved. What is left of `admitted` is in flight.
    `refused`: the provider's refusals, by kind. `rejected`: the limiter's own, by reason. `withdrawn`: callers
    that gave up in line. `waits`: of those admitted after a wait, by what they waited for; `held_back`: how long
    the line as a whole waited for it. `oldest_wait`: so far, of the one that is first by age.
    `pauses`: by reason. `limit_changes`: by unit and "learned", "raised" or "lowered". `reserved`: by unit; of
    tokens, `overestimated` were given back, and `underestimated` were charged beyond. `used_by_others`: by unit
    and window, what headers show beyond our own use, at least.
    """

    serial: int
    idle: float
    admitted: int
    ended: dict[str, int]
    refused: dict[str, int]
    rejected: dict[str, int]
    withdrawn: int
    waits: dict[str, Waits]
    held_back: dict[str, float]
    oldest_wait: float
    pauses: dict[str, int]
    limit_changes: dict[tuple[str, str], int]
    reserved: dict[str, float]
    overestimated: float
    underestimated: float
    used_by_others: dict[tuple[str, float], float]
