"""The same batch through ChatOpenAI, without a limiter and with one, against an emulated provider."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.prompt_values import StringPromptValue
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adaptive_rate_limiter.testing import EmulatorStats, ProviderEmulator
from langchain_adaptive_rate_limiter.limiter import AdaptiveLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

LATENCY = (0.2, 0.6)  # seconds of the emulated model
REFRESH = 0.25  # seconds between looks at the emulator's counters
LINE_EVERY = 10.0  # seconds between two lines, where the output is no terminal


@dataclass(frozen=True)
class Run:
    """One batch and what the provider saw of it; times are seconds."""

    name: str
    finished: int
    lost: int
    seconds: float
    lower_bound: float
    stats: EmulatorStats


class Screen:
    """Follows a batch: in a terminal bars, and what the limiter shows of itself, renewed; elsewhere a line now and then."""

    def __init__(self, console: Console, calls: int) -> None:
        self._console = console
        self._calls = calls
        self._bars = Progress(
            TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[refused]} refused"),
        )  # fmt: skip
        self._live = Live(self._bars, console=console, auto_refresh=False)
        self._name = ""
        self._said_at = 0.0

    def begin(self, name: str, limiter: AdaptiveLimiter | None) -> None:
        """A batch called `name` starts, under `limiter` if there is one."""
        self._name = name
        self._said_at = time.monotonic()
        self._bars.add_task(name, total=self._calls, refused=0)
        if limiter is not None:
            self._live.update(Group(self._bars, limiter))

    def show(self, finished: int, refused: int) -> None:
        self._bars.update(self._bars.task_ids[-1], completed=finished, refused=refused)
        if self._console.is_terminal:
            self._live.refresh()
        elif time.monotonic() - self._said_at >= LINE_EVERY:
            self._say(finished, refused)

    def end(self, finished: int, refused: int) -> None:
        self.show(finished, refused)
        self._bars.stop_task(self._bars.task_ids[-1])
        if not self._console.is_terminal:
            self._say(finished, refused)

    def _say(self, finished: int, refused: int) -> None:
        self._said_at = time.monotonic()
        self._console.print(f"{self._name}: {finished} of {self._calls}, {refused} refused", highlight=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def demo(calls: int, requests_per_minute: int, picture: str) -> None:
    """Run both batches while they can be watched, print the table, save the picture."""
    console = Console()
    console.print(
        f"[bold]{calls} calls[/] through ChatOpenAI to a provider that allows "
        f"[bold]{requests_per_minute} requests a minute[/] (emulated on loopback, no key needed)\n"
    )
    limiter = AdaptiveLimiter()
    with Screen(console, calls) as screen:
        runs = [
            _run("without a limiter", None, calls, requests_per_minute, screen),
            _run("with AdaptiveLimiter()", limiter, calls, requests_per_minute, screen),
        ]
    if not console.is_terminal:
        console.print(limiter)
    console.print(_table(runs, calls))
    draw(runs, calls, requests_per_minute, picture)
    console.print(f"Requests over time: [bold]{Path(picture).resolve()}[/]", soft_wrap=True)


def _run(
    name: str, limiter: AdaptiveLimiter | None, calls: int, requests_per_minute: int, screen: Screen
) -> Run:
    screen.begin(name, limiter)
    with ProviderEmulator("openai", requests_per_minute=requests_per_minute, latency=LATENCY) as emulator:
        model = ChatOpenAI(
            model="gpt-4o",
            api_key=SecretStr("no-key-needed"),
            base_url=emulator.base_url,
            rate_limiter=limiter,
        )

        def show() -> None:
            stats = emulator.stats()
            screen.show(stats.admitted, stats.refused)

        started = time.monotonic()
        replies = asyncio.run(_batch(model, calls, show))
        seconds = time.monotonic() - started
        lost = sum(isinstance(reply, BaseException) for reply in replies)
        screen.end(calls - lost, emulator.stats().refused)
        # What a perfect client needs for all calls, not only for those that came through.
        bound = max(0.0, (calls - requests_per_minute) / (requests_per_minute / 60))
        return Run(name, calls - lost, lost, seconds, bound, emulator.stats())


async def _batch(model: ChatOpenAI, calls: int, show: Callable[[], None]) -> list[object]:
    async def look() -> None:
        while True:
            show()
            await asyncio.sleep(REFRESH)

    looking = asyncio.create_task(look())
    try:
        prompts = [StringPromptValue(text=f"Say something about {number}.") for number in range(calls)]
        return list(await model.abatch([*prompts], return_exceptions=True))
    finally:
        looking.cancel()


def _table(runs: list[Run], calls: int) -> Table:
    table = Table()
    table.add_column("")
    for heading in ("finished", "lost", "refused", "seconds", "time / T*"):
        table.add_column(heading, justify="right")
    for run in runs:
        ratio = f"{run.seconds / run.lower_bound:.3f}" if run.lower_bound and run.finished == calls else "-"
        table.add_row(
            run.name, str(run.finished), str(run.lost), str(run.stats.refused), f"{run.seconds:.1f}", ratio
        )
    bound = runs[0].lower_bound
    table.caption = f"T* = {bound:.1f} s: the least that the limit allows for {calls} calls"
    return table


def draw(runs: list[Run], calls: int, requests_per_minute: int, picture: str) -> None:
    """Save a picture of what the provider admitted and refused over time, one panel for each run."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, and only the end of the demo needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    span = 1.04 * max(run.seconds for run in runs)
    figure, panels = plt.subplots(len(runs), 1, figsize=(9, 6), sharex=True, layout="constrained")
    for panel, run in zip(panels, runs, strict=True):
        admitted = [event.t for event in run.stats.timeline if event.kind == "admitted"]
        refused = [event.t for event in run.stats.timeline if event.kind == "refused"]
        panel.step([0, *admitted, span], [*range(len(admitted) + 1), len(admitted)], where="post",
                   color="#0b6e4f", linewidth=2, label=f"admitted: {len(admitted)}")  # fmt: skip
        allowed = [min(calls, requests_per_minute * (1 + at / 60)) for at in (0.0, span)]
        knee = max(0.0, (calls / requests_per_minute - 1) * 60)
        panel.plot([0, min(knee, span), span], [allowed[0], allowed[1] if knee > span else calls, allowed[1]],
                   color="#888888", linestyle="--", linewidth=1, label="the most that the limit allows")  # fmt: skip
        if refused:
            heights = [sum(at <= when for at in admitted) for when in refused]
            panel.scatter(refused, heights, color="#c1121f", marker="x", s=28, linewidths=1.2, zorder=3,
                          label=f"refused (429): {len(refused)}")  # fmt: skip
        else:
            panel.plot([], [], " ", label="refused (429): 0")
        panel.set_title(
            f"{run.name}: {run.finished} finished, {run.lost} lost, {run.seconds:.0f} s", loc="left"
        )
        panel.set_ylabel("calls admitted")
        panel.set_ylim(0, calls * 1.08)
        panel.set_xlim(0, span)
        panel.grid(alpha=0.25)
        panel.legend(loc="lower right", frameon=True)
    panels[-1].set_xlabel("seconds since the first request")
    figure.savefig(picture, dpi=130)
    plt.close(figure)
