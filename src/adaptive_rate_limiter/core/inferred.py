"""The rate at which workers together send where nobody tells a limit: up while nothing is refused, down when it is.

One worker alone finds its limit by itself (`core/discovery.py`). Many cannot, since none of them sees what the others
send; the pool does. It paces them evenly, which passes under every way of counting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.core.share import CERTAIN, SharedLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

INFERRED = "?requests"  # the key of the limit
MINUTE = 60.0
DEPTH = 1.0  # seconds of the rate that may be sent at once
APART = 1.0  # seconds: refusals that are closer are one
CUT, CUT_MOST, SOON = 0.05, 0.5, 10.0  # of the rate, doubled if the next comes within seconds
GROWTH, FLAT, GROWTH_MOST = 0.001, 30.0, 0.05  # a second; hardly any for a while after a cut, as CUBIC does
FEW = 3.0  # sent since the last refusal: if no more, all is refused, and the rate is not to blame
WAIT_MOST = 8.0  # seconds from one try to the next then
SETTLED = 1.5  # seconds in which its refusal would have been told


class InferredRate:
    """What the pool keeps to infer it. `workers` is how many send, `now` never goes back."""

    __slots__ = ("at", "cut_at", "cuts", "passed", "rate", "recent", "tried_at", "wait")

    def __init__(self) -> None:
        self.recent = 0.0  # requests sent in about the last minute
        self.passed = 0.0  # since the last refusal
        self.at = self.cut_at = 0.0
        self.cuts = 0
        self.wait = 0.0  # seconds between two tries while all is refused; 0 while it is not
        self.rate = 0.0  # a minute, to go on with after that
        self.tried_at = math.inf

    def follow(
        self, sent: float, refusals: int, limits: Sequence[SharedLimit], workers: int, now: float
    ) -> SharedLimit | None:
        """A worker tells what it has sent. Changes the limit, or returns it when it is new."""
        elapsed = max(0.0, now - self.at)
        self.recent = self.recent * math.exp(-elapsed / MINUTE) + max(0.0, sent)
        self.passed += sent
        self.at = now
        limit = next((limit for limit in limits if limit.key == INFERRED), None)
        if limit is None:
            return self._first(now) if refusals and self.recent >= 1 else None
        if refusals:
            self._refused(limit, workers, now)
        elif self.wait:
            self._try(limit, sent, now)
        elif workers > 1 and limit.available() < 0.5 * limit.burst:  # it is used
            growth = min(GROWTH_MOST, GROWTH * (1 + ((now - self.cut_at) / FLAT) ** 2))
            _set(limit, limit.limit * (1 + growth * min(elapsed, 1.0)), now)
        return None

    def _first(self, now: float) -> SharedLimit:
        """What was sent in the last minute passed, but for the last."""
        limit = SharedLimit(INFERRED, REQUESTS, self.recent, MINUTE, _burst(self.recent), now)
        limit.shape("b", CERTAIN, now)
        limit.correct(0.0, now)
        self.cut_at, self.cuts, self.passed = now, 1, 0.0
        return limit

    def _refused(self, limit: SharedLimit, workers: int, now: float) -> None:
        if workers == 1:  # it finds out by itself what it may send
            _set(limit, max(1.0, self.recent), now)
        elif now - self.cut_at >= APART:
            if self.passed > FEW:
                self._cut(limit, now)
            else:
                self.rate = self.rate if self.wait else limit.limit
                self.wait = min(WAIT_MOST, max(1.0, 2 * self.wait))
                _set(limit, MINUTE / self.wait, now)
            self.cut_at, self.passed, self.tried_at = now, 0.0, math.inf
        limit.correct(min(0.0, limit.available()), now)

    def _cut(self, limit: SharedLimit, now: float) -> None:
        self.cuts = self.cuts + 1 if now - self.cut_at < SOON else 1
        part = min(CUT_MOST, CUT * 2.0 ** (self.cuts - 1))
        most = max(
            self.recent, (1 - CUT_MOST) * limit.limit
        )  # what passed in the last minute would pass again
        _set(limit, max(1.0, min(most, limit.limit * (1 - part))), now)

    def _try(self, limit: SharedLimit, sent: float, now: float) -> None:
        """Once one was not refused, go on as before."""
        if sent > 0:
            self.tried_at = min(self.tried_at, now)
        if now - self.tried_at >= SETTLED:
            _set(limit, self.rate, now)
            self.wait, self.tried_at = 0.0, math.inf


def _burst(limit: float) -> float:
    return max(1.0, limit / MINUTE * DEPTH)


def _set(limit: SharedLimit, value: float, now: float) -> None:
    limit.resize(value, MINUTE, _burst(value), now)
