"""`ChatOpenAI(rate_limiter=AdaptiveLimiter())` is the whole set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.rate_limiters import BaseRateLimiter

from adaptive_rate_limiter import ConfigurationError, Limiter, Reservation
from adaptive_rate_limiter.adapters import limiter_from
from adaptive_rate_limiter.http import observe_http as start_observation
from adaptive_rate_limiter.views import Shown
from langchain_adaptive_rate_limiter.announcement import announce_again, claim
from langchain_adaptive_rate_limiter.callbacks import observe_runs

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["AdaptiveLimiter"]

WAIT_EVENT = "rate_limiter_wait"
LEAST_WAIT = 0.001  # seconds of waiting that are worth an event


class AdaptiveLimiter(Shown, BaseRateLimiter):
    """Learns the provider's limits from its responses and fills them without being refused.

    Give one to a chat model as `rate_limiter=`; share one between models, or several over one
    `limiter=Limiter(...)`, and they share what they learn. Takes any argument of `Limiter` instead of
    `limiter`. `observe_http=False` leaves httpx alone: limits are then learned from response metadata and errors.

    A call that waited sends a custom event "rate_limiter_wait" to the handlers of its run, with `waited`
    seconds and the limit as `reason`.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(self, limiter: Limiter | None = None, *, observe_http: bool = True, **options: Any) -> None:
        if not isinstance(observe_http, bool):
            raise ConfigurationError(f"observe_http must be True or False, got {observe_http!r}")
        self.limiter = limiter_from(limiter, options)
        self._observer = observe_runs()
        self._http = start_observation() if observe_http else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.limiter, self._http is not None)

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait until the announced call may be sent. With `blocking=False`: True only if it may go now."""
        call, run_id, manager = claim()
        if not blocking:
            return self._try_acquire(call, run_id, manager)
        reservation = self.limiter.acquire(**call)
        self._observer.follow(run_id, reservation, manager)
        if reservation.waited and (event := _wait_event(reservation, manager)):
            handle_event(*event[0], **event[1])
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        call, run_id, manager = claim()
        if not blocking:
            return self._try_acquire(call, run_id, manager)
        reservation = await self.limiter.aacquire(**call)
        self._observer.follow(run_id, reservation, manager)
        if reservation.waited and (event := _wait_event(reservation, manager)):
            await ahandle_event(*event[0], **event[1])
        return True

    def _try_acquire(self, call: dict[str, Any], run_id: UUID | None, manager: Any) -> bool:
        reservation = self.limiter.try_acquire(**call)
        if reservation is not None:
            self._observer.follow(run_id, reservation, manager)
        elif run_id is not None:  # whoever asked may ask again
            announce_again(run_id, call)
        return reservation is not None


def _wait_event(reservation: Reservation, manager: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    handlers = getattr(manager, "handlers", None)
    if not handlers or reservation.waited < LEAST_WAIT:
        return None
    data = {
        "waited": reservation.waited,
        "reason": reservation.wait_reason,
        "bucket_id": reservation.bucket_id,
    }
    about = {name: getattr(manager, name, None) for name in ("run_id", "tags", "metadata")}
    return (handlers, "on_custom_event", "ignore_custom_event", WAIT_EVENT, data), about


def _restored(limiter: Limiter, observe_http: bool) -> AdaptiveLimiter:
    return AdaptiveLimiter(limiter, observe_http=observe_http)
