"""`ChatOpenAI(rate_limiter=AdaptiveLimiter())` is the whole set-up."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from adaptive_rate_limiter import CapacityExceededError, ConfigurationError, Limiter, Reservation
from adaptive_rate_limiter.http import HttpObservation, observe_http
from langchain_adaptive_rate_limiter.announcement import Announcement, next_announced
from langchain_adaptive_rate_limiter.callbacks import observe_runs
from langchain_core.callbacks.manager import handle_event
from langchain_core.rate_limiters import BaseRateLimiter

WAIT_EVENT = "rate_limiter_wait"
LEAST_WAIT = 0.001  # seconds of waiting that are worth an event


class AdaptiveLimiter(BaseRateLimiter):
    """Learns the provider's limits from its responses and fills them without being refused.

    Give one to a chat model as `rate_limiter=`; share one between models, or several over one
    `limiter=Limiter(...)`, and they share what they learn. Takes any argument of `Limiter` instead of
    `limiter`. `observe_http=False` leaves httpx alone: limits are then learned from response metadata and errors.

    A call that waited sends a custom event "rate_limiter_wait" to the handlers of its run, with `waited`
    seconds and the limit as `reason`.
    """

    def __init__(self, limiter: Limiter | None = None, *, observe_http: bool = True, **options: Any) -> None:
        if limiter is not None and options:
            name, value = next(iter(options.items()))
            raise ConfigurationError(f"{name}={value!r} belongs to the Limiter that is given as limiter=")
        if limiter is not None and not isinstance(limiter, Limiter):
            raise ConfigurationError(f"limiter must be a Limiter, got {limiter!r}")
        self.limiter = limiter or Limiter(**options)
        self._observer = observe_runs()
        self._http: HttpObservation | None = _observe_http() if observe_http else None

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait until the announced call may be sent. With `blocking=False`: True only if it may go now."""
        announcement = next_announced()
        if not blocking:
            reservation = self.limiter.try_acquire(**_described(announcement))
            return reservation is not None and self._admitted(announcement, reservation, None)
        frame = sys._getframe(1)  # noqa: SLF001 - see _report
        try:
            reservation = self.limiter.acquire(**_described(announcement))
        except BaseException:
            self._turned_away(announcement)
            raise
        return self._admitted(announcement, reservation, frame)

    async def aacquire(self, *, blocking: bool = True) -> bool:
        announcement = next_announced()
        if not blocking:
            reservation = self.limiter.try_acquire(**_described(announcement))
            return reservation is not None and self._admitted(announcement, reservation, None)
        frame = sys._getframe(1)  # noqa: SLF001 - see _report
        try:
            reservation = await self.limiter.aacquire(**_described(announcement))
        except BaseException:
            self._turned_away(announcement)
            raise
        return self._admitted(announcement, reservation, frame)

    def _admitted(
        self, announcement: Announcement | None, reservation: Reservation, frame: FrameType | None
    ) -> bool:
        if announcement is None:  # asked for by hand: nobody will say how it ended
            reservation.lapse()
            return True
        announcement.reservation = reservation
        reservation.attach()
        if reservation.waited >= LEAST_WAIT and frame is not None:
            _report(reservation, frame)
        return True

    def _turned_away(self, announcement: Announcement | None) -> None:
        if announcement is not None:
            self._observer.forget(announcement)


def _observe_http() -> HttpObservation:
    return observe_http()


def _described(announcement: Announcement | None) -> dict[str, Any]:
    if announcement is None:
        return {}
    return {
        "model": announcement.model,
        "prompt": announcement.prompt,
        "max_tokens": announcement.max_tokens,
        "route": announcement.route,
        "estimated": True,
    }


def _report(reservation: Reservation, frame: FrameType) -> None:
    """Send the custom event to the run's own handlers.

    LangChain asks its limiter without saying for which run; the run manager is a variable of the caller.
    Where a later version names it differently there is no event, and nothing else changes.
    """
    run_manager = frame.f_locals.get("run_manager")
    handlers = getattr(run_manager, "handlers", None)
    if not handlers:
        return
    data = {
        "waited": reservation.waited,
        "reason": reservation.wait_reason,
        "bucket_id": reservation.bucket_id,
    }
    handle_event(
        handlers, "on_custom_event", "ignore_custom_event", WAIT_EVENT, data, run_id=run_manager.run_id
    )


__all__ = ["AdaptiveLimiter", "CapacityExceededError"]
