"""What every limiter has to show itself: ours, and those of the integrations, which have one as `.limiter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.options import interval
from adaptive_rate_limiter.views.history import History
from adaptive_rate_limiter.views.watch import View, Watch

if TYPE_CHECKING:
    from adaptive_rate_limiter.limiter import Limiter

__all__ = ["Shown"]


class Shown:
    """Shows itself in notebooks and by rich, can be watched, and has a history."""

    _history: History | None = None

    @property
    def _shown(self) -> Limiter:
        """The limiter to be shown: itself, or its own."""
        shown: Limiter = getattr(self, "limiter", self)  # type: ignore[arg-type]  # what has none is one
        return shown

    @property
    def history(self) -> History:
        """What it did over time, as far as that was recorded: while it was watched, and within ``with limiter.history:``."""
        shown = self._shown
        if shown._history is None:  # noqa: SLF001 - its own, or that of what it wraps
            shown._history = History(shown)  # noqa: SLF001 - as above
        return shown._history  # noqa: SLF001 - as above

    def watch(self, every: float = 0.5) -> Watch:
        """Show it while a block runs, sync or async, in a notebook or a terminal; renewed after `every` seconds."""
        return Watch(self._shown, interval("every", every))

    def _repr_html_(self) -> str:
        return View(self._shown)._repr_html_()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 - IPython's signature
        printer.text(str(View(self._shown)))

    def __rich__(self) -> Any:
        return View(self._shown)
