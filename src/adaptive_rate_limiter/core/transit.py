"""How long a request is on its way before the provider counts it: only bounds can be known."""

from __future__ import annotations

import math

LONGEST = 1.0  # seconds on the way at the most that are reckoned with
PERIOD = 64  # replies in which the fastest is looked for
SPREAD = 0.05  # seconds by which one request may be slower on its way than another


class Transit:
    """Bounds the time from a send to the provider's count of it by the fastest replies of late.

    A reply takes the way there, the provider's work and the way back: the fastest of many bounds the way of
    all, but for what a busy client adds, and that shows in the time it took from admission to send.
    """

    __slots__ = ("before", "fastest", "left")

    def __init__(self) -> None:
        self.fastest = self.before = math.inf  # in this period, and in the one before it
        self.left = PERIOD

    def counted_by(self, admitted_at: float, sent_at: float, replied_at: float) -> float:
        """By when the provider has counted a request; learns from its reply."""
        taken = replied_at - sent_at
        self.fastest = min(self.fastest, taken)
        self.left -= 1
        if not self.left:
            self.before, self.fastest, self.left = self.fastest, math.inf, PERIOD
        way = min(self.fastest, self.before) + SPREAD + sent_at - admitted_at
        return min(replied_at, sent_at + min(way, LONGEST))
