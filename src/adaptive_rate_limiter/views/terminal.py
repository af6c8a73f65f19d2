"""The same in a terminal, by rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adaptive_rate_limiter.views.content import NOTHING, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType

    from adaptive_rate_limiter.views.content import Bar, Card

__all__ = ["rendered"]

LITTLE_BELOW, NONE_BELOW = 0.5, 0.1
NARROW, WIDE = 6, 24  # a bar, in letters
ORIGIN = 15  # letters of the last column that stay together: "told by headers"


def rendered(cards: Iterable[Card]) -> RenderableType:
    """What rich prints."""
    panels = [_panel(card) for card in cards]
    return Group(*panels) if panels else Text(NOTHING)


def _panel(card: Card) -> Panel:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for least, no_wrap in ((None, True), (NARROW, False), (None, True), (None, True), (ORIGIN, False)):
        table.add_column(no_wrap=no_wrap, min_width=least)
    for bar in card.bars:
        table.add_row(Text(bar.unit), _level(bar), Text(bar.left), Text(bar.limit), Text(bar.origin, "dim"))
    parts: list[RenderableType] = [Text(" · ".join(card.facts)), table if card.bars else Text(UNKNOWN)]
    parts += [Text(wait, "dim") for wait in card.waits]
    return Panel(Group(*parts, Text(card.account, "dim")), title=Text(card.title, "bold"), title_align="left")


class Level(ProgressBar):
    """As wide as there is room, within bounds."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(NARROW, WIDE)


def _level(bar: Bar) -> RenderableType:
    if bar.level is None:
        return Text("")
    colour = "red" if bar.level < NONE_BELOW else "yellow" if bar.level < LITTLE_BELOW else "green"
    return Level(total=1.0, completed=bar.level, complete_style=colour, finished_style=colour)
