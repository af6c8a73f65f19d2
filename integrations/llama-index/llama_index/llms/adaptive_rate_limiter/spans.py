"""The calls that `AdaptiveLimiter` has admitted, from LlamaIndex's spans: which send is whose, and how each ends."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Generator
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from adaptive_rate_limiter.adapters import learn_refusal, note_refusal
from adaptive_rate_limiter.reservation import current_reservation
from llama_index.llms.adaptive_rate_limiter.announcement import TextBatches, announced, texts_in
from llama_index.llms.adaptive_rate_limiter.responses import settle_vectors

if TYPE_CHECKING:
    import asyncio

    from adaptive_rate_limiter import Reservation


class Admitted:
    """A reservation on behalf of a span, until its end."""

    __slots__ = ("before", "gone", "reads", "reservation", "span_id", "task")

    def __init__(self, span_id: str, reservation: Reservation, before: Admitted | None) -> None:
        self.span_id = span_id
        self.reservation = reservation
        self.before = before  # in the same context: a stream that was opened, and has sent nothing yet
        self.task: asyncio.Task[Any] | None = None
        self.gone: weakref.ref[Any] | None = None
        self.reads = False  # a stream of which something was read

    @property
    def unsent(self) -> bool:
        return not self.reservation.closed and not self.reservation.sends


TYPES = 1024  # of models and of what their methods return, that are remembered


@lru_cache(maxsize=TYPES)
def _embeds(kind: type) -> bool:
    return issubclass(kind, BaseEmbedding)


@lru_cache(maxsize=TYPES)
def _is_stream(kind: type) -> bool:
    return issubclass(kind, (Generator, AsyncGenerator))


Open = tuple[Any, "Admitted | None"]
"""The span of a method that has not returned yet: of which LLM or embedding model, and what has stepped aside."""

attached: ContextVar[Admitted | None] = ContextVar("llama_index_adaptive_attached", default=None)
"""The call whose reservation is in force in this context, or was."""


def _attach(admitted: Admitted | None) -> None:
    """Put it in force, or the last of those opened before it that have not sent."""
    while admitted is not None and not admitted.unsent:
        admitted = admitted.before
    attached.set(admitted)
    if admitted is not None:
        admitted.reservation.attach()


class Spans:
    """The spans of LLMs and embedding models that are open, and what was reserved for each."""

    def __init__(self) -> None:
        self._open: dict[str, Open] = {}
        self._admitted: dict[str, list[Admitted]] = {}

    def enter(self, span_id: str, instance: Any, arguments: dict[str, Any]) -> None:
        self._open[span_id] = instance, self._step_aside()
        if _embeds(instance.__class__) and not span_id.partition(".")[2].startswith("_"):
            texts = texts_in(arguments)
            if texts:
                TextBatches(span_id, instance, texts)

    def leave(self, span_id: str, result: Any = None, error: BaseException | None = None) -> None:
        """The method has returned, or raised; a stream that it returned is still to be read."""
        announcement = announced.get()
        if announcement is not None and announcement.span_id == span_id:
            announcement.withdraw()
        if error is not None:
            self.fail(span_id, error)
        elif _is_stream(result.__class__):
            for admitted in self._admitted.get(span_id, ()):
                admitted.gone = weakref.ref(result, lambda _: self._lost(span_id))
        opened = self._open.pop(span_id, None)
        if opened is not None and opened[1] is not None and current_reservation.get() is None:
            _attach(opened[1])

    def instance(self, span_id: str | None) -> Any:
        opened = self._open.get(span_id or "")
        return None if opened is None else opened[0]

    def _step_aside(self) -> Admitted | None:
        """A call begins between the opening of a stream and its end: what it sends is not the stream's."""
        current = attached.get()
        if current is None or current.span_id in self._open:
            return None
        if current_reservation.get() is not current.reservation:
            return None
        current_reservation.set(None)
        return current

    def keep(self, span_id: str, reservation: Reservation, task: asyncio.Task[Any] | None = None) -> None:
        """It was admitted for the span, by `task` if that was asynchronous."""
        opened = self._open.get(span_id)
        before = (None if opened is None else opened[1]) or attached.get()
        while before is not None and not before.unsent:
            before = before.before
        admitted = Admitted(span_id, reservation, before)
        self._admitted.setdefault(span_id, []).append(admitted)
        attached.set(admitted)
        reservation.attach()
        if task is not None and opened is not None and _embeds(opened[0].__class__):
            admitted.task = task  # of several that run at once: the end of one is told only by its task
            task.add_done_callback(lambda task: self._task_done(admitted, task))

    def release(self, span_id: str | None) -> list[Reservation]:
        """What was reserved for the span; from now on, that is the caller's to end."""
        ended = self._admitted.pop(span_id, []) if span_id is not None else []
        for admitted in ended:
            admitted.gone = None
            if attached.get() is admitted:
                attached.set(None) if admitted.before is None else _attach(admitted.before)
        return [admitted.reservation for admitted in ended]

    def fail(self, span_id: str | None, error: BaseException) -> None:
        for reservation in self.release(span_id):
            learn_refusal(reservation, error)
            note_refusal(reservation, error)
            reservation.lapse()

    def _lost(self, span_id: str) -> None:
        for admitted in self._admitted.pop(span_id, ()):
            admitted.reservation.abandon()

    # Batches that are embedded at once

    def _task_done(self, admitted: Admitted, task: asyncio.Task[Any]) -> None:
        batches = self._admitted.get(admitted.span_id, [])
        if admitted in batches:
            batches.remove(admitted)
            if task.cancelled() or task.exception() is not None:
                admitted.reservation.lapse()
            else:
                settle_vectors(admitted.reservation)

    # Streams

    def read(self, span_id: str | None) -> None:
        """A chunk has come. A stream sends when it is first read, under the reservation in force then: its own
        or, where several were opened before, another's, which is its own from now on.
        """
        mine = self._admitted.get(span_id or "")
        if not mine or mine[0].reads:
            return
        own, other = mine[0], attached.get()
        own.reads = True
        if (
            other is None
            or other is own
            or other.reads
            or own.reservation.sends
            or not other.reservation.sends
        ):
            return
        own.reservation, other.reservation = other.reservation, own.reservation
        _attach(other)

    def part_of(self, reservation: Reservation) -> bool:
        """Whether a call that begins now is a part of the one that this was reserved for."""
        current = attached.get()
        if current is None or current.reservation is not reservation:
            return True  # an AdaptiveLLM's: in force only while that calls
        return current.span_id in self._open
