"""The time, and one thread that wakes whoever waits for it. Nothing polls."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "SystemClock", "Timer"]

logger = logging.getLogger(__name__)

LONGEST_SLEEP = 3600.0  # seconds; the platform bounds a wait, and waking once an hour costs nothing
TIDY = 1024  # timers; beyond, those that were cancelled are swept out


class Timer(Protocol):
    """A callback that is due at some time, until cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, and callbacks at an instant. `testing.FakeClock` is one that tests move by hand."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer: ...


class _Entry:
    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _TimerThread:
    """Runs callbacks when they are due. Entries arrive by a queue whose `put` is safe even inside `__del__`."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[_Entry] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False
        self._due: list[tuple[float, int, _Entry]] = []
        self._order = itertools.count()
        self._tidy_at = TIDY

    def add(self, entry: _Entry) -> None:
        self._inbox.put(entry)
        # Whoever does not get the lock leaves the start to its owner, who may be this very thread.
        if not self._started and self._starting.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._starting.release()

    def _start(self) -> None:
        if self._started or sys.is_finalizing():
            return
        self._started = True
        thread = threading.Thread(target=self._run, name="adaptive-rate-limiter-timer", daemon=True)
        with suppress(RuntimeError):  # the interpreter is about to end: nobody waits any more
            thread.start()

    def _run(self) -> None:
        due = self._due
        while True:
            wait = min(LONGEST_SLEEP, due[0][0] - time.monotonic()) if due else LONGEST_SLEEP
            with suppress(Empty):
                self._take(self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait())
                while True:  # all that came, before any of it runs: they run in the order of their time
                    self._take(self._inbox.get_nowait())
            while due and (due[0][2].callback is None or due[0][0] <= time.monotonic()):
                _fire(heapq.heappop(due)[2])

    def _take(self, entry: _Entry) -> None:
        due = self._due
        heapq.heappush(due, (entry.when, next(self._order), entry))
        if len(due) >= self._tidy_at:  # those that were cancelled would stay until their time
            due[:] = [item for item in due if item[2].callback is not None]
            heapq.heapify(due)
            self._tidy_at = max(TIDY, 2 * len(due))


def _fire(entry: _Entry) -> None:
    callback = entry.callback
    if callback is None:
        return
    try:
        callback()
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
