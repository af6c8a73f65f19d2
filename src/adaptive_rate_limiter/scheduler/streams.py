"""Streams that are open: their reservations and slots outlive the submission that returned them."""

from __future__ import annotations

import itertools
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.quota import TOKENS
from adaptive_rate_limiter.streaming import StreamingReservationContext, wrap
from adaptive_rate_limiter.tracker import ReservationContext, ReservationTracker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from adaptive_rate_limiter.protocols import RequestMetadata
    from adaptive_rate_limiter.reservation import Reservation

__all__ = ["Streams"]

logger = logging.getLogger(__name__)

LONGEST_SILENCE = 600.0  # seconds without a chunk, after which a stream counts as forgotten
LOOK_EVERY = 60.0  # seconds, at the most often


class Streams:
    """The open streams of one scheduler in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._open: dict[str, StreamingReservationContext] = {}
        self._tracker = ReservationTracker(most, LONGEST_SILENCE, LOOK_EVERY, on_stale=self._look_after)

    def __len__(self) -> int:
        return len(self._open)

    async def start(self) -> None:
        await self._tracker.start()

    async def stop(self) -> None:
        """Whatever is open ends here for the limiter; its reader may read on."""
        await self._tracker.stop()
        for context in list(self._open.values()):
            context.fail()

    def wrap(
        self,
        stream: Any,
        reservation: Reservation,
        metadata: RequestMetadata,
        bucket_id: str,
        ended: Callable[[], object],
    ) -> Any:
        """`stream`, which ends `reservation` when it ends, and calls `ended` in the event loop."""
        name = f"{metadata.request_id}#{next(self._numbers)}"
        context = StreamingReservationContext(
            name, bucket_id, metadata.request_id, round(reservation.call.cost.get(TOKENS, 0.0)), reservation,
            on_end=lambda: self._closed(name, bucket_id, ended),
        )  # fmt: skip
        wrapped = wrap(stream, context)
        self._open[name] = context
        self._tracker.add(name, ReservationContext(name, bucket_id, context.reserved_tokens))
        return wrapped

    def _closed(self, name: str, bucket_id: str, ended: Callable[[], object]) -> None:
        """Perhaps within the garbage collector, and in any thread: nothing here takes a lock."""

        def close() -> None:
            self._tracker.discard(name, bucket_id)
            ended()

        self._open.pop(name, None)
        with suppress(RuntimeError):  # the loop is closed, and with it all that could wait
            self._loop.call_soon_threadsafe(close)

    def _look_after(self, stale: ReservationContext) -> None:
        context = self._open.get(stale.reservation_id)
        if context is None:
            return
        silent = time.monotonic() - (context.last_chunk_at or context.created_at)
        if silent < LONGEST_SILENCE:
            self._tracker.add(
                stale.reservation_id,
                ReservationContext(stale.reservation_id, stale.bucket_id, stale.estimated_tokens),
            )
            return
        logger.warning(
            "stream %s was not read for %.0f s, and is taken for forgotten", context.request_id, silent
        )
        context.fail()
