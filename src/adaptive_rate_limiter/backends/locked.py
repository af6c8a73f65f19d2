"""A bucket that many threads and event loops share: a lock, one timer, and the waking of those who wait."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.queue import Call

if TYPE_CHECKING:
    from adaptive_rate_limiter.clock import Clock, Timer

Result = TypeVar("Result")


class ThreadWaker:
    """Wakes one thread. A bare lock is a tenth of the size of a threading.Event."""

    __slots__ = ("lock",)

    loop = None

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def wait(self) -> None:
        self.lock.acquire()

    def wake(self) -> None:
        self.lock.release()


class LoopWaker:
    """Wakes one coroutine, in whichever event loop it runs; the loop is known only while it waits."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class LockedBucket:
    """Every step on the bucket is one short critical section; whoever may go is woken after it."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self.bucket = bucket
        self.clock = clock
        self.origin: tuple[str, str] | None = None  # host and hashed credential, once a request was seen
        self.announced = False  # that a long line has formed
        self._lock = threading.Lock()
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._abandoned: deque[Call] = deque()

    def submit(self, call: Call, waker: Callable[[], ThreadWaker | LoopWaker]) -> bool:
        """True if the call was admitted at once; else `call.wake` is set, and woken when its wait is over.

        Raises CapacityExceededError if it can never go, or not in time.
        """
        with self._lock:
            now = self.clock.now()
            if self._abandoned:
                self._lapse_abandoned()
            self.bucket.submit(call, now)
            if call.hold is not None:
                return True
            call.wake = waker()
            done = self._dispatch(now) if self.bucket.wake_at <= now else []
        _wake(done)
        return False

    def step(self, action: Callable[[Bucket, float], Result]) -> Result:
        """Run one step of the bucket at the present time, and let go whoever may go after it."""
        with self._lock:
            now = self.clock.now()
            if self._abandoned:
                self._lapse_abandoned()
            result = action(self.bucket, now)
            done = self._dispatch(now) if self.bucket.queue.count else []
        _wake(done)
        return result

    def look(self, view: Callable[[Bucket, float], Result]) -> Result:
        """Read the bucket without letting anyone go."""
        with self._lock:
            return view(self.bucket, self.clock.now())

    def abandon(self, call: Call) -> None:
        """The reservation was garbage-collected: take no lock here, the collector runs anywhere."""
        self._abandoned.append(call)
        self.clock.call_at(-math.inf, self._tick)

    def _lapse_abandoned(self) -> None:
        while self._abandoned:
            self.bucket.lapse(self._abandoned.popleft())

    def _tick(self) -> None:
        with self._lock:
            if self._abandoned:
                self._lapse_abandoned()
            now = self.clock.now()
            if now >= self._timer_at:
                self._timer, self._timer_at = None, math.inf
            done = self._dispatch(now) if self.bucket.queue.count else []
        _wake(done)

    def _dispatch(self, now: float) -> list[Call]:
        done = self.bucket.dispatch(now)
        wake_at = self.bucket.wake_at
        if wake_at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = wake_at
            self._timer = self.clock.call_at(wake_at, self._tick)
        return done


def _wake(calls: list[Call]) -> None:
    """Wake everyone, with one hand-over for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[LoopWaker]] = {}
    for call in calls:
        if call.wake.loop is None:
            call.wake.wake()
        else:
            loops.setdefault(call.wake.loop, []).append(call.wake)
    for loop, wakers in loops.items():
        try:
            loop.call_soon_threadsafe(_wake_in_loop, wakers)
        except RuntimeError:  # the loop was closed over callers that still waited: as their coroutines are
            continue  # collected, they give back what they hold


def _wake_in_loop(wakers: list[LoopWaker]) -> None:
    for waker in wakers:
        waker.wake()
