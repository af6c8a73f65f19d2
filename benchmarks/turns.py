"""What a limiter adds to one call, in CPU microseconds, with an error of about ten.

Blocks of calls without it and with it take turns in one process: the processor's speed and the places of things in memory
are then the same for both. Calls of one kind follow each other within a block, as they do in a program, so many of them
that work which a limiter puts off and does for many calls at once is in each. The quickest block counts: what others add
to it was other work on the machine. All that is imported is the same for all; the rest is made anew in PROCESSES. On a
shared machine one of them may be half as fast as another, and what the limiter adds with it: each difference is told at
the speed of the quickest. Their median counts, and half of the distance between their quartiles is its spread.

What a limiter does to a whole process is part of its own arm only, but for `observe_http`: it adds two microseconds to
all calls, which the difference does not show.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import quantiles
from typing import Any, NamedTuple

from benchmarks import compiled

PROCESSES, CALLS, FIRST_CALLS = 7, 900, 150
BLOCK_CALLS, BLOCK_S = 64, 0.12  # whichever comes first; the ledger puts work off for 64 calls or 50 ms
COMPILED = ", compiled"
HEADS = ("way in", "without a limiter", "added", "added by the compiled wheel")

Arms = Mapping[str, Callable[[], float]]
"""Calls that tell their CPU seconds, by name; the first is the one without a limiter."""


class Figure(NamedTuple):
    median: float
    spread: float

    def __str__(self) -> str:
        return f"{self.median:.0f} ± {self.spread:.0f}"


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    def seconds() -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    return seconds


def serve(ways: Mapping[str, Callable[[], Arms]], asked: Iterable[str] = ()) -> None:
    """What `measure` starts: prints a line for each way in, or for those asked for, each from a process of its own."""
    gc.freeze()  # what is imported stays as it is in all of them
    for name in list(asked) or ways:
        child = os.fork()
        if not child:
            print(json.dumps([name, _quickest(ways[name]())]), flush=True)
            os._exit(0)  # what belongs to the parent is not this one's to close
        os.waitpid(child, 0)


def _quickest(arms: Arms) -> dict[str, float]:
    for call in arms.values():
        for _ in range(FIRST_CALLS):
            call()
    gc.collect()
    gc.freeze()
    quickest = dict.fromkeys(arms, float("inf"))
    done = dict.fromkeys(arms, 0)
    order = list(arms.items())
    while min(done.values()) < CALLS:
        for name, call in order:
            count, seconds = _block(call)
            done[name] += count
            quickest[name] = min(quickest[name], seconds / count * 1e6)
        order.reverse()
    return quickest


def _block(call: Callable[[], float]) -> tuple[int, float]:
    """How many calls it had, and the seconds of all."""
    count, seconds = 0, 0.0
    while count < BLOCK_CALLS and seconds < BLOCK_S:
        seconds += call()
        count += 1
    return count, seconds


def measure(module: str, asked: Iterable[str] = ()) -> dict[str, dict[str, Figure]]:
    """For each way in that `python -m module --serve` serves: the first arm's microseconds, and what each other adds.

    Those whose name ends in COMPILED are of the interpreter that has the compiled wheel, against its own first arm.
    """
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    pythons = {"": sys.executable} | ({COMPILED: compiled.PYTHON} if compiled.PYTHON else {})
    for _ in range(PROCESSES):
        for wheel, python in pythons.items():
            for way, found in _served([python, "-m", module, "--serve", *asked]):
                (first, plain), *others = found.items()
                seen[way][first].append(plain)
                for arm, microseconds in others:
                    seen[way][arm + wheel].append(microseconds / plain - 1)
    return {way: _figures(*arms.items()) for way, arms in seen.items()}


def _figures(first: tuple[str, list[float]], *others: tuple[str, list[float]]) -> dict[str, Figure]:
    """From the microseconds of the first arm, and the parts of them that the others add."""
    name, plain = first
    quickest = min(plain)
    return {name: Figure(quickest, 0.0)} | {arm: _figure(parts, quickest) for arm, parts in others}


def _served(command: list[str]) -> list[tuple[str, dict[str, float]]]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _figure(parts: list[float], of: float) -> Figure:
    lower, middle, upper = quantiles(parts, n=4, method="inclusive")
    return Figure(middle * of, (upper - lower) / 2 * of)


def lines(measured: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """Ways in of two arms as a table."""
    columns = 1 + max(map(len, measured.values()))
    rows = ["| " + " | ".join(HEADS[:columns]) + " |", "|---" * columns + "|"]
    for way, arms in measured.items():
        plain, *added = arms.values()
        rows.append(f"| {way} | {plain.median:.0f} | " + " | ".join(map(str, added)) + " |")
    return rows if compiled.PYTHON else [*rows, "", compiled.MISSING]
