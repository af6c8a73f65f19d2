"""Says, now and then, how long a line will take: nobody waits for hours in silence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.account import cause_of
from adaptive_rate_limiter.report import duration, line_eta

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket

__all__ = ["Progress"]

LONG_LINE = 10.0  # seconds: what is over sooner is not worth a word
EVERY = 60.0  # seconds from one word to the next, while a line stays long
GROWTH = 10  # a line that has grown so many times is worth a word at once


class Progress:
    """When something was last said of one bucket's line."""

    __slots__ = ("at", "count")

    def __init__(self) -> None:
        self.count = 1  # say something when so many wait,
        self.at = math.inf  # or at this time

    def report(self, bucket: Bucket, now: float) -> None:
        """One sentence, as an event, if it is time for one."""
        waiting = bucket.queue.count
        if not waiting:
            self.count, self.at = 1, math.inf
        if not waiting or (waiting < self.count and now < self.at):
            return
        self.count, self.at = max(self.count, GROWTH * waiting), now + EVERY
        left = line_eta(bucket, now) - now
        if left <= LONG_LINE:
            return
        limit = bucket.wait.limit if bucket.wait is not None else "the limit"
        calls = "1 call waits" if waiting == 1 else f"{waiting:,} calls wait"
        text = f"{calls} for {limit}; the last goes in about {duration(left)}"
        bucket.tally.events.say("waiting", text, now, waiting=waiting, limit=cause_of(limit), seconds=left)
