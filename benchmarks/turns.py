"""What a limiter adds to one call, in CPU microseconds, with an error of about ten.

A call without it and one with it take turns in one process: the processor's speed, which changes from one moment to the
next, is then the same for both. The limiter's time stands still in between, so that it does what it puts off as often as
in a program that makes no other calls. The median of many blocks counts, as a part of the plain call: all else is other
work on the machine. Two clients of one kind differ by as much as 2 %, by the places of their things in memory: in each
ROUND all are made anew, the first of them last in every other one, and their mean counts. So it is done in PROCESSES. On a
shared machine one of them may be half as fast as another, and what the limiter adds with it: it is told at the speed of
the quickest. The median of the processes counts, and half of the distance between their quartiles is its spread.

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
from statistics import fmean, median, quantiles
from typing import Any, NamedTuple

from adaptive_rate_limiter.clock import SystemClock
from benchmarks import compiled

PROCESSES, ROUNDS, BLOCKS = 7, 4, 6
CALLS, FIRST_CALLS = 32, 150  # of each kind in a block, and before the first
COMPILED = ", compiled"
HEADS = ("way in", "without a limiter", "added", "added by the compiled wheel")

Arms = Mapping[str, Callable[[], Callable[[], float]]]
"""Makers of calls that tell their CPU seconds, by name; the first is the one without a limiter."""


class OwnTime(SystemClock):
    """Passes only while the calls that it limits have their turn."""

    def __init__(self) -> None:
        self._away = 0.0

    def now(self) -> float:  # type: ignore[override]  # the machine's own is no method
        return time.monotonic() - self._away

    def skip(self, seconds: float) -> None:
        self._away += seconds


TIME = OwnTime()
"""For the limiters of all arms, of which one at a time has its turn."""


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
            print(json.dumps([name, _parts(ways[name]())]), flush=True)
            os._exit(0)  # what belongs to the parent is not this one's to close
        os.waitpid(child, 0)


def _parts(arms: Arms) -> dict[str, float]:
    """The first arm's microseconds, and what each other adds as a part of them."""
    first, *others = arms
    quickest = float("inf")
    parts = defaultdict(list)
    for number in range(ROUNDS):
        calls = _made(arms, [*arms][:: -1 if number % 2 else 1])
        for name in others:
            blocks = [_block(calls[first], calls[name]) for _ in range(BLOCKS)]
            quickest = min(quickest, *(without for without, _ in blocks))
            parts[name].append(median(with_it / without - 1 for without, with_it in blocks))
    return {first: quickest / CALLS * 1e6} | {name: fmean(found) for name, found in parts.items()}


def _made(arms: Arms, names: list[str]) -> dict[str, Callable[[], float]]:
    """Made in this order, and called often enough to be as quick as they get."""
    gc.unfreeze()
    calls = {name: arms[name]() for name in names}
    for call in calls.values():
        for _ in range(FIRST_CALLS):
            call()
    gc.collect()
    gc.freeze()
    return calls


def _block(plain: Callable[[], float], limited: Callable[[], float]) -> tuple[float, float]:
    """Seconds of all calls of either kind. Each goes first as often as the other."""
    without = with_it = 0.0
    for number in range(CALLS):
        if number % 2:
            with_it += limited()
        started = time.monotonic()
        without += plain()
        TIME.skip(time.monotonic() - started)
        if not number % 2:
            with_it += limited()
    return without, with_it


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
                for arm, part in others:
                    seen[way][arm + wheel].append(part)
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
