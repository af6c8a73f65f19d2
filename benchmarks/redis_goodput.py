"""Eight processes of uneven demand behind one emulated limit, sharing it through Redis, and what goes wrong meanwhile.

`python -m benchmarks.redis_goodput --algorithm=token_bucket --fault=killed` is one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.redis.server import Server
from tests.redis.worker import work

from adaptive_rate_limiter.testing import ProviderEmulator

ROOT = Path(__file__).parent.parent
ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")
FAULTS = {
    "none": "nothing fails",
    "killed": "two killed, one started half-way",
    "stopped": "Redis stopped for 10 s, its data lost",
}
DEMAND = (1, 1, 2, 3, 4, 6, 8, 15)  # parts of the calls, one for each process
LATECOMER = 4  # parts of the one that starts half-way
KILLED = (5, 6)  # processes, at a third and at two thirds of the time
LATENCY = (0.1, 0.3)
LONGEST = 150.0  # seconds of one run
# Of each algorithm: limit, seconds of its window, calls, and T* for them. What comes back to a window goes in one burst,
# and eight clients on two cores send 100 to 200 calls a second: of 900 the last goes six seconds after the turn.
TASKS = {
    "token_bucket": (1200, 60.0, 2200, 50.0),
    "fixed_window": (300, 60.0, 580, 60.0),
    "sliding_window": (300, 60.0, 580, 60.0),
}


class Process:
    """A worker that is ready, and begins when it is told."""

    def __init__(self, options: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "benchmarks.redis_goodput", "--worker", json.dumps(options)]
        self.calls = options["calls"]
        self.killed = False
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.process.communicate()

    def result(self, timeout: float) -> dict[str, Any]:
        said, _ = self.process.communicate(timeout=timeout)
        result: dict[str, Any] = json.loads(said.splitlines()[-1])
        return result


@contextmanager
def processes(options: dict[str, Any], calls: int) -> Iterator[list[Process]]:
    """All of them, ready; the last one is the latecomer."""
    parts = [*DEMAND, LATECOMER]
    with ExitStack() as stack:
        made = []
        for part in parts:
            each = Process({**options, "calls": calls * part // sum(DEMAND), "concurrency": 10 + 2 * part})
            stack.callback(each.process.kill)
            made.append(each)
        for each in made:
            each.ready()
        yield made


def run(algorithm: str, fault: str) -> dict[str, Any]:
    """One run: time / T*, share of sends refused, calls lost."""
    limit, window, calls, least = TASKS[algorithm]
    limits = {"requests_per_minute": limit, "window": window, "algorithm": algorithm}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder)) as server,
        ProviderEmulator("openai", latency=LATENCY, **limits) as provider,
        processes({"redis": server.url, "provider": provider.base_url}, calls) as workers,
    ):
        first = workers[:-1]
        started = time.monotonic()
        for each in first:
            each.begin()
        happen(fault, least, started, workers, server)
        left = [each for each in (workers if fault == "killed" else first) if not each.killed]
        results = [each.result(LONGEST - (time.monotonic() - started)) for each in left]
        stats = provider.stats()
    seconds = (stats.last_admitted_at or 0.0) - (stats.first_at or 0.0)
    return {
        "algorithm": algorithm, "fault": fault, "seconds": seconds, "least": stats.lower_bound,
        "ratio": seconds / stats.lower_bound, "refused": stats.refused, "admitted": stats.admitted,
        "refused_share": stats.refused / (stats.refused + stats.admitted),
        "lost": sum(each.calls for each in left) - sum(result["done"] for result in results),
        "renewals": sum(result["renewals"] for result in results) / stats.admitted,
        "ends": [round(result["last"] - started, 1) for result in results],
    }  # fmt: skip


def happen(fault: str, least: float, started: float, workers: list[Process], server: Server) -> None:
    """What goes wrong, at its time."""
    plan = {
        "killed": [
            (1 / 3, workers[KILLED[0]].kill),
            (1 / 2, workers[-1].begin),
            (2 / 3, workers[KILLED[1]].kill),
        ],
        "stopped": [(1 / 3, server.stop), (1 / 3 + 10 / least, server.start)],
        "none": [],
    }  # fmt: skip
    for part, action in plan[fault]:
        time.sleep(max(0.0, started + part * least - time.monotonic()))
        action()


def lines(results: list[dict[str, Any]]) -> Iterable[str]:
    found = {(result["algorithm"], result["fault"]): result for result in results}
    algorithms = [algorithm for algorithm in ALGORITHMS if (algorithm, "none") in found]
    yield (
        "Eight processes, whose parts of the work are "
        + ", ".join(map(str, DEMAND))
        + ", behind one limit in"
    )
    yield "OpenAI's dialect, which only its headers tell; replies take 0.1 to 0.3 s. T* is what the provider's own state"
    yield "allowed for what it admitted. Each cell: time / T*, share of sends refused, calls lost, scripts a request."
    yield "Windows are small, since two cores need a second to send 200 calls, and all that comes back to a window goes at once."
    yield ""
    yield "| " + " | ".join(["", *(_task(algorithm) for algorithm in algorithms)]) + " |"
    yield "|---" * (1 + len(algorithms)) + "|"
    for fault, name in FAULTS.items():
        cells = [found.get((algorithm, fault)) for algorithm in algorithms]
        yield f"| {name} | " + " | ".join(map(_cell, cells)) + " |"
    yield ""


def _task(algorithm: str) -> str:
    limit, window, calls, _ = TASKS[algorithm]
    return f"{algorithm.replace('_', ' ')}, {limit:,} in {window:g} s, {calls:,} calls"


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    return f"{result['ratio']:.3f}, {result['refused_share']:.2%}, {result['lost']}, {result['renewals']:.2f}"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0])
    options.add_argument("--fault", choices=FAULTS, default="none")
    options.add_argument("--worker", type=json.loads)
    given = options.parse_args()
    if given.worker is None:
        print(json.dumps(run(given.algorithm, given.fault)))
    else:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(asyncio.run(work(given.worker))))


if __name__ == "__main__":
    main()
