"""The three modes of the scheduler beside the release on the registry that has the same import name.

That one lives in an environment of its own, which is made here when it is missing. `python -m benchmarks.scheduler CELL` is
one batch: the provider in this process, its client in another.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import venv
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adaptive_rate_limiter.testing import ProviderEmulator
from benchmarks.scheduler_client import CALLS, CONCURRENCIES, MODES

ROOT = Path(__file__).parent.parent
PEER = "1.3.0"
PEER_HOME = ROOT / ".venv-peer"
PEER_NEEDS = (f"adaptive-rate-limiter=={PEER}", f"httpx2=={version('httpx2')}")
CLIENTS = ("adaptive", PEER)
ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")
LATENCY = (0.2, 0.6)
REPEATS = 3
LONGEST = 400.0  # seconds of one batch


def interpreter(client: str) -> str:
    """The one that has this client; the release is installed by the first call."""
    if client != PEER:
        return sys.executable
    python = PEER_HOME / "bin" / "python"
    made = PEER_HOME / f".installed-{PEER}"
    if not made.exists():
        venv.create(PEER_HOME, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER_NEEDS]
        subprocess.run(pip, check=True)
        made.touch()
    return str(python)


def run_client(client: str, *arguments: str) -> Any:
    apart = ["-E"] if client == PEER else []  # no PYTHONPATH that leads to ours
    command = [interpreter(client), *apart, "-W", "ignore", "-m", "benchmarks.scheduler_client", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST)
    if done.returncode:
        raise RuntimeError(f"{client} {arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# Overhead


def overhead() -> dict[tuple[str, str], tuple[float, float]]:
    """(requests a second, CPU microseconds) by (client, "mode reply concurrency"): medians of repeats in turns."""
    seen = defaultdict(list)
    for _ in range(REPEATS):
        for client in CLIENTS:
            for name, figures in run_client(client, "overhead").items():
                seen[client, name].append(figures)
    return {
        key: (statistics.median(each for each, _ in figures), statistics.median(used for _, used in figures))
        for key, figures in seen.items()
    }


def overhead_lines() -> Iterable[str]:
    figures = overhead()
    yield "`submit_request` of a call that gives way once and returns, limits far away: requests a second of as many callers"
    yield "as may run at once, and in brackets the CPU microseconds of each beyond those of the call itself. The reply is"
    yield "nothing, or an object with OpenAI's headers. The release is told the limits by its provider, which it needs; ours"
    yield "gets a client and nothing else."
    yield ""
    yield "| mode | reply | | " + " | ".join(f"{callers:,} at once" for callers in CONCURRENCIES) + " |"
    yield "|---" * (3 + len(CONCURRENCIES)) + "|"
    for mode in MODES:
        for reply in CALLS:
            for client in CLIENTS:
                row = [figures[client, f"{mode} {reply} {callers}"] for callers in CONCURRENCIES]
                told = " | ".join(f"{each:,.0f} ({used:.0f})" for each, used in row)
                yield f"| {mode} | {reply} | {name_of(client)} | {told} |"
    yield ""


# Goodput


def cells(calls: int, limit: int) -> list[list[str]]:
    return [
        [f"--mode={mode}", f"--algorithm={algorithm}", f"--client={client}", f"--calls={calls}", f"--limit={limit}"]
        for mode in MODES
        for algorithm in ALGORITHMS
        for client in CLIENTS
    ]  # fmt: skip


def run(cell: argparse.Namespace) -> dict[str, Any]:
    settings = {"algorithm": cell.algorithm, "latency": LATENCY, "requests_per_minute": cell.limit}
    arguments = [f"--mode={cell.mode}", f"--calls={cell.calls}", f"--limit={cell.limit}"]
    result: dict[str, Any] = {"mode": cell.mode, "algorithm": cell.algorithm, "client": cell.client}
    with ProviderEmulator("openai", **settings) as provider:
        try:
            done = run_client(cell.client, "goodput", provider.base_url, *arguments)
        except subprocess.TimeoutExpired:
            done = {"seconds": LONGEST, "lost": cell.calls - provider.stats().admitted, "unfinished": True}
        stats = provider.stats()
    return {
        **result, **done,
        "ratio": None if done["lost"] else done["seconds"] / needed(cell),
        "used": (cell.calls - done["lost"]) / allowed(cell, done["seconds"]),
        "refused_share": stats.refused / max(1, stats.refused + stats.admitted),
    }  # fmt: skip


def needed(cell: argparse.Namespace) -> float:
    """T* for all calls, in seconds."""
    if cell.algorithm == "token_bucket":
        return max(0.0, (cell.calls - cell.limit) / (cell.limit / 60))
    return (math.ceil(cell.calls / cell.limit) - 1) * 60.0


def allowed(cell: argparse.Namespace, seconds: float) -> float:
    """The most that the limit lets through in so many seconds."""
    minutes = seconds / 60
    return cell.limit * (1 + (minutes if cell.algorithm == "token_bucket" else math.floor(minutes)))


def goodput_lines(results: list[dict[str, Any]], calls: int, limit: int) -> Iterable[str]:
    found = {(result["mode"], result["algorithm"], result["client"]): result for result in results}
    yield f"{calls} calls submitted at once, at {limit} requests a minute in OpenAI's dialect, over HTTP on loopback, with"
    yield "`rate_limit_buffer_ratio=1.0`; replies take 0.2 to 0.6 s. As above, only the release is told the limit. Each"
    yield "cell: time / T*, the part of the limit that was used until the last call ended, share of sends refused, calls lost."
    yield ""
    yield "| mode | algorithm | " + " | ".join(map(name_of, CLIENTS)) + " |"
    yield "|---|---" + "|---" * len(CLIENTS) + "|"
    for mode in MODES:
        for algorithm in ALGORITHMS:
            row = " | ".join(_cell(found[mode, algorithm, client]) for client in CLIENTS)
            yield f"| {mode} | {algorithm.replace('_', ' ')} | {row} |"
    yield ""


def _cell(result: dict[str, Any]) -> str:
    if result.get("unfinished"):
        return f"not finished in {LONGEST:.0f} s"
    ratio = "-" if result["ratio"] is None else f"{result['ratio']:.3f}"
    return f"{ratio}, {result['used']:.1%}, {result['refused_share']:.2%}, {result['lost']}"


def name_of(client: str) -> str:
    return f"adaptive-rate-limiter {PEER}" if client == PEER else "ours"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser()
    options.add_argument("--client", default="adaptive", choices=CLIENTS)
    options.add_argument("--mode", default="intelligent", choices=MODES)
    options.add_argument("--algorithm", default="token_bucket", choices=ALGORITHMS)
    options.add_argument("--calls", type=int, default=900)
    options.add_argument("--limit", type=int, default=300)
    return options


if __name__ == "__main__":
    print(json.dumps(run(parser().parse_args())))
