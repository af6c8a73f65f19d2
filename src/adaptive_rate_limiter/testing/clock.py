"""A clock that tests move by hand."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeClock"]


class _FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time stands still until `advance`; callbacks run in it, in order, at the instant they are due.

    >>> clock = FakeClock()
    >>> timer = clock.call_at(5.0, lambda: print("five"))
    >>> clock.advance(10)
    five
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._due: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()  # the garbage collector may come back within a call

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> _FakeTimer:
        timer = _FakeTimer(callback)
        with self._lock:
            heapq.heappush(self._due, (when, next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """When the next callback is due; None if there is none."""
        with self._lock:
            while self._due and self._due[0][2].callback is None:
                heapq.heappop(self._due)
            return self._due[0][0] if self._due else None

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Callbacks see the instant at which they were due."""
        if not seconds >= 0:
            raise ValueError(f"time goes forward only, got {seconds!r}")
        end = self._now + seconds
        while (when := self.next_due()) is not None and when <= end:
            with self._lock:
                timer = heapq.heappop(self._due)[2]
            self._now = max(self._now, when)
            if timer.callback is not None:
                timer.callback()
        self._now = end
