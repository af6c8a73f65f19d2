"""What a limiter costs its caller: time to acquire and settle when nothing waits, and what ten thousand waiters cost.

Every limiter is asked in turn, many times over, in CPU time, and the quickest of each counts: what others add to it was
other work on the machine. None stands where a limiter has no such call, or is not done within PATIENCE. The collector
leaves alone what was there before: three frameworks are imported here, and one look at all of them takes 0.2 s.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import defaultdict
from typing import Any

from aiolimiter import AsyncLimiter
from langchain_core.rate_limiters import InMemoryRateLimiter
from llama_index.core.rate_limiter import TokenBucketRateLimiter

from adaptive_rate_limiter import Limiter, Quota
from benchmarks import compiled

CALLS = 2_000  # with room for all of them, in one measurement
WAITERS = 10_000
RATE = 5_000.0  # admissions a second while they wait: two seconds in all
BURST = 500.0  # what flows in between two looks of a limiter that polls every 0.1 s
REPEATS = 20
PATIENCE = 20.0  # seconds
PLENTY = 1e12


class Ours:
    """Two units stated, requests and tokens, each call settled with its real usage."""

    name = "adaptive-rate-limiter"

    def __init__(self, rate: float = PLENTY / 60, burst: float = PLENTY) -> None:
        tokens = Quota("tokens", 150 * rate * 60, 60.0, burst=150 * burst)
        self.limiter = Limiter(quotas=[Quota("requests", rate * 60, 60.0, burst=burst), tokens])

    def sync(self) -> None:
        self.limiter.acquire("m", input_tokens=100, output_tokens=50).settle(
            input_tokens=100, output_tokens=50
        )

    async def asynchronous(self) -> None:
        reservation = await self.limiter.aacquire("m", input_tokens=100, output_tokens=50)
        reservation.settle(input_tokens=100, output_tokens=50)


class LangChain:
    """Counts requests only. Polls."""

    name = "langchain_core InMemoryRateLimiter"

    def __init__(self, rate: float = PLENTY, burst: float = PLENTY) -> None:
        limiter = InMemoryRateLimiter(requests_per_second=rate, max_bucket_size=burst)
        self.sync, self.asynchronous = limiter.acquire, limiter.aacquire


class LlamaIndex:
    """Counts requests and tokens; never learns what a call has used. Polls. Its burst is a minute's limit."""

    name = "llama_index TokenBucketRateLimiter"

    def __init__(self, rate: float = PLENTY, burst: float = PLENTY) -> None:
        limiter = TokenBucketRateLimiter(requests_per_minute=rate * 60, tokens_per_minute=150 * rate * 60)
        limiter._request_tokens = burst
        self.sync = lambda: limiter.acquire(150)
        self.asynchronous = lambda: limiter.async_acquire(150)


class AioLimiter:
    """Counts requests only, for one event loop."""

    name = "aiolimiter AsyncLimiter"
    sync = None

    def __init__(self, rate: float = PLENTY, burst: float = PLENTY) -> None:
        self.asynchronous = AsyncLimiter(burst, burst / rate).acquire


LIMITERS = (Ours, LangChain, LlamaIndex, AioLimiter)


def sync_us(kind) -> float | None:
    """Microseconds of CPU for one acquire, and settle where there is one, with room for it."""
    call = kind().sync
    if call is None:
        return None
    call()
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - started) / CALLS * 1e6


def async_us(kind) -> float:
    """The same for a coroutine, in a loop that has nothing else to do."""

    async def run() -> float:
        call = kind().asynchronous
        await call()
        started = time.process_time()
        for _ in range(CALLS):
            await call()
        return (time.process_time() - started) / CALLS * 1e6

    return asyncio.run(run())


def waiting_cpu_s(kind) -> float | None:
    """CPU seconds in all of WAITERS callers that come at once, wait, and are admitted at RATE."""

    async def run() -> float:
        call = kind(RATE, BURST).asynchronous
        started = time.process_time()
        await asyncio.wait_for(asyncio.gather(*(call() for _ in range(WAITERS))), PATIENCE)
        return time.process_time() - started

    try:
        return asyncio.run(run())
    except asyncio.TimeoutError:
        return None


def waiting_bytes(kind) -> float:
    """Bytes of one that waits, its task and its coroutine included."""

    async def run() -> float:
        call = kind(1.0, 1.0).asynchronous
        await call()
        before, _ = tracemalloc.get_traced_memory()
        tasks = [asyncio.ensure_future(call()) for _ in range(WAITERS)]
        for _ in range(3):
            await asyncio.sleep(0)
        after, _ = tracemalloc.get_traced_memory()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (after - before) / WAITERS

    tracemalloc.start()
    try:
        return asyncio.run(run())
    finally:
        tracemalloc.stop()


FIGURES = {
    "sync, \u00b5s": (sync_us, REPEATS),
    "async, \u00b5s": (async_us, REPEATS),
    "10,000 waiting, CPU s": (waiting_cpu_s, 10),
    "a waiting caller, bytes": (waiting_bytes, 1),
}


def measure(kinds: tuple[Any, ...] = LIMITERS) -> list[tuple[str, dict[str, float | None]]]:
    """(limiter, its figures by name): the least of interleaved repeats."""
    seen: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    gc.collect()
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(REPEATS):
            for name, (figure, repeats) in FIGURES.items():
                for kind in kinds:
                    values = seen[kind.name, name]
                    if repeat < repeats and None not in values:
                        values.append(figure(kind))
    gc.unfreeze()
    return [(kind.name, {name: _least(seen[kind.name, name]) for name in FIGURES}) for kind in kinds]


def measure_compiled() -> dict[str, float | None]:
    """Our own figures from the compiled wheel; empty where there is none."""
    if compiled.PYTHON is None:
        return {}
    done = subprocess.run(
        [compiled.PYTHON, "-m", "benchmarks.costs", "--ours"], capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


def _least(values: list[float | None]) -> float | None:
    return None if None in values else min(values)


if __name__ == "__main__":
    if sys.argv[1:] == ["--ours"]:
        print(json.dumps(measure((Ours,))[0][1]))
    else:
        for name, figures in measure():
            print(name, figures)
