"""The handlers behind `AdaptiveLimiter`: they announce each call to it, and settle what it admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from llama_index.llms.adaptive_rate_limiter.announcement import LLMCall
from llama_index.llms.adaptive_rate_limiter.responses import settle_answer, settle_vectors
from llama_index.llms.adaptive_rate_limiter.spans import Spans

if TYPE_CHECKING:
    from llama_index.core.instrumentation.events import BaseEvent


class SpanObserver(BaseSpanHandler[Any]):
    _spans: Spans = PrivateAttr()

    def __init__(self, spans: Spans) -> None:
        super().__init__()
        self._spans = spans

    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveSpanObserver"

    def span_enter(self, id_: str, bound_args: Any, instance: Any = None, *_: Any, **__: Any) -> None:
        if isinstance(instance, (BaseLLM, BaseEmbedding)):
            self._spans.enter(id_, instance, bound_args.arguments)

    def span_exit(self, id_: str, *_: Any, instance: Any = None, result: Any = None, **__: Any) -> None:
        if isinstance(instance, (BaseLLM, BaseEmbedding)):
            self._spans.leave(id_, result)

    def span_drop(self, id_: str, *_: Any, instance: Any = None, err: Any = None, **__: Any) -> None:
        if isinstance(instance, (BaseLLM, BaseEmbedding)):
            self._spans.leave(id_, error=err or RuntimeError())

    def new_span(self, *_: Any, **__: Any) -> None:
        """None: it keeps no spans of its own."""

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        pass

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        pass


class EventObserver(BaseEventHandler):
    _spans: Spans = PrivateAttr()

    def __init__(self, spans: Spans) -> None:
        super().__init__()
        self._spans = spans

    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveEventObserver"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        if isinstance(event, (LLMChatInProgressEvent, LLMCompletionInProgressEvent)):
            self._spans.read(event.span_id)
        elif isinstance(event, (LLMChatStartEvent, LLMCompletionStartEvent)):
            LLMCall(self._spans.instance(event.span_id), event)
        elif isinstance(event, (LLMChatEndEvent, LLMCompletionEndEvent)):
            for reservation in self._spans.release(event.span_id):
                settle_answer(reservation, event.response)
        elif isinstance(event, EmbeddingEndEvent):
            for reservation in self._spans.release(event.span_id):
                settle_vectors(reservation)
        elif isinstance(event, ExceptionEvent):
            self._spans.fail(event.span_id, event.exception)


spans = Spans()
_handlers = (EventObserver(spans), SpanObserver(spans))


def observe_calls() -> Spans:
    """Have every call of the process pass the handlers; asked for by each AdaptiveLimiter, done once."""
    root = get_dispatcher()
    if not any(handler is _handlers[0] for handler in root.event_handlers):
        root.add_event_handler(_handlers[0])
    if not any(handler is _handlers[1] for handler in root.span_handlers):
        root.add_span_handler(_handlers[1])
    return spans
