"""Requests that are at their provider now, each for so long at the most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.exceptions import RequestTimeoutError
from adaptive_rate_limiter.scheduler.interrupt import Interruptible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

__all__ = ["Attempt", "Attempts"]


class Attempts:
    """All of one event loop, under one timer: it is set anew when it rings, not for each of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[Attempt] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._running)

    def enter(self, attempt: Attempt) -> None:
        attempt.late_at = self._loop.time() + attempt.seconds
        self._running.add(attempt)
        if attempt.late_at < self._timer_at:
            self._set_timer(attempt.late_at)

    def leave(self, attempt: Attempt) -> None:
        self._running.discard(attempt)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        self.close()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now, soonest = self._loop.time(), math.inf
        for attempt in self._running:
            if attempt.late_at <= now:
                attempt.interrupt(RequestTimeoutError(f"Request timed out after {attempt.seconds:g}s"))
            else:
                soonest = min(soonest, attempt.late_at)
        if soonest < math.inf:
            self._set_timer(soonest)


class Attempt(Interruptible):
    """One request's time at its provider, at most `seconds`; then it ends with RequestTimeoutError."""

    __slots__ = ("late_at", "seconds")

    def __init__(self, attempts: Attempts, seconds: float) -> None:
        super().__init__(attempts)
        self.seconds = seconds
        self.late_at = math.inf
