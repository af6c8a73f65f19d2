"""What LlamaIndex's instrumentation is told of the limiter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

if TYPE_CHECKING:
    from adaptive_rate_limiter import Reservation

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
