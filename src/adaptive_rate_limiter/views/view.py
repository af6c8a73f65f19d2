"""A limiter at one moment."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.views.content import cards, plain
from adaptive_rate_limiter.views.html import html

if TYPE_CHECKING:
    from adaptive_rate_limiter.report import Reports

__all__ = ["View"]

MOST_WAITS = 3  # sentences about those in line, per bucket


class View:
    """A limiter at one moment, for whatever shows it: a notebook, rich, or plain text."""

    def __init__(self, limiter: Reports) -> None:
        self.snapshot = limiter.snapshot()
        self.cards = cards(self.snapshot, limiter.explain(most=MOST_WAITS))

    def _repr_html_(self) -> str:
        return html(self.cards)

    def __rich__(self) -> Any:
        return import_module("adaptive_rate_limiter.views.terminal").rendered(self.cards)

    def __str__(self) -> str:
        return plain(self.cards)

    __repr__ = __str__
