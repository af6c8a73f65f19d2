"""How one caller waits, and how it is woken: a thread, or a coroutine of any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import thread_time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.queue import Call

__all__ = ["LoopWaker", "ThreadWaker", "Waker", "loop_waker", "wake"]

AT_ONCE = 8  # woken in the first round of a loop
FASTER = 4  # times as many in the next, where
CHEAP = 0.001  # seconds of CPU, at the most, is what a call takes of a round; through an SDK it is several times that


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
    wakers: deque[LoopWaker] = deque(call.wake for call in calls)
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - documented, and it does not raise where there is none
        _wake_in_loop(loop, wakers)
        return True
    try:
        loop.call_soon_threadsafe(_wake_in_loop, loop, wakers)
    except RuntimeError:  # the loop is closed
        return False
    return True


def _wake_in_loop(
    loop: asyncio.AbstractEventLoop,
    wakers: deque[LoopWaker],
    most: int = AT_ONCE,
    since: float | None = None,
) -> None:
    """Wake `most` of them, and the others in the next rounds of the loop: more where calls cost little, else one each.

    Woken together, hundreds would take each step towards their requests together: the first would be written when
    the last is, and all replies read after that.
    """
    if since is not None:
        most = most * FASTER if thread_time() - since < most * CHEAP else 1
    left = most
    while wakers and left:
        waker = wakers.popleft()
        if not waker.done():
            waker.set_result(None)
            left -= 1
    if wakers:
        loop.call_soon(_wake_in_loop, loop, wakers, most, thread_time())
