"""Which of three ways a provider counts in: every header speaks for or against each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the order of all that is told of the three.
LETTERS = {"token_bucket": "b", "fixed_window": "f", "sliding_window": "s"}
MEMORY = 0.95  # weight of the past score at each reading
WORST = -12.0
MARGIN = 2.4  # score by which a way of counting must fall behind the best to be set aside
HOPELESS = 9.0  # score by which the others must be behind a bucket to be followed no longer
TOO_LOW = -1.0  # mark of a way of counting that foresaw far less than was told
JUMPS = (
    2.5  # headers of late with more than a sliding window would have left, before a window counts as fixed
)
FADING = 0.98  # weight of those before at each other header


class Contest:
    """The scores of a token bucket, a fixed window and a sliding window: 0 at the best, WORST at the least."""

    __slots__ = ("jumps", "scores")

    def __init__(self, scores: Sequence[float] = (0.0, 0.0, 0.0), jumps: float = 0.0) -> None:
        self.scores = list(scores)
        self.jumps = jumps

    @classmethod
    def decided(cls, letters: str) -> Contest:
        """It is one of those whose letters are given."""
        return cls([0.0 if letter in letters else WORST for letter in LETTERS.values()])

    def copy(self) -> Contest:
        return Contest(self.scores, self.jumps)

    def judge(self, marks: Sequence[float]) -> bool:
        """Take in how well each foresaw a header, 0 at the best. False if it speaks for none, and changes nothing."""
        top = max(marks)
        if top == min(marks):
            return False
        self.scores = [
            max(WORST, MEMORY * score + mark - top) for score, mark in zip(self.scores, marks, strict=True)
        ]
        return True

    def doubt(self, late: Sequence[bool]) -> None:
        """Those that are `late` cannot pay when the provider says to come again."""
        self.scores = [
            max(WORST, score - MARGIN / 2 * worse) for score, worse in zip(self.scores, late, strict=True)
        ]

    def forgive_bucket(self) -> None:
        """It was judged by another depth."""
        self.scores[0] = max(self.scores)

    def look_for_turn(self, marks: Sequence[float], *, whole: bool) -> None:
        """Did all come back at once, as only in a fixed window; and was it nearly the `whole` limit?"""
        _, fixed, sliding = marks
        if fixed == 0.0 and sliding <= TOO_LOW:
            self.jumps += JUMPS if whole else 1.0
        else:
            self.jumps *= FADING

    @property
    def likeliest(self) -> int:
        return max(range(3), key=self.scores.__getitem__)

    @property
    def plausible(self) -> list[bool]:
        """Those that are not far behind; and a sliding window for as long as a fixed one has not shown itself.

        Both tell the same until a window turns. To take a fixed one for sliding costs a moment, the reverse a
        burst of refusals: what tells them apart is that all comes back at once, again and again.
        """
        least = max(self.scores) - MARGIN
        bucket, fixed, sliding = (score >= least for score in self.scores)
        return [bucket, fixed, sliding or (fixed and self.jumps < JUMPS)]

    @property
    def is_bucket(self) -> bool:
        """Beyond hope for the others."""
        return self.scores[0] - max(self.scores[1:]) >= HOPELESS
