"""What every limiter has to show itself: ours, and those of the integrations, which have one as `.limiter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.options import interval
from adaptive_rate_limiter.views.history import History
from adaptive_rate_limiter.views.view import View
from adaptive_rate_limiter.views.watch import Watch

if TYPE_CHECKING:
    from adaptive_rate_limiter.report import Reports

__all__ = ["Shown"]


class Shown:
    """Shows itself in notebooks and by rich, can be watched, and has a history."""

    _history: History | None = None

    @property
    def _shown(self) -> Reports:
        """The limiter to be shown: itself, or its own."""
        shown: Reports = getattr(self, "limiter", self)  # type: ignore[arg-type]  # what has none is one
        return shown

    @property
    def history(self) -> History:
        """What it did over time, as far as that was recorded: while it was watched, and within ``with limiter.history:``."""
        wrapped = getattr(self, "limiter", None)
        if isinstance(wrapped, Shown):
            return wrapped.history
        if self._history is None:
            self._history = History(self._shown)
        return self._history

    def watch(self, every: float = 0.5) -> Watch:
        """Show it while a block runs, sync or async, in a notebook or a terminal; renewed after `every` seconds."""
        return Watch(self._shown, self.history, interval("every", every))

    def _repr_html_(self) -> str:
        return View(self._shown)._repr_html_()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 - IPython's signature
        printer.text(str(View(self._shown)))

    def __rich__(self) -> Any:
        return View(self._shown)
