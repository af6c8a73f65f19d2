"""What a scheduler has between a start and a stop: all of it belongs to one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import RateLimiterError
from adaptive_rate_limiter.scheduler.attempts import Attempts
from adaptive_rate_limiter.scheduler.breaker import Breaker
from adaptive_rate_limiter.scheduler.line import Line, Slots
from adaptive_rate_limiter.scheduler.modes import MODES
from adaptive_rate_limiter.scheduler.streams import Streams

if TYPE_CHECKING:
    from adaptive_rate_limiter.limiter import Limiter
    from adaptive_rate_limiter.scheduler.config import RateLimiterConfig

__all__ = ["STOPPED", "Run"]

STOPPED = "Scheduler was stopped before the request was sent"


class Run:
    """One life of a scheduler."""

    def __init__(self, limiter: Limiter, config: RateLimiterConfig, base_url: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.limiter = limiter
        self.config = config
        self.mode = MODES[config.mode]
        self.base_url = base_url
        most = config.max_concurrent_executions
        self.slots = Slots(most)
        self.line = Line(
            config.max_queue_size, drops=self.mode.drops and config.overflow_policy == "drop_oldest"
        )
        self.streams = Streams(self.loop, most)
        self.attempts = Attempts(self.loop)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.closing = False
        self.submissions = 0
        self._breakers: dict[str, Breaker] = {}
        self._ended: asyncio.Future[None] | None = None  # done when another submission has ended

    def begin(self) -> None:
        self.submissions += 1

    def end(self) -> None:
        self.submissions -= 1
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """A task that ends with the run, if not before."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # The circuit of a bucket

    def check_circuit(self, bucket_id: str) -> None:
        """Raises TooManyFailedRequestsError if it is open."""
        breaker = self._breakers.get(bucket_id)
        if breaker is not None:
            breaker.check(bucket_id, self.limiter.clock.now())

    def failed(self, bucket_id: str) -> None:
        breaker = self._breakers.get(bucket_id)
        if breaker is None:
            breaker = self._breakers[bucket_id] = Breaker(
                self.config.max_failures, self.config.failure_window
            )
        breaker.failed(self.limiter.clock.now())

    def passed(self, bucket_id: str) -> None:
        if self._breakers:
            self._breakers.pop(bucket_id, None)

    # The end

    async def close(self, *, abort: bool) -> None:
        """Who waits is sent away; what is under way is waited for, or ended as well with `abort`."""
        self.closing = True
        self.line.send_away(STOPPED)
        here = asyncio.current_task()
        own = sum(attempt.task is here for attempt in self.attempts)  # a request may stop its own scheduler
        if abort:
            for attempt in list(self.attempts):
                if attempt.task is not here:
                    attempt.interrupt(
                        RateLimiterError("Scheduler was stopped while the request was under way")
                    )
        try:
            while self.submissions > own:
                self._ended = self.loop.create_future()
                await self._ended
        finally:
            self.attempts.close()
            for task in self.tasks:
                task.cancel()
            if self.tasks:
                await asyncio.wait(set(self.tasks))
            await self.streams.stop()
