"""`make bench`: every number that the project claims, in one run, written to benchmarks/results.md."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks import compiled, costs, entry_points, invoke, llama_index, reading, redis, scheduler, turns

RESULTS = Path(__file__).with_name("results.md")
# Cells of each client that run side by side, phase by phase: one is idle most of the time, but for a limiter that
# polls and an SDK that tries again.
PHASES = ({"adaptive": 4}, {"in-memory": 4, "none": 12})
SCHEDULERS = {"adaptive": 5, scheduler.PEER: 9}
WINDOW = 60.0  # seconds; each of those has its own time in it to start, so that their bursts do not meet
LONGEST = 420.0  # seconds of one cell
TURNS = (
    "With and without it in turns, in one\nprocess; the median of blocks counts, and then that of "
    f"{turns.PROCESSES} processes, ± half of the distance between their quartiles."
)

PROVIDERS = ("openai", "anthropic", "azure", "headerless")
ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")
CLIENTS = ("adaptive", "in-memory", "none")

SPECIAL = {
    "two limits that bind in turn: small prompts, then large": [
        "--calls=600", "--tokens-per-minute=163000", "--prompts=phased",
    ],
    "limit cut to 40 % after 40 s, raised fourfold after 100 s": [
        "--calls=900", "--change=[[40, 120], [100, 480]]",
    ],
    "strangers take 30 % of the rate": ["--calls=600", "--strangers=0.3"],
}  # fmt: skip


def run_cells(
    cells: list[list[str]], module: str = "benchmarks.goodput", phases: Iterable[dict[str, int]] = PHASES
) -> list[dict[str, Any]]:
    """Run each cell in a process of its own; results in the order of the cells."""
    results: dict[int, dict[str, Any]] = {}
    for phase in phases:
        with ExitStack() as pools:
            for client, at_once in phase.items():
                numbers = [number for number, cell in enumerate(cells) if f"--client={client}" in cell]
                pool = pools.enter_context(ThreadPoolExecutor(at_once))
                slots = _slots(at_once)
                running = {number: pool.submit(_in_slot, slots, module, cells[number]) for number in numbers}
                pools.callback(_collect, running, results)
    return [results[number] for number in range(len(cells))]


def _slots(at_once: int) -> SimpleQueue[float]:
    """Times within a window at which to start."""
    slots = SimpleQueue[float]()
    for slot in range(at_once):
        slots.put(slot * WINDOW / at_once)
    return slots


def _in_slot(slots: SimpleQueue[float], module: str, cell: list[str]) -> dict[str, Any]:
    slot = slots.get()
    time.sleep((slot - time.monotonic()) % WINDOW)
    try:
        return run_cell(module, cell)
    finally:
        slots.put(slot)


def _collect(running: dict[int, Future[dict[str, Any]]], results: dict[int, dict[str, Any]]) -> None:
    results.update((number, future.result()) for number, future in running.items())


def run_cell(module: str, cell: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *cell],
            capture_output=True, text=True, timeout=LONGEST, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:  # an SDK may sleep out long retry-afters
        named = dict(argument.removeprefix("--").split("=", 1) for argument in cell)
        print(f"{' '.join(cell)}: not finished in {LONGEST:.0f} s", flush=True)
        return {"provider": "openai", "algorithm": "token_bucket", **named, "unfinished": True}
    if done.returncode:
        raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{' '.join(cell)}: {_summary(result)}", flush=True)
    return result


def _summary(result: dict[str, Any]) -> str:
    ratio = "-" if result["ratio"] is None else f"{result['ratio']:.3f}"
    return f"time/T* {ratio}, refused {result['refused_share']:.2%}, lost {result['lost']}"


def goodput_section(calls: int, limit: int) -> Iterable[str]:
    cells = [
        [
            f"--provider={p}",
            f"--algorithm={a}",
            f"--client={c}",
            f"--calls={calls}",
            f"--requests-per-minute={limit}",
        ]
        for p in PROVIDERS
        for a in ALGORITHMS
        for c in CLIENTS
    ]
    results = {(r["provider"], r["algorithm"], r["client"]): r for r in run_cells(cells)}
    yield "## Goodput"
    yield ""
    yield f"{calls} calls through the provider's LangChain chat model (`abatch`) at {limit} requests a minute,"
    yield "over HTTP on loopback, client and provider each in its own process; replies take 0.2 to 0.6 s, and the"
    yield "time includes the last one. A multiple of the limit is the hardest number of calls: one unit that is not"
    yield "used in time costs another window. Each cell: time / T*, share of sends refused, calls lost. In-memory is langchain-core's `InMemoryRateLimiter`,"
    yield "set by hand to the true limit. A run that lost calls has no time."
    yield ""
    yield "| provider | algorithm | AdaptiveLimiter() | in-memory, hand-set | no limiter |"
    yield "|---|---|---|---|---|"
    for provider in PROVIDERS:
        for algorithm in ALGORITHMS:
            row = [_cell(results[provider, algorithm, client]) for client in CLIENTS]
            yield f"| {provider} | {algorithm.replace('_', ' ')} | {' | '.join(row)} |"
    yield ""


def special_section() -> Iterable[str]:
    cells = [[*arguments, f"--client={client}"] for arguments in SPECIAL.values() for client in CLIENTS[:2]]
    results = iter(run_cells(cells))
    yield "## Hard cases"
    yield ""
    yield "OpenAI's dialect, token bucket, 300 requests a minute at first. T* is what the provider's own state allowed."
    yield ""
    yield "| case | AdaptiveLimiter() | in-memory, hand-set |"
    yield "|---|---|---|"
    for name in SPECIAL:
        row = [_cell(next(results)) for _ in CLIENTS[:2]]
        yield f"| {name} | {' | '.join(row)} |"
    yield ""


def _cell(result: dict[str, Any]) -> str:
    if result.get("unfinished"):
        return "not finished"
    ratio = "-" if result["ratio"] is None else f"{result['ratio']:.3f}"
    return f"{ratio}, {result['refused_share']:.2%}, {result['lost']}"


def scheduler_section(calls: int, limit: int) -> Iterable[str]:
    yield "## Schedulers"
    yield ""
    yield from scheduler.overhead_lines()
    phases = [{client: at_once} for client, at_once in SCHEDULERS.items()]
    results = run_cells(scheduler.cells(calls, limit), "benchmarks.scheduler", phases)
    yield from scheduler.goodput_lines(results, calls, limit)


def cost_section() -> Iterable[str]:
    measured = costs.measure()
    if of_wheel := costs.measure_compiled():
        measured.insert(1, ("adaptive-rate-limiter, compiled wheel", of_wheel))
    names = list(dict.fromkeys(name for _, figures in measured for name in figures))
    yield "## Cost"
    yield ""
    yield "| limiter | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for limiter, figures in measured:
        yield f"| {limiter} | " + " | ".join(_number(figures.get(name)) for name in names) + " |"
    yield ""
    per_call = invoke.measure()
    yield f"One `ChatOpenAI.invoke` of no latency (a transport that answers at once), CPU microseconds. {TURNS}"
    yield ""
    none, memory, adaptive, *of_others = per_call.values()
    wheel = of_others[1:]
    yield (
        "| no limiter | in-memory | AdaptiveLimiter() | added by it |"
        + " added by the compiled wheel |" * len(wheel)
    )
    yield "|---" * (4 + len(wheel)) + "|"
    totals = (none.median, none.median + memory.median, none.median + adaptive.median)
    yield "| " + " | ".join([*(f"{total:.0f}" for total in totals), *map(str, (adaptive, *wheel))]) + " |"
    yield ""
    if not of_wheel:
        yield from (compiled.MISSING, "")
    yield "Reading the headers of one response, CPU microseconds:"
    yield ""
    read = reading.measure()
    yield "| " + " | ".join(read) + " |"
    yield "|---" * len(read) + "|"
    yield "| " + " | ".join(f"{microseconds:.1f}" for microseconds in read.values()) + " |"
    yield ""


def entry_section() -> Iterable[str]:
    yield "## Ways in"
    yield ""
    yield f"What each adds to one call of no latency (a transport that answers at once), CPU microseconds. {TURNS}"
    yield ""
    yield from turns.lines(entry_points.measure())
    yield ""


def llama_index_section() -> Iterable[str]:
    yield "## LlamaIndex"
    yield ""
    yield f"{llama_index.AGENTS} streaming agents at once, of {llama_index.RESULTS + 1} calls each, at {llama_index.REQUESTS_PER_MINUTE}"
    yield f"requests a minute; {llama_index.NODES:,} nodes of {llama_index.NODE_TOKENS} tokens through a pipeline at {llama_index.TOKENS_PER_MINUTE:,} tokens a minute."
    yield ""
    yield from llama_index.lines(llama_index.measure())
    yield ""


def redis_section() -> Iterable[str]:
    yield "## Redis"
    yield ""
    yield from redis.lines()


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def write(title: list[str], name: str, lines: list[str]) -> None:
    """Put a section into the results, in place of what stood there; the others stay, in their order."""
    written = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    found = {part.partition("\n")[0]: f"## {part}" for part in written.split("\n## ")[1:]}
    found[HEADINGS[name]] = "\n".join(lines)
    parts = [found[heading].strip() for heading in HEADINGS.values() if heading in found]
    RESULTS.write_text("\n\n".join(["\n".join(title), *parts]) + "\n", encoding="utf-8")


HEADINGS = {
    "goodput": "Goodput", "special": "Hard cases", "costs": "Cost", "entries": "Ways in",
    "llama-index": "LlamaIndex", "redis": "Redis", "schedulers": "Schedulers",
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--only", choices=HEADINGS, action="append", help="measure this part alone")
    options.add_argument("--calls", type=int, default=1200)
    options.add_argument("--limit", type=int, default=300)
    given = options.parse_args()
    title = [
        "# Measured",
        "",
        "Written by `make bench`; T* is the least time that the limits allow (see README.md).",
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}.",
    ]
    sections: dict[str, Callable[[], Iterable[str]]] = {
        "goodput": lambda: goodput_section(given.calls, given.limit),
        "special": special_section,
        "costs": cost_section,
        "entries": entry_section,
        "llama-index": llama_index_section,
        "redis": redis_section,
        "schedulers": lambda: scheduler_section(given.calls, given.limit),
    }
    for name, section in sections.items():
        if not given.only or name in given.only:
            lines = []
            for line in section():
                print(line, flush=True)
                lines.append(line)
            write(title, name, lines)


if __name__ == "__main__":
    main()
