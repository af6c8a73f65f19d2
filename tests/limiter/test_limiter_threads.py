"""One limiter, many threads and event loops at once, on the real clock; forks and signals."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from adaptive_rate_limiter import Limiter, Quota
from adaptive_rate_limiter.backends import locked
from adaptive_rate_limiter.core.estimate import EARLY

WINDOW, LIMIT = 0.2, 20


class Sends:
    """The instants at which the ledger admitted."""

    def __init__(self):
        self.at = []

    def most_above(self, rate, burst):
        """By how much any stretch of time holds more calls than burst + rate * t."""
        at = sorted(self.at)
        worst, excess = 0.0, 0.0
        for index, instant in enumerate(at):
            refilled = (instant - at[index - 1]) * rate if index else 0.0
            excess = max(0.0, excess - refilled) + 1
            worst = max(worst, excess)
        return worst - burst


@pytest.fixture
def shared():
    return Limiter(quotas=Quota("requests", LIMIT, WINDOW))


def test_threads_and_event_loops_share_one_limit(shared):
    """64 threads and four event loops at once: never above the limit, everyone finishes, nothing is left."""
    sends = Sends()
    started = time.monotonic()

    def by_thread():
        for _ in range(2):
            with shared.acquire("m") as reservation:
                sends.at.append(reservation.call.hold.at)

    async def by_task():
        async with await shared.aacquire("m") as reservation:
            sends.at.append(reservation.call.hold.at)
            await asyncio.sleep(0)

    async def many():
        await asyncio.gather(*(by_task() for _ in range(24)))

    with ThreadPoolExecutor(68) as pool:
        done = [pool.submit(by_thread) for _ in range(64)]
        done += [pool.submit(asyncio.run, many()) for _ in range(4)]
        for future in done:
            future.result(20)

    elapsed = time.monotonic() - started
    assert len(sends.at) == 224
    assert LIMIT + elapsed * LIMIT / WINDOW >= 224
    assert sends.most_above(LIMIT / WINDOW, LIMIT) <= 0.001
    (only,) = shared.snapshot().buckets
    assert (only.waiting, only.in_flight, only.admitted) == (0, 0, 224)


def test_several_event_loops_one_after_the_other(shared):
    """No loop is remembered: a limiter made before any of them serves each."""

    async def main():
        await asyncio.gather(*(call() for _ in range(15)))

    async def call():
        (await shared.aacquire("m")).settle()

    for _ in range(4):
        asyncio.run(main())
    assert shared.snapshot().buckets[0].in_flight == 0


async def test_a_loop_within_a_thread_within_a_loop(shared):
    """As in a notebook: a loop runs already, and the code under it runs another in a thread."""

    async def call():
        (await shared.aacquire("m")).settle()

    async def many():
        await asyncio.gather(*(call() for _ in range(25)))

    await asyncio.gather(many(), asyncio.to_thread(asyncio.run, many()))
    await asyncio.to_thread(lambda: shared.acquire("m").settle())
    assert shared.snapshot().buckets[0].in_flight == 0


def test_a_thread_that_settles_wakes_coroutines_of_other_loops():
    limiter = Limiter(max_concurrency=1, quotas={"requests": 60_000})
    reservation = limiter.acquire("m")

    async def wait():
        (await limiter.aacquire("m")).settle()

    def run():
        asyncio.run(wait())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while limiter.snapshot().waiting < 4:
        time.sleep(0.001)
    reservation.settle()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert limiter.snapshot().buckets[0].in_flight == 0


def test_calls_that_end_while_a_snapshot_posts_the_journal_are_counted_once():
    """Eight threads far below the limit, one that looks all the time, and switches between them at every turn."""
    limit, each = 10**9, 150
    limiter = Limiter(quotas=Quota("tokens", limit, 3600.0, algorithm="fixed_window"))
    for _ in range(EARLY + 1):
        limiter.acquire("m", tokens=100).settle(tokens=100)
    done = threading.Event()
    noted, ends = [], []

    def work():
        for number in range(each):
            reservation = limiter.acquire("m", tokens=100)
            noted.append(reservation.call.noted)
            if number % 10 == 0:
                ends.append(reservation.cancel())
            elif number % 10 == 1:
                ends.append(reservation.lapse())
            else:
                ends.append(reservation.settle(tokens=30))

    def look():
        while not done.is_set():
            limiter.snapshot()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(9) as pool:
            looking = pool.submit(look)
            try:
                for future in [pool.submit(work) for _ in range(8)]:
                    future.result(60)
            finally:
                done.set()
            looking.result(60)
    finally:
        sys.setswitchinterval(interval)
    (only,) = limiter.snapshot().buckets
    assert any(noted)
    assert (all(ends), len(ends)) == (True, 8 * each)
    assert (only.in_flight, only.admitted) == (0, EARLY + 1 + 8 * each)
    assert only.tally.ended["cancelled"] == only.tally.ended["unknown"] == 8 * each // 10
    assert only.limits[0].remaining == limit - 100 * (EARLY + 1) - 8 * each // 10 * (100 + 8 * 30)


class Interrupted(BaseException):
    """As KeyboardInterrupt, but nobody else's."""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
def test_a_signal_while_waiting_leaves_the_line(limiter, bucket, clock, until, in_thread):
    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_ident()
    try:
        limiter.acquire("m").settle()

        def kill():
            until(lambda: bucket().waiting == 1)
            signal.pthread_kill(main, signal.SIGUSR1)

        in_thread(kill)
        with pytest.raises(Interrupted):
            limiter.acquire("m")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (bucket().waiting, bucket().in_flight) == (0, 0)
    clock.advance(1.0)
    limiter.acquire("m", timeout=0).settle()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
def test_a_signal_handler_may_look_at_the_limiter(limiter):
    """Even within a step of the same thread: looking takes a lock that the thread may hold already."""
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(limiter.snapshot()))
    try:
        limiter.acquire("m").bucket.look(lambda *_: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen[0].buckets[0].admitted == 1


async def test_what_a_forked_child_forgets(limiter, bucket, clock, turn):
    """In this process, step by step: who waits, what is in flight, and the timer; the limits stay."""
    running = await limiter.aacquire("m")
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    assert (bucket().waiting, bucket().in_flight) == (1, 1)
    locked._before_fork()
    locked._after_fork_in_child()
    assert (bucket().waiting, bucket().in_flight) == (0, 0)
    assert bucket().limits[0].remaining == 0
    assert running.settle() is False
    task.cancel()
    await turn()
    again = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    clock.advance(1.0)
    await turn()
    again.result().settle()
    assert bucket().in_flight == 0


FORK = """
import os, sys, threading, time
from adaptive_rate_limiter import Limiter, Quota
from adaptive_rate_limiter.backends import locked
from adaptive_rate_limiter.core.estimate import EARLY

limiter = Limiter(quotas=Quota("requests", 2, 0.2), max_concurrency=2)
mine = limiter.acquire("m")
limiter.acquire("m").settle()
threads = [threading.Thread(target=lambda: limiter.acquire("m").settle()) for _ in range(20)]
for thread in threads:
    thread.start()
while not limiter.snapshot().waiting:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    assert limiter.snapshot().waiting == 0, "threads of the parent wait in the parent"
    assert limiter.snapshot().buckets[0].in_flight == 0
    for _ in range(6):
        limiter.acquire("m", timeout=5).settle()
    assert mine.settle() is False
    assert limiter.snapshot().buckets[0].in_flight == 0
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
mine.settle()
for thread in threads:
    thread.join(10)
assert limiter.snapshot().waiting == limiter.snapshot().buckets[0].in_flight == 0
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_keeps_the_limits_and_nobody_elses_waits():
    """While threads wait, a timer is pending and a call is in flight in the parent."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
