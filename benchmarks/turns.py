"""What one call costs in several arms, all in turns, since machines are noisy.

A round is the mean of a few calls in CPU time, short enough to fall between two bouts of other work, and the quickest of
many counts: what others add to it was other work on the machine. No two processes have their memory in the same places,
which makes one of them some percent slower than the next for all its life: so each arm has PROCESSES.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from benchmarks import compiled

PROCESSES, ROUNDS, CALLS = 2, 250, 5
COMPILED = ", compiled"


def serve(call: Callable[[], float]) -> None:
    """The process of an arm: for every line that comes in, the microseconds of one `call`, which tells its seconds."""
    for _ in sys.stdin:
        print(sum(call() for _ in range(CALLS)) / CALLS * 1e6, flush=True)


def measure(arms: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Microseconds of one call in each arm; `arms` are the arguments of `python -m` that serve them, by name.

    Those whose name ends in COMPILED are served by the interpreter that has the compiled wheel.
    """
    with ExitStack() as stack:
        workers = [
            (name, stack.enter_context(_started(name, arm)))
            for _ in range(PROCESSES)
            for name, arm in arms.items()
        ]
        for _, worker in workers:  # imports and first-use costs
            _round(worker)
        quickest = dict.fromkeys(arms, float("inf"))
        for _ in range(ROUNDS):
            for name, worker in workers:
                quickest[name] = min(quickest[name], _round(worker))
        for _, worker in workers:
            worker.stdin.close()  # type: ignore[union-attr]
    return quickest


def _started(name: str, arm: Sequence[str]) -> subprocess.Popen[str]:
    python = (name.endswith(COMPILED) and compiled.PYTHON) or sys.executable
    return subprocess.Popen([python, "-m", *arm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _round(worker: subprocess.Popen[str]) -> float:
    worker.stdin.write("\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    return float(worker.stdout.readline())  # type: ignore[union-attr]
