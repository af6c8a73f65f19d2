"""The front door: one limiter for every model, framework, thread and event loop of a process."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.locked import LockedBucket
from adaptive_rate_limiter.backends.memory import MemoryBackend
from adaptive_rate_limiter.backends.waking import ThreadWaker, loop_waker
from adaptive_rate_limiter.batch import AsyncBatch, Batch
from adaptive_rate_limiter.clock import Clock, SystemClock
from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.quota import TOKENS
from adaptive_rate_limiter.eager import EagerDiscovery
from adaptive_rate_limiter.exceptions import CapacityExceededError, ConfigurationError
from adaptive_rate_limiter.headroom import keep_headroom
from adaptive_rate_limiter.options import (
    call_from,
    check_concurrency,
    check_eager,
    check_headroom,
    check_weights,
    quotas_by_model,
    seconds,
    unknown_argument,
    work_from,
)
from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.report import (
    Forecast,
    LimiterSnapshot,
    explain_bucket,
    forecast_bucket,
    snapshot_bucket,
)
from adaptive_rate_limiter.reservation import Reservation
from adaptive_rate_limiter.routing import Routes
from adaptive_rate_limiter.sharing import Shared
from adaptive_rate_limiter.views import Shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping

    from typing_extensions import Unpack

    from adaptive_rate_limiter.batch import BatchOptions
    from adaptive_rate_limiter.core.queue import Call
    from adaptive_rate_limiter.options import CallOptions, Eagerness, WorkOptions
    from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo

__all__ = ["Limiter"]

Item = TypeVar("Item")
Result = TypeVar("Result")

ARGUMENTS = (
    "backend", "namespace", "quotas", "max_wait", "max_pause", "max_concurrency", "weights", "clock",
    "headroom", "eager", "parse",
)  # fmt: skip


class Limiter(Shown, Shared):
    """Learns each provider's limits from its responses, and paces calls under them without being refused.

    One limiter may serve every model, framework, thread and event loop at once; it keeps a bucket for each
    (host, credential, model).

    `quotas`: limits that you know, as Quota objects, mappings of their fields, ``{"requests": 500, "tokens":
    30_000}`` per minute, or ``{model: any of these}``. What providers tell is learned beside them.
    `max_wait`: the longest that one call may stand in line, in seconds; None, the default, has no bound.
    `max_pause`: a bucket in which nothing at all can be sent for longer refuses its calls at once.
    `max_concurrency`: calls in flight per bucket. `weights`: shares of tenants, 1 unless given.
    `namespace`: limiters that share a backend and a namespace share buckets.
    `headroom`: the part of each limit that headers tell which is left unused, 0 unless given.
    `eager`: whether calls go as they come, until one is refused, where no reply tells a limit: "never", the
    default, has them come to the limit slowly enough to be refused seldom; "unseen" lets them go where replies
    are not even seen; "always".
    `parse`: reads responses, with the signature of `providers.parse_response`, which it is unless given.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(
        self,
        backend: BaseBackend | None = None,
        *,
        namespace: str = "default",
        quotas: Any = None,
        max_wait: float | None = None,
        max_pause: float = 300.0,
        max_concurrency: int | None = None,
        weights: Mapping[str, float] | None = None,
        clock: Clock | None = None,
        headroom: float = 0.0,
        eager: Eagerness = "never",
        parse: Callable[..., RateLimitInfo] = parse_response,
        **unknown: object,
    ) -> None:
        if unknown:
            raise unknown_argument("Limiter", unknown, ARGUMENTS)
        if backend is not None and not isinstance(backend, BaseBackend):
            raise ConfigurationError(f"backend must be a backend such as MemoryBackend(), got {backend!r}")
        if not isinstance(namespace, str):
            raise ConfigurationError(f"namespace must be a name, got {namespace!r}")
        self.namespace = namespace
        self.max_wait = None if max_wait is None else seconds("max_wait", max_wait)
        self.max_pause = seconds("max_pause", max_pause)
        self.clock: Clock = clock or SystemClock()
        self.parse = parse
        self.may_pass_unread = parse is parse_response  # who knows what somebody else's reading finds
        self._backend = backend or MemoryBackend()
        self.routes = Routes(self._backend, namespace, self._make)
        self._max_concurrency = check_concurrency(max_concurrency)
        self._weights = check_weights(weights)
        self._headroom = check_headroom(headroom)
        self._eager = check_eager(eager)
        self.learn = self._learn if self._headroom or eager == "unseen" else Bucket.observe
        self._quotas, self._quotas_of = quotas_by_model(quotas)

    # Acquire

    def acquire(
        self,
        model: str | None = None,
        tokens: float | None = None,
        *,
        route: Hashable = None,
        **options: Unpack[CallOptions],
    ) -> Reservation:
        """Wait for the right to make one call, in fair order.

        `tokens`: its size, input and output together; or `input_tokens` and `output_tokens`, `prompt` (text
        or messages, whose tokens are estimated) and `max_tokens` (the most that the answer may have).
        `tenant` and `priority` (higher first) order the line; `timeout` is the longest wait in seconds.
        `units`: what it takes of other units, such as ``{"images": 2}``. `estimated=True` says that the size
        is a guess; by itself, that it is the usual one of this bucket's calls. `route` tells apart calls of one
        model to several hosts before the first is sent.

        Raises CapacityExceededError, with `bucket_id` and `retry_after`, at once when the call is larger than
        the whole limit or would wait beyond `timeout`, `max_wait` or a pause longer than `max_pause`; and
        ConfigurationError naming the argument and its value.
        """
        reservation = self._reserve(model, tokens, route, options)
        if not reservation.bucket.submit(reservation.call, ThreadWaker):
            self._wait(reservation)
        return reservation

    async def aacquire(
        self,
        model: str | None = None,
        tokens: float | None = None,
        *,
        route: Hashable = None,
        **options: Unpack[CallOptions],
    ) -> Reservation:
        """`acquire` for coroutines, of any number of event loops at once."""
        reservation = self._reserve(model, tokens, route, options)
        del options  # ten thousand of them may wait
        if not reservation.bucket.submit(reservation.call, loop_waker):
            try:  # a context manager would be two more objects for each of ten thousand that wait
                await reservation.call.wake
            except BaseException:
                reservation.leave()
                raise
            reservation.let_in()
        return reservation

    def try_acquire(
        self,
        model: str | None = None,
        tokens: float | None = None,
        *,
        route: Hashable = None,
        **options: Unpack[CallOptions],
    ) -> Reservation | None:
        """A reservation if the call may go this instant, else None."""
        reservation = self._reserve(model, tokens, route, options)
        return reservation if reservation.bucket.step(Bucket.try_submit, reservation.call) else None

    def record(
        self,
        model: str | None = None,
        tokens: float | None = None,
        *,
        route: Hashable = None,
        **options: Unpack[CallOptions],
    ) -> Reservation:
        """Count a call that goes in any case: for watching an application without holding it back."""
        reservation = self._reserve(model, tokens, route, options)
        reservation.bucket.step(Bucket.record, reservation.call)
        return reservation

    def largest(self, model: str | None = None, unit: str = TOKENS) -> float:
        """The most of `unit` that one call of `model` may take under the limits known now; inf if none is."""
        return self.routes.bucket_for((model, None)).look(lambda core, _now: core.largest(unit))

    def tell(self, model: str | None, quotas: Iterable[QuotaReading]) -> None:
        """Limits of `model` that came to be known otherwise than by a response to one of its calls."""
        self.routes.bucket_for((model, None)).step(self._tell, tuple(quotas))

    def _tell(self, bucket: Bucket, quotas: tuple[QuotaReading, ...], now: float) -> None:
        ledger = bucket.ledger
        hold = ledger.reserve({}, now)  # a reading belongs to a place in the order of sends
        ledger.read(quotas, hold, now)
        ledger.cancel(hold, now)
        bucket.tally.compare(ledger.told, now)
        if ledger.gauges and not bucket.discovery.found:
            bucket.untold = False
        bucket.wake_at = now
        if self._headroom:
            keep_headroom(bucket, self._headroom, now)

    def _learn(self, bucket: Bucket, call: Call, info: RateLimitInfo, now: float) -> None:
        bucket.observe(call, info, now)
        if info.quotas and self._headroom:
            keep_headroom(bucket, self._headroom, now)
        elif (
            info.refusal is None and self._eager == "unseen" and isinstance(bucket.discovery, EagerDiscovery)
        ):
            bucket.discovery.eager = False  # replies are seen, and tell nothing

    def readmit(self, reservation: Reservation) -> None:
        """Admit another attempt of the same call; it keeps its place by age."""
        self._renew(reservation)
        if not reservation.bucket.submit(reservation.call, ThreadWaker):
            self._wait(reservation)

    async def areadmit(self, reservation: Reservation) -> None:
        """`readmit` for coroutines."""
        self._renew(reservation)
        if not reservation.bucket.submit(reservation.call, loop_waker):
            try:
                await reservation.call.wake
            except BaseException:
                reservation.leave()
                raise
            reservation.let_in()

    def _wait(self, reservation: Reservation) -> None:
        try:
            reservation.call.wake.wait()
        except BaseException:
            reservation.leave()
            raise
        reservation.let_in()

    def _renew(self, reservation: Reservation) -> None:
        old = reservation.call
        refusal = reservation.refusal
        if refusal is not None and not refusal.retryable:
            raise CapacityExceededError(
                f"{reservation.bucket_id} refused this call for good: {refusal.kind.value}",
                reservation.bucket_id,
                refusal.retry_after,
            )
        if old.admitted:  # whatever became of the last attempt: it ends before the next is admitted
            reservation.bucket.lapse(old)
        reservation.renew(old.again())

    # Many calls

    def map(
        self, func: Callable[[Item], Result], items: Iterable[Item], **options: Unpack[BatchOptions]
    ) -> Batch[Item, Result]:
        """`func(item)` for each item, with as many under way as the limits can use; see `Batch` for how to run it.

        `func` makes its calls as ever: through a model or a client that has this limiter, or with `acquire`. What
        it raises is kept as that item's outcome. `concurrency`: items under way at once, if it is to be fixed.
        `progress`: a bar of tqdm; None, the default, if somebody looks and tqdm is installed. `earlier`: a batch of
        the same items, or its outcomes: an item that has a value there is not run again.
        """
        return Batch(self, func, items, **options)

    def amap(
        self,
        func: Callable[[Item], Awaitable[Result]],
        items: Iterable[Item],
        **options: Unpack[BatchOptions],
    ) -> AsyncBatch[Item, Result]:
        """`map` for coroutine functions."""
        return AsyncBatch(self, func, items, **options)

    # From a model to its bucket

    def _reserve(
        self, model: str | None, tokens: float | None, route: Hashable, options: CallOptions
    ) -> Reservation:
        key = (model, route)
        try:
            bucket = self.routes.at_hand[key]
        except (KeyError, TypeError):
            bucket = self.routes.bucket_for(key)
        call = call_from(bucket.bucket, self.clock.now(), self.max_wait, model, tokens, **options)
        return Reservation(self, bucket, call, key)

    def _make(self, bucket_id: str, model: str | None) -> LockedBucket:
        quotas = self._quotas_of.get(model or "*", self._quotas)
        bucket = Bucket(bucket_id, quotas, self.clock.now(), self.max_pause, self._max_concurrency)
        bucket.queue.weights.update(self._weights)
        if self._eager != "never":
            bucket.discovery = EagerDiscovery()
        return LockedBucket(bucket, self.clock, model)

    # Reports

    def snapshot(self) -> LimiterSnapshot:
        """All buckets: their limits and where they were learned, what is left, who waits, what was refused."""
        return LimiterSnapshot(tuple(bucket.look(snapshot_bucket) for bucket in self.routes.buckets()))

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return sum(bucket.bucket.queue.count for bucket in self.routes.buckets())

    def explain(self, model: str | None = None, *, most: int = 20) -> list[str]:
        """One sentence for each call that waits, at most `most` a bucket: which limit, what is missing, when."""
        return [
            sentence
            for bucket in self.routes.buckets(model)
            for sentence in bucket.look(lambda core, now: explain_bucket(core, now, most))
        ]

    def forecast(self, *, model: str | None = None, **amounts: Unpack[WorkOptions]) -> Forecast:
        """How long so much more work takes, after what waits now, and which limit binds.

        `requests` and `tokens` of all calls together. Where input and output are limited apart, as by Anthropic,
        `input_tokens` and `output_tokens` say how they divide; else all tokens count as input, as in `acquire`.
        Without arguments: how long what waits now will take.
        """
        work = work_from(**amounts)
        found = self.routes.buckets(model) or [self.routes.unused(model)]
        forecasts = [bucket.look(lambda core, now: forecast_bucket(core, work, now)) for bucket in found]
        return max(
            forecasts, key=lambda forecast: -math.inf if forecast.seconds is None else forecast.seconds
        )

    def elsewhere(self) -> partial[Limiter]:
        """Its settings, and its backend unless that is in memory."""
        return partial(
            Limiter,
            None if type(self._backend) is MemoryBackend else self._backend,
            namespace=self.namespace,
            quotas=self._quotas_of or self._quotas or None,
            max_wait=self.max_wait,
            max_pause=self.max_pause,
            max_concurrency=self._max_concurrency,
            weights=self._weights or None,
            headroom=self._headroom,
            eager=self._eager,
            parse=self.parse,
        )
