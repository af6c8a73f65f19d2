"""What is to be run of a batch, what is under way, and what became of it: for threads and coroutines alike."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from adaptive_rate_limiter.batch.progress import progress_of
from adaptive_rate_limiter.options import check_concurrency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from adaptive_rate_limiter.batch.outcome import Outcome
    from adaptive_rate_limiter.batch.progress import Progress
    from adaptive_rate_limiter.report import Reports

__all__ = ["Work"]

Item = TypeVar("Item")
Result = TypeVar("Result")

FIRST = 32  # items under way at the start: more than most limits let in at once
ENOUGH = 32  # in line: more of them would not let the limiter use its limits any better


class _Width:
    """How many items are under way at once.

    Each that ends while the line is short makes room for one more, so that the number doubles within the time of
    a call until the limits, and not this number, are what holds the calls back.
    """

    def __init__(self, limiter: Reports, fixed: int | None, most: int) -> None:
        self._limiter = limiter
        self._now = fixed or min(FIRST, most)
        self._most = fixed or most

    def ended(self) -> None:
        if self._now < self._most and self._limiter.waiting < ENOUGH:
            self._now += 1

    def room(self, under_way: int) -> int:
        return max(0, self._now - under_way)


class Work(Generic[Item, Result]):
    """What is known of all items, whoever runs them: what is to be run, what is under way, what became of it."""

    def __init__(
        self,
        limiter: Reports,
        items: Iterable[Item],
        most: int,
        *,
        concurrency: int | None = None,
        progress: bool | None = None,
        earlier: Any = (),
    ) -> None:
        self.items: tuple[Item, ...] = tuple(items)
        self.outcomes: dict[int, Outcome[Item, Result]] = {
            seen.index: seen for seen in _outcomes_of(earlier) if seen.ok and self._is_of(seen)
        }
        self._limiter = limiter
        self._width = _Width(limiter, check_concurrency(concurrency, "concurrency"), most)
        self._wants_progress = progress
        self._lock = threading.Lock()
        self._todo: deque[int] = deque()
        self._under_way: set[int] = set()
        self._tell: Callable[[Outcome[Item, Result] | None], object] | None = None
        self._progress: Progress | None = None

    def _is_of(self, seen: Outcome[Item, Result]) -> bool:
        return 0 <= seen.index < len(self.items) and bool(self.items[seen.index] == seen.item)

    def begin(
        self, tell: Callable[[Outcome[Item, Result] | None], object]
    ) -> tuple[list[Outcome[Item, Result]], int]:
        """What is known already, and how many more `tell` will be told of.

        Whoever iterated before is told None: what is still under way from then counts for this time.
        """
        with self._lock:
            if self._tell is not None:
                self._tell(None)
            self._tell = tell
            known = self.known()
            missing = [index for index in range(len(self.items)) if index not in self.outcomes]
            self._todo = deque(index for index in missing if index not in self._under_way)
            if self._progress is None and missing:
                self._progress = progress_of(
                    self._limiter, len(self.items), known, wanted=self._wants_progress
                )
            return known, len(missing)

    def known(self) -> list[Outcome[Item, Result]]:
        return [self.outcomes[index] for index in sorted(self.outcomes)]

    def due(self) -> list[int]:
        """Items that begin now."""
        with self._lock:
            room = min(len(self._todo), self._width.room(len(self._under_way)))
            begun = [self._todo.popleft() for _ in range(room)]
            self._under_way.update(begun)
            return begun

    def end(self, outcome: Outcome[Item, Result]) -> None:
        """Keep what became of an item, and tell whoever waits for it."""
        with self._lock:
            self._under_way.discard(outcome.index)
            self.outcomes[outcome.index] = outcome
            self._width.ended()
            if self._progress is not None:
                self._progress.add(ok=outcome.ok)
            if self._tell is not None:
                self._tell(outcome)

    def drop(self, index: int) -> None:
        """It was cancelled: it is still to be run, by whoever iterates now."""
        with self._lock:
            self._under_way.discard(index)
            if self._tell is not None:
                self._todo.append(index)

    def stop(self, tell: Callable[[Outcome[Item, Result] | None], object]) -> None:
        """Nothing more begins for `tell`; what is under way goes on."""
        with self._lock:
            if self._tell is not tell:
                return
            self._tell = None
            self._todo.clear()
            progress, self._progress = self._progress, None
        if progress is not None:
            progress.close()


def _outcomes_of(earlier: Any) -> Iterable[Outcome[Any, Any]]:
    """What is known by now: to iterate over a batch would run it."""
    known: Iterable[Outcome[Any, Any]] = getattr(earlier, "outcomes", earlier)
    return known
