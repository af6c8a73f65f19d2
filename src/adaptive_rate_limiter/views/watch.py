"""A view of a limiter that follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.views.block import Block
from adaptive_rate_limiter.views.screen import screen_for
from adaptive_rate_limiter.views.ticker import Ticker
from adaptive_rate_limiter.views.view import View

if TYPE_CHECKING:
    from typing_extensions import Self

    from adaptive_rate_limiter.report import Reports
    from adaptive_rate_limiter.views.history import History
    from adaptive_rate_limiter.views.screen import Screen

__all__ = ["Watch"]


class Watch(Block):
    """Shows the limiter while a block runs, sync or async: ``with limiter.watch(): model.batch(prompts)``.

    What it sees is kept in `limiter.history`, too.
    """

    def __init__(self, limiter: Reports, history: History, every: float) -> None:
        self._limiter = limiter
        self._history = history
        self._ticker = Ticker(limiter.clock, every, self._refresh)
        self._screen: Screen | None = None

    def start(self) -> Self:
        self._ticker.start()
        return self

    def stop(self) -> None:
        """The last view stays."""
        self._ticker.stop()
        if self._screen is not None:
            self._screen.close()

    def _refresh(self) -> None:
        view = View(self._limiter)
        self._history.add(view.snapshot)
        if self._screen is None:
            self._screen = screen_for(view)
        else:
            self._screen.update(view)
