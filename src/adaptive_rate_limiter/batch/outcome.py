"""What became of the items of a batch."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ordered", "Outcome"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: `value`, or the `error` that was raised, after `seconds`, those in line included.

    It can be pickled if its item and its value can: an error that could not be read again is kept as its name and words.
    """

    index: int
    item: Item
    value: Result | None = None
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.error is None

    def result(self) -> Result:
        """The value. Raises the error if there is none."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # a Result, which may be None

    def __reduce__(self) -> tuple[Any, ...]:
        return Outcome, (self.index, self.item, self.value, _portable(self.error), self.seconds)


def _portable(error: BaseException | None) -> BaseException | None:
    """Many SDKs' errors can be pickled and then not be read: that would take all other outcomes with it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was written just now
    except Exception:  # noqa: BLE001 - it is for them to say what they cannot
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Ordered(Generic[Item, Result]):
    """Puts outcomes back into the order of their items."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Outcome[Item, Result]] = {}

    def add(self, outcome: Outcome[Item, Result]) -> Iterator[Outcome[Item, Result]]:
        self._early[outcome.index] = outcome
        while self._next in self._early:
            yield self._early.pop(self._next)
            self._next += 1
