"""The picture of a history."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from adaptive_rate_limiter.report import figure
from adaptive_rate_limiter.views.history import marks_of

if TYPE_CHECKING:
    from adaptive_rate_limiter.views.history import Mark, Point

__all__ = ["draw"]

USED, ALLOWED, REFUSED, CHANGED, LINE = "#0b6e4f", "#888888", "#c1121f", "#7b4bab", "#3a6ea5"
UNITS = (
    "requests",
    "tokens",
    "input_tokens",
    "output_tokens",
    "images",
    "audio_seconds",
    "characters",
    "pages",
)
MOST_NAMED = 3  # changes of a limit that are told in words
LONG = 600.0  # seconds; beyond, the axis counts minutes
COLUMN, ROW = 8.0, 2.4  # inches


class Picture(Figure):
    """A figure that every notebook shows, whichever backend of matplotlib it has."""

    def _repr_png_(self) -> bytes:
        data = BytesIO()
        self.savefig(data, format="png", dpi=90)
        return data.getvalue()


def draw(buckets: dict[str, list[Point]], start: float) -> Any:
    """One column for each bucket: a panel for each unit that has a limit, and one for the line.

    `start`: the time of the first look.
    """
    columns = [points for points in buckets.values() if points] or [[]]
    units = [_limited(points) for points in columns]
    rows = 1 + max(len(found) for found in units)
    drawn = Picture(figsize=(COLUMN * len(columns), ROW * rows), layout="constrained", facecolor="white")
    panels = drawn.subplots(rows, len(columns), squeeze=False, sharex="col")
    for place, (points, found) in enumerate(zip(columns, units, strict=True)):
        column = [panels[row][place] for row in range(rows)]
        _draw_column(column, points, found, start)
    return drawn


def _draw_column(column: list[Any], points: list[Point], units: list[str], start: float) -> None:
    scale, word = (60.0, "minutes") if points and points[-1].at - start > LONG else (1.0, "seconds")
    times = [(point.at - start) / scale for point in points]
    marks = [mark._replace(at=(mark.at - start) / scale) for mark in marks_of(points)]
    for panel, unit in zip(column, units, strict=False):
        _draw_unit(panel, unit, points, times, marks)
    for panel in column[len(units) : -1]:
        panel.set_axis_off()
    _draw_line(column[-1], points, times)
    column[-1].set_xlabel(f"{word} since the first look")
    if points:
        column[0].set_title(points[-1].model or "any model", loc="left", parse_math=False)


def _draw_unit(panel: Any, unit: str, points: list[Point], times: list[float], marks: list[Mark]) -> None:
    used = sent(unit, points)
    most = allowed(unit, points)
    top = 1.15 * max(1.0, *used)
    above = " (above)" if all(math.isnan(amount) or amount > top for amount in most) else ""
    label = f"sent, and what is left of the limit{above}"
    panel.plot(times, most, color=ALLOWED, linestyle="--", linewidth=1, label=label)
    panel.plot(times, used, color=USED, linewidth=2, label=f"sent: {figure(used[-1])}")
    refused = [mark for mark in marks if mark.kind == "refused"]
    if refused:
        at = [mark.at for mark in refused]
        heights = [used[times.index(when)] for when in at]
        kinds = ", ".join(dict.fromkeys(mark.text.partition(": ")[2] for mark in refused))
        panel.scatter(
            at, heights, color=REFUSED, marker="x", s=28, linewidths=1.2, zorder=3, label=f"refused: {kinds}"
        )
    changes = [mark for mark in marks if mark.kind == "limit" and f" {unit} " in mark.text]
    for place, mark in enumerate(changes):
        named = mark.text if place < MOST_NAMED else None
        panel.axvline(mark.at, color=CHANGED, linestyle=":", linewidth=1.2, label=named)
    panel.set_ylabel(unit.replace("_", " "))
    panel.set_ylim(0, top)
    panel.grid(alpha=0.25)
    panel.legend(loc="lower right", fontsize="small", framealpha=0.9)


def _draw_line(panel: Any, points: list[Point], times: list[float]) -> None:
    panel.plot(times, [point.waiting for point in points], color=LINE, linewidth=1.5, label="in line")
    panel.plot(times, [point.in_flight for point in points], color=USED, linewidth=1.5, label="under way")
    panel.set_ylabel("calls")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.25)
    panel.legend(loc="upper right", fontsize="small", framealpha=0.9)


def _limited(points: list[Point]) -> list[str]:
    """Units to be drawn: of which there is a limit, and something was sent."""
    named = {limit.unit for point in points for limit in point.limits}
    used = points[-1].units if points else {}
    return [unit for unit in UNITS if unit in named and used.get(unit)]


def sent(unit: str, points: list[Point]) -> list[float]:
    """What was sent by each point. An estimate that proved too large later counts as what it proved to be."""
    least, used = math.inf, []
    for point in reversed(points):
        least = min(least, point.units.get(unit, 0.0))
        used.append(least)
    return used[::-1]


def allowed(unit: str, points: list[Point]) -> list[float]:
    """The most that could have been sent by each point: what was, and what was left of the limit that binds first."""
    return [point.units.get(unit, 0.0) + _left(unit, point) for point in points]


def _left(unit: str, point: Point) -> float:
    """Not a number where no limit is known, or none that tells what is left."""
    left = [
        max(0.0, limit.remaining)
        for limit in point.limits
        if limit.unit == unit and math.isfinite(limit.remaining)
    ]
    return min(left, default=math.nan)
