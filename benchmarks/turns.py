"""What one call costs in several arms: each in a process of its own, all in turns, since machines are noisy.

A round is the mean of CALLS calls in CPU time, and the quickest round of each arm counts: what others add to it was other
work on the machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

ROUNDS, CALLS = 120, 20


def serve(call: Callable[[], float]) -> None:
    """The process of an arm: for every line that comes in, the microseconds of one `call`, which tells its seconds."""
    for _ in sys.stdin:
        print(sum(call() for _ in range(CALLS)) / CALLS * 1e6, flush=True)


def measure(arms: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Microseconds of one call in each arm; `arms` are the arguments of `python -m` that serve them, by name."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", *arm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for name, arm in arms.items()
        }
        rounds = [{name: _round(worker) for name, worker in workers.items()} for _ in range(ROUNDS + 1)]
        for worker in workers.values():
            worker.stdin.close()  # type: ignore[union-attr]
    del rounds[0]  # imports and first-use costs
    return {name: min(one[name] for one in rounds) for name in arms}


def _round(worker: subprocess.Popen[str]) -> float:
    worker.stdin.write("\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    return float(worker.stdout.readline())  # type: ignore[union-attr]
