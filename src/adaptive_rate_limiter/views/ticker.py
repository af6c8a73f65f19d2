"""Something done every so often, in a thread of its own that a timer of the limiter's clock wakes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.clock import Clock, Timer

__all__ = ["Ticker"]


class Ticker:
    """Calls `action` at once, every `every` seconds, and once more at the end; never within the timer's own thread,
    which has calls to let go meanwhile.
    """

    def __init__(self, clock: Clock, every: float, action: Callable[[], object]) -> None:
        self._clock = clock
        self._every = every
        self._action = action
        self._due = threading.Event()
        self._ended = False
        self._timer: Timer | None = None
        self._thread = threading.Thread(target=self._run, name="adaptive-rate-limiter-view", daemon=True)

    def start(self) -> None:
        self._action()
        self._wind()
        self._thread.start()

    def stop(self) -> None:
        """Comes back when the last call is over."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._due.set()
        self._thread.join()
        self._action()

    def _wind(self) -> None:
        self._timer = self._clock.call_at(self._clock.now() + self._every, self._due.set)

    def _run(self) -> None:
        while True:
            self._due.wait()
            if self._ended:
                return
            self._due.clear()
            self._action()
            self._wind()
