"""A function over many items, with as many calls under way as the limits can use."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from adaptive_rate_limiter.batch.outcome import Ordered, Outcome
from adaptive_rate_limiter.batch.work import Work
from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
    from contextvars import Context

    from typing_extensions import Self, Unpack

    from adaptive_rate_limiter.report import Reports

__all__ = ["AsyncBatch", "Batch", "BatchOptions"]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS, MOST_TASKS = 256, 4096  # what one process carries without trouble


class BatchOptions(TypedDict, total=False):
    """What may be said of a batch; `Limiter.map` tells what each means."""

    concurrency: int | None
    progress: bool | None
    earlier: Iterable[Outcome[Any, Any]] | AsyncBatch[Any, Any]


class _Outcomes(Generic[Item, Result]):
    """What a batch shows of its items, run by threads or by coroutines."""

    def __init__(self, work: Work[Item, Result]) -> None:
        self._work = work

    @property
    def outcomes(self) -> list[Outcome[Item, Result]]:
        """Those known so far, in the order of their items."""
        return self._work.known()

    @property
    def failed(self) -> list[Outcome[Item, Result]]:
        """Those of them that have an error."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    @property
    def missing(self) -> list[Item]:
        """Items of which nothing is known yet."""
        outcomes = self._work.outcomes
        return [item for index, item in enumerate(self._work.items) if index not in outcomes]

    def results(self) -> list[Result]:
        """All values, in the order of their items. Raises the first error, and RuntimeError if any is missing."""
        if self.missing:
            raise RuntimeError(
                f"{len(self.missing):,} of {len(self):,} items were not run: run the batch first"
            )
        return [outcome.result() for outcome in self.outcomes]

    def __len__(self) -> int:
        return len(self._work.items)

    def __repr__(self) -> str:
        done, failed = len(self.outcomes), len(self.failed)
        return f"<{type(self).__name__} of {len(self):,} items, {done:,} done, {failed:,} of them failed>"


class Batch(_Outcomes[Item, Result]):
    """`func(item)` for each item, in threads. Nothing is run before somebody asks.

    `run()` runs all. Iteration yields an `Outcome` for each item, in order, as soon as it and all before it are
    there; `as_completed()` yields them as they come. After an interrupt the same again runs only what is missing:
    what has an outcome is not run again. What was under way goes on to its end, and its outcome is kept.
    """

    def __init__(
        self,
        limiter: Reports,
        func: Callable[[Item], Result],
        items: Iterable[Item],
        **options: Unpack[BatchOptions],
    ) -> None:
        if not callable(func) or inspect.iscoroutinefunction(func):
            right = "a plain function of one item; amap takes coroutine functions"
            raise ConfigurationError(f"func must be {right}, got {func!r}")
        super().__init__(Work(limiter, items, MOST_THREADS, **options))
        self._func = func

    def run(self) -> Self:
        """Run what is missing, and come back when all is done."""
        for _ in self.as_completed():
            pass
        return self

    def __iter__(self) -> Iterator[Outcome[Item, Result]]:
        order = Ordered[Item, Result]()
        for outcome in self.as_completed():
            yield from order.add(outcome)

    def as_completed(self) -> Iterator[Outcome[Item, Result]]:
        """Every outcome, those known before first."""
        ended: SimpleQueue[Outcome[Item, Result] | None] = SimpleQueue()
        tell = ended.put
        known, missing = self._work.begin(tell)
        try:
            yield from known
            self._start(self._work.due(), copy_context())
            for _ in range(missing):
                yield _of_this(ended.get())
        finally:
            self._work.stop(tell)

    def _start(self, indices: Iterable[int], context: Context) -> None:
        for index in indices:
            threading.Thread(target=self._work_from, args=(index, context), daemon=True).start()

    def _work_from(self, index: int, context: Context) -> None:
        """Run this item, and others as long as any are due."""
        due = [index]
        while due:
            self._start(due[1:], context)
            self._work.end(context.copy().run(self._one, due[0]))
            due = self._work.due()

    def _one(self, index: int) -> Outcome[Item, Result]:
        item, began = self._work.items[index], time.monotonic()
        try:
            value = self._func(item)
        except BaseException as error:  # noqa: BLE001 - it is what became of this item, and ends no thread
            return Outcome(index, item, error=error, seconds=time.monotonic() - began)
        return Outcome(index, item, value, seconds=time.monotonic() - began)


class AsyncBatch(_Outcomes[Item, Result]):
    """`await func(item)` for each item, in tasks of the running loop. Nothing is run before somebody asks.

    `await batch` runs all; `async for` and `as_completed()` yield outcomes as those of `Batch` do. What is under
    way when that is cancelled, or left by `break` or an error, is cancelled too, and counts as not run.
    """

    def __init__(
        self,
        limiter: Reports,
        func: Callable[[Item], Awaitable[Result]],
        items: Iterable[Item],
        **options: Unpack[BatchOptions],
    ) -> None:
        if not callable(func):
            raise ConfigurationError(f"func must be a coroutine function of one item, got {func!r}")
        super().__init__(Work(limiter, items, MOST_TASKS, **options))
        self._func = func
        self._tasks: dict[asyncio.Task[None], int] = {}  # of this time, and the index of each
        self._given_up: set[int] = set()

    async def run(self) -> Self:
        """Run what is missing, and come back when all is done."""
        async for _ in self.as_completed():
            pass
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.run().__await__()

    async def __aiter__(self) -> AsyncIterator[Outcome[Item, Result]]:
        order = Ordered[Item, Result]()
        async for outcome in self.as_completed():
            for ready in order.add(outcome):
                yield ready

    async def as_completed(self) -> AsyncIterator[Outcome[Item, Result]]:
        """Every outcome, those known before first."""
        ended: asyncio.Queue[Outcome[Item, Result] | None] = asyncio.Queue()
        tell = ended.put_nowait
        known, missing = self._work.begin(tell)
        tasks = self._tasks = {}
        try:
            for outcome in known:
                yield outcome
            self._start()
            for _ in range(missing):
                yield _of_this(await ended.get())
        finally:
            self._work.stop(tell)
            await self._give_up(tasks)

    def _start(self) -> None:
        tasks = self._tasks
        for index in self._work.due():
            task = asyncio.ensure_future(self._one(index))
            tasks[task] = index
            task.add_done_callback(partial(self._over, tasks))

    def _over(self, tasks: dict[asyncio.Task[None], int], task: asyncio.Task[None]) -> None:
        self._given_up.discard(tasks.pop(task))
        self._start()

    async def _give_up(self, tasks: dict[asyncio.Task[None], int]) -> None:
        left = list(tasks)
        self._given_up.update(tasks.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _one(self, index: int) -> None:
        item, began = self._work.items[index], time.monotonic()
        outcome: Outcome[Item, Result]
        try:
            value = await self._func(item)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is what became of this item
            if index in self._given_up:
                self._work.drop(index)
                return
            outcome = Outcome(index, item, error=error, seconds=time.monotonic() - began)
        else:
            outcome = Outcome(index, item, value, seconds=time.monotonic() - began)
        self._work.end(outcome)


def _of_this(outcome: Outcome[Item, Result] | None) -> Outcome[Item, Result]:
    if outcome is None:
        raise RuntimeError("this batch was begun again elsewhere: iterate over it once at a time")
    return outcome
