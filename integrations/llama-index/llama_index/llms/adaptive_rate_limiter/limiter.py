"""`OpenAI(rate_limiter=AdaptiveLimiter())`: for the field that every LLM and embedding model of LlamaIndex has."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.rate_limiter import BaseRateLimiter

from adaptive_rate_limiter import ConfigurationError, Limiter
from adaptive_rate_limiter.adapters import limiter_from
from adaptive_rate_limiter.http import observe_http as start_observation
from adaptive_rate_limiter.reservation import current_reservation
from adaptive_rate_limiter.views import Shown
from llama_index.llms.adaptive_rate_limiter.announcement import TextBatches, Unannounced, announced
from llama_index.llms.adaptive_rate_limiter.events import tell_wait
from llama_index.llms.adaptive_rate_limiter.observer import observe_calls

__all__ = ["AdaptiveLimiter"]


class AdaptiveLimiter(Shown, BaseRateLimiter):
    """Learns the provider's limits from its responses and fills them without being refused.

    Give one to LLMs and embedding models as `rate_limiter=`; they share what they learn, as do several over one
    `limiter=Limiter(...)`. Takes any argument of `Limiter` instead of `limiter`. `observe_http=False` leaves httpx
    alone: limits are then learned from responses and errors.

    LlamaIndex tells it nothing of the call: model and size are learned from the events that precede it, the usage
    from those that follow. `AdaptiveLLM` and `AdaptiveEmbedding` do more: they send a refused call again, split
    batches, and limit calls that LlamaIndex does not put to its `rate_limiter`.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(self, limiter: Limiter | None = None, *, observe_http: bool = True, **options: Any) -> None:
        if not isinstance(observe_http, bool):
            raise ConfigurationError(f"observe_http must be True or False, got {observe_http!r}")
        self.limiter = limiter_from(limiter, options)
        self._spans = observe_calls()
        self._http = start_observation() if observe_http else None

    def acquire(self, num_tokens: int = 0) -> None:
        """Wait until the announced call may be sent; one that nothing announced is a request of `num_tokens`."""
        if current_reservation.get() is not None and self._is_part():
            return
        call = announced.get() or Unannounced(num_tokens)
        reservation = self.limiter.acquire(**call.claim())
        if reservation.waited:
            tell_wait(reservation)
        self._spans.keep(call, reservation)

    async def async_acquire(self, num_tokens: int = 0) -> None:
        if current_reservation.get() is not None and self._is_part():
            return
        call = announced.get() or Unannounced(num_tokens)
        reservation = await self.limiter.aacquire(**call.claim())
        if reservation.waited:
            tell_wait(reservation)
        admitted = self._spans.keep(call, reservation)
        if admitted is not None and isinstance(call, TextBatches):
            self._spans.end_with(asyncio.current_task(), admitted)

    def _is_part(self) -> bool:
        """Of a call that is admitted and has sent nothing yet: `complete` of many LLMs is their `chat`."""
        outer = current_reservation.get()
        return outer is not None and not outer.closed and not outer.sends and self._spans.part_of(outer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.limiter, self._http is not None)


def _restored(limiter: Limiter, observe_http: bool) -> AdaptiveLimiter:
    return AdaptiveLimiter(limiter, observe_http=observe_http)
