"""Those who wait for their turn, of one scheduler in one event loop."""

from __future__ import annotations

import asyncio
import itertools
from heapq import heappop, heappush

from adaptive_rate_limiter.exceptions import QueueOverflowError, RateLimiterError
from adaptive_rate_limiter.scheduler.interrupt import Interruptible

__all__ = ["NOT_KNOWN_YET", "Line", "Place", "Slots"]

NOT_KNOWN_YET = ""  # stands for the bucket of those who wait to hear it


class Line:
    """Everybody who waits, by bucket, the oldest first. It bounds their number; who is next, the bucket decides."""

    def __init__(self, most: int, *, drops: bool) -> None:
        self._most = most
        self._drops = drops
        self._places: dict[str, dict[Place, None]] = {}

    def join(self, bucket_id: str, *, bounded: bool = True) -> Place:
        """A place for the time of a `with` block. Who was in before, as for another attempt, is let in again.

        Raises QueueOverflowError if the line is full and nobody is dropped from it.
        """
        places = self._places.get(bucket_id)
        if bounded and places and len(places) >= self._most:
            full = f"{len(places)} requests wait for {bucket_id}, and max_queue_size is {self._most}"
            if not self._drops:
                raise QueueOverflowError(full, bucket_id)
            oldest = next(iter(places))
            del places[oldest]
            oldest.interrupt(QueueOverflowError(f"Dropped for a newer request: {full}", bucket_id))
        return Place(self, bucket_id)

    def enter(self, place: Place) -> None:
        self._places.setdefault(place.bucket_id, {})[place] = None

    def leave(self, place: Place) -> None:
        places = self._places.get(place.bucket_id)
        if places is not None:
            places.pop(place, None)
            if not places:
                del self._places[place.bucket_id]

    def send_away(self, why: str) -> None:
        """Nobody will be served any more."""
        for places in list(self._places.values()):
            for place in list(places):
                place.interrupt(RateLimiterError(why))

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))


class Place(Interruptible):
    """One request's place in the line."""

    __slots__ = ("bucket_id",)

    def __init__(self, line: Line, bucket_id: str) -> None:
        super().__init__(line)
        self.bucket_id = bucket_id


class Slots:
    """So many requests at once, open streams included; who waits goes by the rank that the bucket gave, the lowest first.

    Where there is one bucket, its own bound on calls in flight is met first, and nobody waits here.
    """

    def __init__(self, most: int) -> None:
        self.free = most
        self._line: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap
        self._came = itertools.count()  # equal ranks go as they came

    def try_take(self) -> bool:
        if self.free > 0:
            self.free -= 1
            return True
        return False

    async def take(self, rank: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        heappush(self._line, (rank, next(self._came), turn))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give()  # it was ours already
            raise

    def give(self) -> None:
        while self._line:
            turn = heappop(self._line)[-1]
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
