"""One request's way: into line, to its provider, and, if it may pass later, back into line."""

from __future__ import annotations

import asyncio
import math
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.answers import Answer, answer_of, answer_of_error, usage_of_result
from adaptive_rate_limiter.exceptions import CapacityExceededError, RateLimiterError
from adaptive_rate_limiter.reservation import current_reservation
from adaptive_rate_limiter.scheduler.attempts import Attempt
from adaptive_rate_limiter.scheduler.retry import backoff, may_pass_later, never_left
from adaptive_rate_limiter.streaming import is_stream
from adaptive_rate_limiter.types import RefusalKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.protocols import RequestMetadata
    from adaptive_rate_limiter.scheduler.line import Place
    from adaptive_rate_limiter.scheduler.run import Run

__all__ = ["Submission"]

FIRST_ERROR, FIRST_SERVER_ERROR, TIMED_OUT = 400, 500, 408
PACE = frozenset({RefusalKind.RATE_LIMIT, RefusalKind.CONCURRENCY, RefusalKind.QUOTA_EXHAUSTED})


class Submission:
    """What becomes of one `submit_request`."""

    __slots__ = (
        "bucket_id",
        "deadline",
        "has_slot",
        "metadata",
        "request_func",
        "reservation",
        "retries",
        "run",
    )

    def __init__(
        self,
        run: Run,
        bucket_id: str,
        metadata: RequestMetadata,
        request_func: Callable[[], Any],
        deadline: float,
    ) -> None:
        self.run = run
        self.bucket_id = bucket_id
        self.metadata = metadata
        self.request_func = request_func
        self.reservation: Any = None  # a Reservation from admission to the end, or until a stream has it
        self.retries = 0
        self.has_slot = False
        self.deadline = deadline  # in the time of the event loop

    async def result(self) -> Any:
        """What `request_func` returned; a stream settles itself from then on."""
        try:
            await self._admit()
            while True:
                error: Exception | None = None
                try:
                    result = await self._send()
                except Exception as failure:
                    wait = self._failed(failure)
                    if wait is None:
                        raise
                    error = failure
                else:
                    if is_stream(result):
                        return self._hand_over(result)
                    wait = self._returned(result)
                    if wait is None:
                        return result
                await self._again(wait, error)
        except CapacityExceededError as refused:
            if self.reservation is None or refused.bucket_id == self.reservation.bucket_id:
                refused.bucket_id = self.bucket_id  # as our caller knows it
            raise
        finally:
            if self.reservation is not None:
                self.reservation.lapse()  # whatever was not ended yet: nobody knows what became of it
                self._give_slot()

    # In line

    async def _admit(self) -> None:
        run = self.run
        run.check_circuit(self.bucket_id)
        options = self._options()
        tokens = self.metadata.estimated_tokens
        self.reservation = run.limiter.try_acquire(self.bucket_id, tokens, **options)
        if self.reservation is not None and run.slots.try_take():
            self.has_slot = True
            return
        with run.line.join(self.bucket_id) as place:
            if self.reservation is None:
                self.reservation = await run.limiter.aacquire(self.bucket_id, tokens, **options)
            await self._take_slot(place)

    def _options(self) -> Any:
        metadata = self.metadata
        options: dict[str, Any] = {}
        if metadata.estimated_tokens is None:
            options["estimated"] = True
        if metadata.priority:
            options["priority"] = metadata.priority
        if metadata.timeout is not None:
            options["timeout"] = max(0.0, self.deadline - self.run.loop.time())
        if metadata.client_id and self.run.mode.by_tenant:
            options["tenant"] = metadata.client_id
        return options

    async def _take_slot(self, place: Place) -> None:
        run = self.run
        if not run.slots.try_take():
            late = None
            if self.deadline < math.inf:
                late = run.loop.call_at(self.deadline, place.interrupt, self._no_slot())
            try:
                await run.slots.take(self.reservation.call.rank)
            except BaseException:
                self.reservation.cancel()  # it was never sent
                raise
            finally:
                if late is not None:
                    late.cancel()
        self.has_slot = True

    def _no_slot(self) -> CapacityExceededError:
        most = self.run.config.max_concurrent_executions
        return CapacityExceededError(
            f"{self.bucket_id}: max_concurrent_executions={most} requests are under way, and its deadline has come",
            self.bucket_id,
            0.0,  # as soon as one of them ends
        )

    def _give_slot(self) -> None:
        if self.has_slot:
            self.has_slot = False
            self.run.slots.give()

    async def _again(self, wait: float, error: Exception | None) -> None:
        """Back into line, after `wait` seconds. What ends the request there has `error` for its cause."""
        self._give_slot()
        self.retries += 1
        reservation = self.reservation
        try:
            with self.run.line.join(self.bucket_id, bounded=False) as place:
                if wait:
                    await asyncio.sleep(wait)
                self.run.check_circuit(self.bucket_id)
                await self.run.limiter.areadmit(reservation)
                await self._take_slot(place)
        except RateLimiterError as ended:
            raise ended from error
        reservation.sends, reservation.refusal, reservation.reply = 0, None, None

    # At the provider

    async def _send(self) -> Any:
        run = self.run
        seconds = min(run.config.request_timeout, self.deadline - run.loop.time())
        self.reservation.begin()
        token = current_reservation.set(self.reservation)
        try:
            with Attempt(run.attempts, seconds):
                made = self.request_func()
                return await made if type(made) is CoroutineType or isawaitable(made) else made
        finally:
            current_reservation.reset(token)

    # What became of it

    def _hand_over(self, stream: Any) -> Any:
        """The stream ends the reservation from now on, and gives the slot back."""
        reservation = self.reservation
        if not reservation.sends:
            self._observe(answer_of(stream))
        self.run.passed(self.bucket_id)
        wrapped = self.run.streams.wrap(stream, reservation, self.metadata, self.bucket_id, self._give_slot)
        self.reservation = None
        return wrapped

    def _returned(self, result: Any) -> float | None:
        """Learn from a result, and settle. Seconds until another attempt if it is a refusal, else None."""
        reservation = self.reservation
        answer = None
        if not reservation.sends:
            answer = answer_of(result)
            self._observe(answer)
        elif reservation.refusal is not None:
            answer = answer_of(result)  # the refused response itself, unless the caller dealt with that
        if answer is not None and answer.status >= FIRST_ERROR:
            return self._verdict(None, answer.status)
        self.run.passed(self.bucket_id)
        usage = usage_of_result(result)
        if usage is None and reservation.reply is not None:
            usage = reservation.reply.usage()
        reservation.settle(**(usage or {}))
        return None

    def _failed(self, error: Exception) -> float | None:
        """Learn from an error. Seconds until another attempt; None if there is none.

        Raises CapacityExceededError in place of a refusal that is final.
        """
        reservation = self.reservation
        answer = answer_of_error(error)
        if not reservation.sends:
            self._observe(answer)
        wait = self._verdict(error, None if answer is None else answer.status)
        refusal = reservation.refusal
        if wait is None and refusal is not None and refusal.kind in PACE:
            raise CapacityExceededError(
                f"{self.bucket_id} was refused by its provider: {refusal.kind.value}",
                self.bucket_id,
                refusal.retry_after,
            ) from error
        return wait

    def _verdict(self, error: Exception | None, status: int | None) -> float | None:
        """Seconds until another attempt, if one may cure it and nobody else has made any."""
        run, reservation = self.run, self.reservation
        again = self.retries < run.config.max_retries and not run.closing and reservation.sends <= 1
        if reservation.refusal is not None:
            return 0.0 if again and reservation.refusal.retryable else None
        if status is None or status >= FIRST_SERVER_ERROR or status == TIMED_OUT:
            run.failed(self.bucket_id)
        if error is not None and never_left(error):
            reservation.cancel()
        else:
            reservation.lapse()
        if not again or not run.mode.retries_failures or not may_pass_later(error, status):
            return None
        wait = backoff(self.retries, run.config)
        return wait if run.loop.time() + wait < self.deadline else None

    def _observe(self, answer: Answer | None) -> None:
        if answer is None or (answer.status < FIRST_ERROR and self.reservation.pass_unread()):
            return
        self.reservation.observe(*answer, url=self.run.base_url)
