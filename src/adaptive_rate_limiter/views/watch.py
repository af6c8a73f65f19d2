"""A view of a limiter that follows it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from adaptive_rate_limiter.views.content import cards, plain
from adaptive_rate_limiter.views.html import html
from adaptive_rate_limiter.views.ticker import Ticker

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from adaptive_rate_limiter.limiter import Limiter

__all__ = ["View", "Watch"]

MOST_WAITS = 3  # sentences about those in line, per bucket


class View:
    """A limiter at one moment, for whatever shows it: a notebook, rich, or plain text."""

    def __init__(self, limiter: Limiter) -> None:
        snapshot = limiter.snapshot()
        limiter.history.add(snapshot)
        self.cards = cards(snapshot, limiter.explain(most=MOST_WAITS))

    def _repr_html_(self) -> str:
        return html(self.cards)

    def __rich__(self) -> Any:
        return import_module("adaptive_rate_limiter.views.terminal").rendered(self.cards)

    def __str__(self) -> str:
        return plain(self.cards)

    __repr__ = __str__


class _Screen(Protocol):
    def update(self, view: View) -> None: ...

    def close(self) -> None: ...


class _Notebook:
    """The output of the cell that began it."""

    def __init__(self, view: View) -> None:
        self._handle = import_module("IPython.display").display(view, display_id=True)

    def update(self, view: View) -> None:
        self._handle.update(view)

    def close(self) -> None:
        pass


class _Terminal:
    def __init__(self, view: View) -> None:
        try:
            live = import_module("rich.live")
        except ModuleNotFoundError as error:
            raise ImportError(
                "watch() needs rich in a terminal: pip install 'adaptive-rate-limiter[notebook]'"
            ) from error
        self._live = live.Live(view, auto_refresh=False)
        self._live.start(refresh=True)

    def update(self, view: View) -> None:
        self._live.update(view, refresh=True)

    def close(self) -> None:
        self._live.stop()


class Watch:
    """Shows the limiter while a block runs, sync or async: ``with limiter.watch(): model.batch(prompts)``.

    What it sees is kept in `limiter.history`, too.
    """

    def __init__(self, limiter: Limiter, every: float) -> None:
        self._limiter = limiter
        self._ticker = Ticker(limiter.clock, every, self._refresh)
        self._screen: _Screen | None = None

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
        if self._screen is None:
            self._screen = _Notebook(view) if in_notebook() else _Terminal(view)
        else:
            self._screen.update(view)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def in_notebook() -> bool:
    """Whether this process is the kernel of one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
