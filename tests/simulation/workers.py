"""Thousands of workers on one limit, of which some die or leave all the time: `python -m tests.simulation workers`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.simulation.fleet import Fleet, Member, Way
from tests.simulation.simulate import Provider

from adaptive_rate_limiter.testing.limits import Limit, TokenBucket

LIMIT = 6000.0  # requests a minute, told in headers; full at the start
CHURN = 0.1  # of the workers go each minute; half of them without a word
STEP = 25e-6  # seconds of the server for one step
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "workers.png"
SIZES = (10, 100, 1_000, 10_000)


@dataclass
class Figures:
    workers: int
    minutes: float
    share: float  # used, of what the limit allowed
    refused: int
    renewals: float  # a call
    seconds: float  # of CPU for the whole, the provider and all workers included

    def __str__(self) -> str:
        return (
            f"{self.workers:7,} workers {self.minutes:5.1f} min  used {self.share:7.2%}  refused {self.refused:4}"
            f"  {self.renewals:6.2f} renewals a call  {self.seconds:6.0f} s of CPU"
        )


class Churn:
    """A fleet of `size` workers with `callers` each, which begin within `over` seconds; whoever goes is replaced."""

    def __init__(
        self,
        size: int,
        *,
        callers: int = 2,
        over: float = 0.0,
        limit: Limit | None = None,
        churn: float = CHURN,
    ) -> None:
        self.fleet = Fleet(Provider({"requests": limit or TokenBucket(LIMIT, 60.0)}), way=Way(step=STEP))
        self.size, self.callers, self.rate = size, callers, churn * size / 60
        self.members: list[Member] = []
        self._names = count()
        for number in range(size):
            self.fleet.at(over * number / size, self._join)
        self.fleet.at(over + self.fleet.rng.expovariate(self.rate), self._replace)

    def _join(self) -> None:
        self.members.append(Member(self.fleet, f"w{next(self._names)}", self.callers))

    def _replace(self) -> None:
        rng = self.fleet.rng
        gone = self.members.pop(rng.randrange(len(self.members)))
        gone.end(killed=rng.random() < 0.5)
        self._join()
        self.fleet.at(self.fleet.now + rng.expovariate(self.rate), self._replace)

    def run(self, minutes: float) -> Figures:
        started = time.process_time()
        fleet = self.fleet
        fleet.run(60.0 * minutes)
        (limit,) = fleet.provider.limits.values()
        allowed = limit.limit * (1 + minutes)
        return Figures(
            self.size, minutes, fleet.admitted / allowed, fleet.refused, fleet.renewals / fleet.admitted,
            time.process_time() - started,
        )  # fmt: skip


def draw(rows: list[Figures], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    used, renewals = figure.subplots(1, 2)
    sizes = [row.workers for row in rows]
    used.plot(sizes, [100 * row.share for row in rows], "o-", color="#1f77b4")
    used.set(ylim=(90, 100.5), ylabel="used of the limit, %")
    renewals.plot(sizes, [row.renewals for row in rows], "o-", color="#d62728")
    renewals.set(yscale="log", ylabel="renewals a call")
    renewals.yaxis.set_major_formatter("{x:g}")
    for axes in (used, renewals):
        axes.set(xscale="log", xlabel="workers")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Workers that share {LIMIT:,.0f} requests a minute, {CHURN:.0%} of them replaced each minute",
        fontsize=11,
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    print(Churn(1_000).run(60.0), flush=True)
    rows = []
    for size in SIZES:
        rows.append(Churn(size, callers=max(2, 200 // size), over=10.0).run(3.0))
        print(rows[-1], flush=True)
    draw(rows, PICTURE)
