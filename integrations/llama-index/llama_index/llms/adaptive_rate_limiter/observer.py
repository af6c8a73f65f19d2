"""The handlers behind `AdaptiveLimiter`: they announce each call to it, and settle what it admitted."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

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

from llama_index.llms.adaptive_rate_limiter.responses import settle_answer, settle_vectors
from llama_index.llms.adaptive_rate_limiter.spans import Spans, fail

if TYPE_CHECKING:
    from collections.abc import Callable


# Both handlers see every span and event of the process. To ask a pydantic class for its instances, or a pydantic
# object for a private attribute, takes a microsecond or more: types are asked once, and there is one `spans`.
TYPES = 1024  # of events that are remembered

spans = Spans()


class SpanObserver(BaseSpanHandler[Any]):
    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveSpanObserver"

    span_enter = staticmethod(spans.enter)
    span_exit = staticmethod(spans.leave)
    span_drop = staticmethod(spans.drop)

    def new_span(self, *_: Any, **__: Any) -> None:
        """None: it keeps no spans of its own."""

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        pass

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        pass


class EventObserver(BaseEventHandler):
    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveEventObserver"

    def handle(self, event: Any, **_: Any) -> None:
        _reaction_to(event.__class__)(event)


def _answered(event: Any) -> None:
    spans.end(event.span_id, settle_answer, event.response)


def _embedded(event: Any) -> None:
    spans.end(event.span_id, settle_vectors)


def _failed(event: Any) -> None:
    spans.end(event.span_id, fail, event.exception)


def _ignore(_: Any) -> None:
    pass


REACTIONS: tuple[tuple[tuple[type, ...], Callable[[Any], None]], ...] = (
    ((LLMChatInProgressEvent, LLMCompletionInProgressEvent), spans.read),
    ((LLMChatStartEvent, LLMCompletionStartEvent), spans.announce),
    ((LLMChatEndEvent, LLMCompletionEndEvent), _answered),
    ((EmbeddingEndEvent,), _embedded),
    ((ExceptionEvent,), _failed),
)


@lru_cache(maxsize=TYPES)
def _reaction_to(kind: type) -> Callable[[Any], None]:
    return next((react for kinds, react in REACTIONS if issubclass(kind, kinds)), _ignore)


_handlers = (EventObserver(), SpanObserver())


def observe_calls() -> Spans:
    """Have every call of the process pass the handlers; asked for by each AdaptiveLimiter, done once."""
    root = get_dispatcher()
    if not any(handler is _handlers[0] for handler in root.event_handlers):
        root.add_event_handler(_handlers[0])
    if not any(handler is _handlers[1] for handler in root.span_handlers):
        root.add_span_handler(_handlers[1])
    return spans
