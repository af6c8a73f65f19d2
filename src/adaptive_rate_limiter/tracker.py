"""What is reserved and not ended yet, by request: to find what somebody forgot to end."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adaptive_rate_limiter.exceptions import ConfigurationError, ReservationCapacityError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ReservationContext", "ReservationTracker"]

logger = logging.getLogger(__name__)


@dataclass
class ReservationContext:
    """One reservation; `created_at` is in seconds of the monotonic clock."""

    reservation_id: str
    bucket_id: str
    estimated_tokens: int
    created_at: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - the clock of that moment


class ReservationTracker:
    """Reservations that are not ended yet, at most one for each request in each bucket.

    It keeps the books and ends nothing by itself. Between `start` and `stop`, whatever grows older than
    `max_reservation_age` seconds is taken out and given to `on_stale`; it is looked for when the oldest is due,
    but no more often than every `stale_cleanup_interval` seconds.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(
        self,
        max_reservations: int = 10_000,
        max_reservation_age: float = 240.0,
        stale_cleanup_interval: float = 60.0,
        on_stale: Callable[[ReservationContext], object] | None = None,
    ) -> None:
        for name, value in (
            ("max_reservations", max_reservations),
            ("max_reservation_age", max_reservation_age),
            ("stale_cleanup_interval", stale_cleanup_interval),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigurationError(f"{name} must be a number above 0, got {value!r}")
        self.max_reservations = max_reservations
        self.max_reservation_age = max_reservation_age
        self.stale_cleanup_interval = stale_cleanup_interval
        self._on_stale = on_stale
        self._open: dict[tuple[str, str], ReservationContext] = {}  # in the order of their age
        self._by_request: dict[str, set[tuple[str, str]]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._stored: asyncio.Event | None = None

    @property
    def reservation_count(self) -> int:
        return len(self._open)

    @property
    def request_count(self) -> int:
        return len(self._by_request)

    @property
    def stale_entry_ratio(self) -> float:
        """The part of the reservations that is too old."""
        return len(self._stale(self._cutoff())) / len(self._open) if self._open else 0.0

    async def store(
        self, request_id: str, bucket_id: str, reservation_id: str, estimated_tokens: int
    ) -> None:
        """Remember a reservation, in place of one that the request had in this bucket.

        Raises ReservationCapacityError if there is no room, and nothing too old that could make room.
        """
        self.add(request_id, ReservationContext(reservation_id, bucket_id, estimated_tokens))

    def add(self, request_id: str, context: ReservationContext) -> None:
        """`store` where nobody can wait."""
        key = (request_id, context.bucket_id)
        if len(self._open) >= self.max_reservations and key not in self._open:
            self._sweep()
            if len(self._open) >= self.max_reservations:
                raise ReservationCapacityError(
                    f"{self.max_reservations:,} reservations are open, and none is older than "
                    f"{self.max_reservation_age:g} s: no room for that of {request_id}"
                )
        self._remove(key)
        self._open[key] = context
        self._by_request.setdefault(request_id, set()).add(key)
        if self._stored is not None:
            self._stored.set()

    async def get(self, request_id: str, bucket_id: str) -> ReservationContext | None:
        return self._open.get((request_id, bucket_id))

    async def get_and_clear(self, request_id: str, bucket_id: str | None = None) -> ReservationContext | None:
        """Take it out; without `bucket_id`, any one of the request's. None if there is none, as the second time."""
        if bucket_id is None:
            return self._remove(next(iter(self._by_request.get(request_id, ())), None))
        return self._remove((request_id, bucket_id))

    async def clear_all_for_request(self, request_id: str) -> list[ReservationContext]:
        keys = list(self._by_request.get(request_id, ()))
        return [context for key in keys if (context := self._remove(key)) is not None]

    async def get_and_clear_stale(self, cutoff: float | None = None) -> list[ReservationContext]:
        """Take out those that were stored before `cutoff`; without it, those that are too old now."""
        return self._take_stale(self._cutoff() if cutoff is None else cutoff)

    def compact_heap(self) -> None:
        """Nothing to do: what is taken out leaves nothing behind."""

    async def start(self) -> None:
        """Look for what is too old, from now on. Another time changes nothing."""
        if self._sweeper is None or self._sweeper.done():
            self._stored = asyncio.Event()
            self._sweeper = asyncio.create_task(self._sweep_on(self._stored))

    async def stop(self) -> None:
        sweeper, self._sweeper, self._stored = self._sweeper, None, None
        if (
            sweeper is not None and sweeper.get_loop() is asyncio.get_running_loop()
        ):  # else it died with its loop
            sweeper.cancel()
            await asyncio.wait({sweeper})

    def discard(self, request_id: str, bucket_id: str) -> None:
        """`get_and_clear` where nobody can wait."""
        self._remove((request_id, bucket_id))

    def _remove(self, key: tuple[str, str] | None) -> ReservationContext | None:
        context = None if key is None else self._open.pop(key, None)
        if context is not None and key is not None:
            siblings = self._by_request[key[0]]
            siblings.discard(key)
            if not siblings:
                del self._by_request[key[0]]
        return context

    def _cutoff(self) -> float:
        return time.monotonic() - self.max_reservation_age

    def _stale(self, cutoff: float) -> list[tuple[str, str]]:
        found = []
        for key, context in self._open.items():
            if context.created_at >= cutoff:
                break
            found.append(key)
        return found

    def _take_stale(self, cutoff: float) -> list[ReservationContext]:
        return [context for key in self._stale(cutoff) if (context := self._remove(key)) is not None]

    def _sweep(self) -> None:
        for context in self._take_stale(self._cutoff()):
            if self._on_stale is None:
                continue
            try:
                self._on_stale(context)
            except Exception:
                logger.exception("on_stale failed for reservation %s", context.reservation_id)

    async def _sweep_on(self, stored: asyncio.Event) -> None:
        while True:
            if not self._open:
                stored.clear()
                await stored.wait()
            oldest = next(iter(self._open.values()), None)
            due = 0.0 if oldest is None else oldest.created_at + self.max_reservation_age - time.monotonic()
            await asyncio.sleep(max(self.stale_cleanup_interval, due))
            self._sweep()
