"""How long a request is on its way before the provider counts it: only bounds can be known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.hold import Hold

LONGEST = 1.0  # seconds on the way at the most that are reckoned with
PERIOD = 64  # replies in which the fastest is looked for
SPREAD = 0.05  # seconds by which one request may be slower on its way than another


class Transit:
    """Bounds the time from a send to the provider's count of it by the fastest replies of late.

    A reply takes the way there, the provider's work and the way back: the fastest of many, less the work that it
    tells of, bounds the way of all.
    Where nobody told when a request was really written, a busy client may have taken as long again as the longest
    time from an admission to a send, on either side of it.
    """

    __slots__ = ("before", "fastest", "lag", "lag_before", "left")

    def __init__(self) -> None:
        self.fastest = self.before = math.inf  # in this period, and in the one before it
        self.lag = self.lag_before = 0.0  # the longest from an admission to its send, likewise
        self.left = PERIOD

    def counted_by(self, hold: Hold, now: float, processing: float = 0.0) -> float:
        """By when the provider has counted a request that was answered just now, after so many seconds of
        `processing` by its own word; learns from it.
        """
        sent_at = hold.sent_at
        self.fastest = min(self.fastest, max(0.0, now - sent_at - processing))
        self.lag = max(self.lag, sent_at - hold.at)
        way = min(self.before, self.fastest) + SPREAD
        if not hold.written:
            way += 2 * max(self.lag_before, self.lag)
        self.left -= 1
        if not self.left:
            self.before, self.fastest, self.left = self.fastest, math.inf, PERIOD
            self.lag_before, self.lag = self.lag, 0.0
        return min(now, sent_at + min(LONGEST, way))
