"""The time, and one thread that wakes whoever waits for it. Nothing polls."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer"]

logger = logging.getLogger(__name__)

LONGEST_SLEEP = 3600.0  # seconds; the platform bounds a wait, and waking once an hour costs nothing


class Timer(Protocol):
    """A callback that is due at some time, until cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, and callbacks at an instant. `testing.FakeClock` is one that tests move by hand."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer: ...


class _Entry:
    __slots__ = ("callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _TimerThread:
    """Runs callbacks when they are due. Entries arrive by a queue whose `put` is safe even inside `__del__`."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[_Entry] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def add(self, entry: _Entry) -> None:
        self._inbox.put(entry)
        if not self._started:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="adaptive-rate-limiter-timer", daemon=True).start()

    def _run(self) -> None:
        due: list[tuple[float, int, _Entry]] = []
        order = itertools.count()
        while True:
            wait = min(LONGEST_SLEEP, due[0][0] - time.monotonic()) if due else LONGEST_SLEEP
            try:
                entry = self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait()
                heapq.heappush(due, (entry.when, next(order), entry))
            except Empty:
                pass
            while due and (due[0][2].cancelled or due[0][0] <= time.monotonic()):
                _fire(heapq.heappop(due)[2])


def _fire(entry: _Entry) -> None:
    if entry.cancelled:
        return
    try:
        entry.callback()
    except Exception:
        logger.exception("a timer's callback failed")


_thread = _TimerThread()


def _forget_thread() -> None:
    """A forked child has no thread of its parent's: it starts its own when it first needs one."""
    global _thread  # noqa: PLW0603 - one thread a process is the point
    _thread = _TimerThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_thread)


class SystemClock:
    """The machine's monotonic clock: jumps of the wall clock change nothing."""

    now = staticmethod(time.monotonic)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        entry = _Entry(when, callback)
        _thread.add(entry)
        return entry
