"""How one caller waits, and how it is woken: a thread, or a coroutine of any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import thread_time
from typing import TYPE_CHECKING, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.queue import Call

__all__ = ["LoopWaker", "ThreadWaker", "Waker", "loop_waker", "wake"]

AT_ONCE = 8  # woken in the first round of a loop
FASTER = 4  # times as many in each round after one that was cheap; one after any other
CHEAP = 0.001  # seconds of CPU for each call of a round, at the most; through an SDK it is several times that


class ThreadWaker:
    """Wakes one thread. A bare lock is a tenth of the size of a threading.Event."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def wait(self) -> None:
        self.lock.acquire()

    def wake(self) -> None:
        self.lock.release()


LoopWaker: TypeAlias = "asyncio.Future[None]"
"""Wakes one coroutine, in whichever event loop it runs; the loop is known only while it waits."""

Waker: TypeAlias = "ThreadWaker | LoopWaker"


def loop_waker() -> LoopWaker:
    return asyncio.get_running_loop().create_future()


def wake(calls: list[Call]) -> list[Call]:
    """Wake everyone, with one hand-over for each event loop. Returns those whose loop was closed over them."""
    loops: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        waker: Waker = call.wake
        if isinstance(waker, ThreadWaker):
            waker.wake()
        else:
            loops.setdefault(waker.get_loop(), []).append(call)
    return [call for loop, group in loops.items() if not _hand_over(loop, group) for call in group]


def _hand_over(loop: asyncio.AbstractEventLoop, calls: list[Call]) -> bool:
    wakers: list[LoopWaker] = [call.wake for call in calls]
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - documented, and it does not raise where there is none
        _wake_in_loop(loop, wakers)
        return True
    try:
        loop.call_soon_threadsafe(_wake_in_loop, loop, wakers)
    except RuntimeError:  # the loop is closed
        return False
    return True


class _Rounds:
    """Wakes those of one event loop: few in each round of it, one in each while calls cost much.

    Woken together, hundreds would take each step towards their requests together: the first would be written when
    the last is, and all replies read after that.
    """

    __slots__ = ("_most", "_under_way", "_wakers", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = ref(loop)  # weak: a loop that is gone is gone
        self._wakers: deque[LoopWaker] = deque()
        self._most = AT_ONCE
        self._under_way = False

    def wake(self, loop: asyncio.AbstractEventLoop, wakers: list[LoopWaker]) -> None:
        self._wakers.extend(wakers)
        if not self._under_way:
            self._under_way = True
            self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self._most
        while self._wakers and left:
            waker = self._wakers.popleft()
            if not waker.done():
                waker.set_result(None)
                left -= 1
        loop.call_soon(self._next, loop, thread_time())

    def _next(self, loop: asyncio.AbstractEventLoop, since: float) -> None:
        cheap = thread_time() - since < self._most * CHEAP
        if cheap and not self._wakers:
            self._most, self._under_way = AT_ONCE, False
            return
        self._most = self._most * FASTER if cheap else 1
        self._wake(loop)


class _Latest(threading.local):
    rounds: _Rounds | None = None  # of the loop that runs in this thread, or ran last


_latest = _Latest()


def _wake_in_loop(loop: asyncio.AbstractEventLoop, wakers: list[LoopWaker]) -> None:
    rounds = _latest.rounds
    if rounds is None or rounds.loop() is not loop:  # what another loop has begun, it ends when it runs again
        rounds = _latest.rounds = _Rounds(loop)
    rounds.wake(loop, wakers)
