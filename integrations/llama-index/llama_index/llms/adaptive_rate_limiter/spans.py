"""The calls that `AdaptiveLimiter` has admitted, from LlamaIndex's spans: which send is whose, and how each ends."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Generator
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM

from adaptive_rate_limiter.adapters import learn_refusal, note_refusal
from adaptive_rate_limiter.reservation import current_reservation
from llama_index.llms.adaptive_rate_limiter.announcement import LLMCall, TextBatches, announced
from llama_index.llms.adaptive_rate_limiter.responses import settle_vectors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent

    from adaptive_rate_limiter import Reservation
    from llama_index.llms.adaptive_rate_limiter.announcement import Announcement


class Admitted:
    """A reservation on behalf of a span, until its end."""

    __slots__ = ("before", "gone", "reads", "reservation", "span_id")

    gone: weakref.ref[Any]  # the stream that it opened

    def __init__(self, span_id: str, reservation: Reservation, before: Admitted | None) -> None:
        self.span_id = span_id
        self.reservation = reservation
        self.before = before  # in the same context: a stream that was opened, and has sent nothing yet
        self.reads = False  # a stream of which something was read

    @property
    def unsent(self) -> bool:
        return not self.reservation.closed and not self.reservation.sends


TYPES = 1024  # of instances and of what their methods return, that are remembered


@lru_cache(maxsize=TYPES)
def _call_of(kind: type) -> type[LLMCall | TextBatches] | None:
    if issubclass(kind, BaseLLM):
        return LLMCall
    return TextBatches if issubclass(kind, BaseEmbedding) else None


@lru_cache(maxsize=TYPES)
def _is_stream(kind: type) -> bool:
    return issubclass(kind, (Generator, AsyncGenerator))


attached: ContextVar[Admitted | None] = ContextVar("llama_index_adaptive_attached", default=None)
"""The call whose reservation is in force in this context, or was."""


def _attach(admitted: Admitted | None) -> None:
    """Put it in force, or the last of those opened before it that have not sent."""
    while admitted is not None and not admitted.unsent:
        admitted = admitted.before
    attached.set(admitted)
    if admitted is not None:
        admitted.reservation.attach()


def fail(reservation: Reservation, error: BaseException) -> None:
    learn_refusal(reservation, error)
    note_refusal(reservation, error)
    reservation.lapse()


class Spans:
    """The spans of LLMs and embedding models that are open, and what was reserved for each."""

    def __init__(self) -> None:
        self._open: dict[str | None, LLMCall | TextBatches] = {}
        self._admitted: dict[str | None, list[Admitted]] = {}

    # What LlamaIndex tells, in its own names

    def enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        kind = _call_of(instance.__class__)
        if kind is None or (kind is TextBatches and "._" in id_ and parent_id in self._open):
            return  # no model, or a part of what one does already
        current = attached.get()
        call: Any = kind(id_, instance, None if current is None else self._step_aside(current))
        self._open[id_] = call
        if kind is TextBatches and "._" not in id_:
            call.announce(bound_args.arguments)

    def announce(self, event: LLMChatStartEvent | LLMCompletionStartEvent) -> None:
        call, current = self._open.get(event.span_id), announced.get()
        if call.__class__ is not LLMCall:
            call, current = LLMCall(event.span_id, None), None  # nobody will say how its method ended
        call.event = event
        if call is not current:
            call.previous = current
            announced.set(call)

    def leave(self, id_: str, *_: Any, result: Any = None, **__: Any) -> None:
        """The method has returned; a stream that it returned is still to be read."""
        call = self._open.pop(id_, None)
        if call is not None:
            if announced.get() is call:
                announced.set(call.previous)
            if call.aside is not None and current_reservation.get() is None:
                _attach(call.aside)
        if id_ in self._admitted:
            self._opened_stream(id_, result)

    def drop(self, id_: str, *_: Any, err: BaseException | None = None, **__: Any) -> None:
        """The method has raised."""
        self.end(id_, fail, err or RuntimeError())
        self.leave(id_)

    def _step_aside(self, current: Admitted) -> Admitted | None:
        """A call begins between the opening of a stream and its end: what it sends is not the stream's."""
        if current.span_id in self._open or current_reservation.get() is not current.reservation:
            return None
        current_reservation.set(None)
        return current

    # What was admitted

    def keep(self, call: Announcement, reservation: Reservation) -> Admitted | None:
        """It was admitted for `call`. None if nobody will say how that ended."""
        span_id = call.span_id
        if span_id is None:
            reservation.lapse()
            return None
        before = call.aside or attached.get()
        while before is not None and not before.unsent:
            before = before.before
        admitted = Admitted(span_id, reservation, before)
        self._admitted.setdefault(span_id, []).append(admitted)
        attached.set(admitted)
        current_reservation.set(reservation)
        return admitted

    def end(self, span_id: str | None, settle: Callable[[Reservation, Any], None], told: Any = None) -> None:
        """`settle` what was reserved for the span, with what was `told` of its end."""
        for admitted in self._admitted.pop(span_id, ()):
            if attached.get() is admitted:
                attached.set(None) if admitted.before is None else _attach(admitted.before)
            settle(admitted.reservation, told)

    def _opened_stream(self, span_id: str, result: Any) -> None:
        if _is_stream(result.__class__):
            for admitted in self._admitted[span_id]:
                admitted.gone = weakref.ref(result, lambda _: self._lost(span_id))

    def _lost(self, span_id: str) -> None:
        for admitted in self._admitted.pop(span_id, ()):
            admitted.reservation.abandon()

    # Batches that are embedded at once

    def end_with(self, task: asyncio.Task[Any] | None, admitted: Admitted) -> None:
        """Of several that run at once, the end of one is told only by its task."""
        if task is not None:
            task.add_done_callback(lambda task: self._task_done(admitted, task))

    def _task_done(self, admitted: Admitted, task: asyncio.Task[Any]) -> None:
        batches = self._admitted.get(admitted.span_id, [])
        if admitted in batches:
            batches.remove(admitted)
            if not batches:  # the method may have ended before, with the failure of another
                del self._admitted[admitted.span_id]
            if task.cancelled() or task.exception() is not None:
                admitted.reservation.lapse()
            else:
                settle_vectors(admitted.reservation)

    # Streams

    def read(self, event: Any) -> None:
        """A chunk has come. A stream sends when it is first read, under the reservation in force then: its own
        or, where several were opened before, another's, which is its own from now on.
        """
        mine = self._admitted.get(event.span_id)
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
