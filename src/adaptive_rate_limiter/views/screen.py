"""Where a view is shown, and renewed: the cell of a notebook, or a terminal."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from adaptive_rate_limiter.views.view import View

__all__ = ["Screen", "Terminal", "in_notebook", "screen_for"]


class Screen(Protocol):
    def update(self, view: View) -> None: ...

    def close(self) -> None: ...


class Notebook:
    """The output of the cell that began it."""

    def __init__(self, view: View) -> None:
        self._handle = import_module("IPython.display").display(view, display_id=True)

    def update(self, view: View) -> None:
        self._handle.update(view)

    def close(self) -> None:
        pass


class Terminal:
    """The last lines of a terminal. What draws there by itself meanwhile, as a bar of tqdm does, would tear it:
    its text, `str(bar)`, is shown below the view instead.
    """

    live: ClassVar[Terminal | None] = None  # a terminal has room for one

    def __init__(self, view: View) -> None:
        try:
            live = import_module("rich.live")
        except ModuleNotFoundError as error:
            raise ImportError(
                "watch() needs rich in a terminal: pip install 'adaptive-rate-limiter[notebook]'"
            ) from error
        self._bars: list[Any] = []
        self._view = view
        self._live = live.Live(view, auto_refresh=False)
        self._live.start(refresh=True)
        if self._live.console.is_terminal:
            Terminal.live = self

    def update(self, view: View) -> None:
        bars = [import_module("rich.text").Text(str(bar)) for bar in self._bars]
        self._view = view
        self._live.update(import_module("rich.console").Group(view, *bars), refresh=True)

    def begin(self, bar: Any) -> None:
        self._bars.append(bar)

    def end(self, bar: Any) -> None:
        """It stays as it is, above the view."""
        self._bars.remove(bar)
        self._live.console.print(str(bar), markup=False, highlight=False)
        self.update(self._view)

    @property
    def width(self) -> int:
        """In letters."""
        return int(self._live.console.width)

    def close(self) -> None:
        if Terminal.live is self:
            Terminal.live = None
        self._live.stop()
        if not self._live.console.is_terminal:
            self._live.console.line()  # which rich leaves out there


def screen_for(view: View) -> Screen:
    """That of this process, with `view` on it. Raises ImportError in a terminal without rich."""
    return Notebook(view) if in_notebook() else Terminal(view)


def in_notebook() -> bool:
    """Whether this process is the kernel of one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
