"""Watching an application without limiting it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation.events.span import SpanDropEvent
from pydantic import PrivateAttr

from adaptive_rate_limiter import Limiter  # noqa: TC001 - the type of a pydantic field
from adaptive_rate_limiter.adapters import learn_refusal, limiter_from
from adaptive_rate_limiter.core.estimate import guess_tokens
from llama_index.llms.adaptive_rate_limiter.announcement import describe_event
from llama_index.llms.adaptive_rate_limiter.calls import describe_payload, messages_prompt
from llama_index.llms.adaptive_rate_limiter.responses import settle_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.instrumentation.events import BaseEvent

    from adaptive_rate_limiter import Reservation

__all__ = ["AdaptiveCallbackHandler"]

MOST_CALLS = 100_000  # of calls in flight; the oldest of more is one whose end was never told


class AdaptiveCallbackHandler(BaseEventHandler, BaseCallbackHandler):
    """Watches an application, without limiting it: feeds a Limiter what its calls cost and what was refused.

    Either `get_dispatcher().add_event_handler(AdaptiveCallbackHandler(limiter))` or, for older code,
    `CallbackManager([AdaptiveCallbackHandler(limiter)])`, but not both; `limiter.snapshot()` then tells, per
    model, what was used of which limit. It learns limits from responses and errors.

    Raises ConfigurationError naming the argument and its value.
    """

    event_starts_to_ignore: ClassVar[tuple[CBEventType, ...]] = ()  # type: ignore[misc]
    event_ends_to_ignore: ClassVar[tuple[CBEventType, ...]] = ()  # type: ignore[misc]

    limiter: Limiter
    _calls: dict[str, Reservation] = PrivateAttr(default_factory=dict)
    _embedding: dict[str, Mapping[str, Any]] = PrivateAttr(default_factory=dict)

    def __init__(self, limiter: Limiter | None = None) -> None:
        BaseEventHandler.__init__(self, limiter=limiter_from(limiter, {}))  # type: ignore[call-arg]

    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveCallbackHandler"

    # The instrumentation

    def handle(self, event: BaseEvent, **_: Any) -> None:
        span_id = event.span_id or ""
        if isinstance(event, (LLMChatStartEvent, LLMCompletionStartEvent)):
            self._start(span_id, describe_event(event))
        elif isinstance(event, (LLMChatEndEvent, LLMCompletionEndEvent)):
            self._answered(span_id, event.response)
        elif isinstance(event, ExceptionEvent):
            self._failed(span_id, event.exception)
        elif isinstance(event, SpanDropEvent):  # it is dispatched while its error is handled
            self._failed(span_id, sys.exc_info()[1])
        elif isinstance(event, EmbeddingStartEvent):
            self._embedding[span_id] = event.model_dict
        elif isinstance(event, EmbeddingEndEvent):
            self._embedded(self._embedding.get(span_id, {}), event.chunks)

    # The callback manager

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",  # noqa: ARG002 - LlamaIndex may give it by place
        **_: Any,
    ) -> str:
        told = payload or {}
        model = told.get(EventPayload.SERIALIZED) or {}
        if event_type is CBEventType.LLM:
            messages = told.get(EventPayload.MESSAGES)
            prompt = [told.get(EventPayload.PROMPT)] if messages is None else messages_prompt(messages)
            options = told.get(EventPayload.ADDITIONAL_KWARGS) or {}
            self._start(event_id, describe_payload(model, prompt, options))
        elif event_type is CBEventType.EMBEDDING:
            self._embedding[event_id] = model
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **_: Any,
    ) -> None:
        told = payload or {}
        if event_type is CBEventType.LLM:
            if EventPayload.EXCEPTION in told:
                self._failed(event_id, told[EventPayload.EXCEPTION])
            else:
                self._answered(event_id, told.get(EventPayload.RESPONSE, told.get(EventPayload.COMPLETION)))
        elif event_type is CBEventType.EMBEDDING:
            self._embedded(self._embedding.pop(event_id, {}), told.get(EventPayload.CHUNKS) or ())

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        pass

    # What both tell

    def _start(self, call_id: str, size: dict[str, Any]) -> None:
        self._calls[call_id] = self.limiter.record(**size)
        if len(self._calls) > MOST_CALLS:
            self._calls.pop(next(iter(self._calls))).lapse()

    def _answered(self, call_id: str, answer: Any) -> None:
        reservation = self._calls.pop(call_id, None)
        if reservation is not None:
            settle_answer(reservation, answer)

    def _failed(self, call_id: str, error: BaseException | None) -> None:
        self._embedding.pop(call_id, None)
        reservation = self._calls.pop(call_id, None)
        if reservation is not None:
            if error is not None:
                learn_refusal(reservation, error)
            reservation.lapse()

    def _embedded(self, model: Mapping[str, Any], texts: Sequence[str]) -> None:
        if texts:
            size = describe_payload(model, [], {})
            tokens = sum(max(1.0, guess_tokens(text, size["model"])) for text in texts)
            with self.limiter.record(size["model"], tokens) as reservation:
                reservation.observe(200)
                reservation.settle(tokens=tokens)
