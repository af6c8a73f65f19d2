"""Ending, from outside, what a task waits for, with an error of its own instead of a cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Interruptible"]

COUNTED = hasattr(
    asyncio.Task, "uncancel"
)  # from Python 3.11 on a task counts who asked for its cancellation


class Interruptible:
    """A stretch of a task, in `book` while it lasts. `interrupt(error)` ends it as if what it waits for had raised `error`.

    A cancellation by anybody else stays one.
    """

    __slots__ = ("_before", "_book", "_error", "task")

    task: Any

    def __init__(self, book: Any) -> None:
        self._book = book

    def __enter__(self) -> Self:
        self._book.enter(self)
        task: Any = asyncio.current_task()
        self.task = task
        self._before = task.cancelling() if COUNTED else 0
        self._error: BaseException | None = None
        return self

    def interrupt(self, error: BaseException) -> None:
        if self._error is None and self.task is not None:
            self._error = error
            self.task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._book.leave(self)
        task, self.task = self.task, None
        if self._error is None:
            return
        left = task.uncancel() if COUNTED else 0
        if kind is asyncio.CancelledError and left <= self._before:
            raise self._error from None
