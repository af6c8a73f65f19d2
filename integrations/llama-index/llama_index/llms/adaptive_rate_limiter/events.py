"""What LlamaIndex's instrumentation is told of the limiter."""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from llama_index.core.instrumentation.event_handlers import NullEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

from llama_index.llms.adaptive_rate_limiter.observer import EventObserver, SpanObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter import Reservation

# Which LlamaIndex has from the start, and ours: an AdaptiveLLM admits its calls itself.
DEAF = frozenset({NullSpanHandler, NullEventHandler, SpanObserver, EventObserver})
LEAST_WAIT = 0.001  # seconds of waiting that are worth an event

_dispatcher = get_dispatcher(__name__)


class RateLimiterWaitEvent(BaseEvent):
    """A call stood in line: `waited` seconds so far, for the limit named by `reason`, in the bucket `bucket_id`.

    It is dispatched within the span of the call, so that waiting is told apart from the model's latency.
    """

    waited: float
    reason: str | None
    bucket_id: str

    @classmethod
    def class_name(cls) -> str:
        return "RateLimiterWaitEvent"


def tell_wait(reservation: Reservation) -> None:
    if reservation.waited >= LEAST_WAIT:
        _dispatcher.event(
            RateLimiterWaitEvent(
                waited=reservation.waited, reason=reservation.wait_reason, bucket_id=reservation.bucket_id
            )
        )


def span_where_heard(kind: type) -> None:
    """Make the spans that LlamaIndex puts round the methods of `kind` only while some handler hears of them.

    A span takes as long as the admission of a call, and the wrapped model makes one of the same call.
    """
    for name, method in list(vars(kind).items()):
        if callable(method) and hasattr(method, DISPATCHER_SPAN_DECORATED_ATTR):
            setattr(kind, name, _either(method.__wrapped__, method))


def _either(plain: Callable[..., Any], spanned: Any) -> Callable[..., Any]:
    if iscoroutinefunction(plain):

        @wraps(plain)
        async def achosen(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _somebody_hears():
                return await spanned.__get__(self)(*args, **kwargs)
            return await plain(self, *args, **kwargs)

        return achosen

    @wraps(plain)
    def chosen(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _somebody_hears():
            return spanned.__get__(self)(*args, **kwargs)
        return plain(self, *args, **kwargs)

    return chosen


def _somebody_hears() -> bool:
    current = _dispatcher
    while True:
        if not DEAF.issuperset(map(type, (*current.span_handlers, *current.event_handlers))):
            return True
        if not current.propagate:
            return False
        current = current.parent
