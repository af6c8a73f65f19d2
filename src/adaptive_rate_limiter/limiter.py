"""The front door: one limiter for every model, framework, thread and event loop of a process."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Hashable, Mapping
from typing import Any
from urllib.parse import urlsplit

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.locked import LockedBucket, LoopWaker, ThreadWaker
from adaptive_rate_limiter.backends.memory import MemoryBackend
from adaptive_rate_limiter.clock import Clock, SystemClock
from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import charging_for
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Quota, quotas_from
from adaptive_rate_limiter.exceptions import CapacityExceededError, ConfigurationError
from adaptive_rate_limiter.report import (
    Forecast,
    LimiterSnapshot,
    explain_bucket,
    forecast_bucket,
    snapshot_bucket,
)
from adaptive_rate_limiter.reservation import Reservation

__all__ = ["Limiter"]

logger = logging.getLogger(__name__)

LONG_LINE = 10.0  # seconds: a line longer than this is announced in the log once, when it forms


class Limiter:
    """Learns each provider's limits from its responses, and paces calls under them without being refused.

    One limiter may serve every model, framework, thread and event loop at once; it keeps a bucket for each
    (host, credential, model).

    `quotas`: limits that you know, as Quota objects, mappings of their fields, ``{"requests": 500, "tokens":
    30_000}`` per minute, or ``{model: any of these}``. What providers tell is learned beside them.
    `max_wait`: the longest that one call may stand in line, in seconds; None, the default, has no bound.
    `max_pause`: a bucket in which nothing at all can be sent for longer refuses its calls at once.
    `max_concurrency`: calls in flight per bucket. `weights`: shares of tenants, 1 unless given.

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
        **unknown: object,
    ) -> None:
        if unknown:
            name, value = next(iter(unknown.items()))
            raise ConfigurationError(
                f"Limiter has no argument {name!r} (given {value!r}); it has backend, namespace, quotas, "
                "max_wait, max_pause, max_concurrency, weights, clock"
            )
        if backend is not None and not isinstance(backend, BaseBackend):
            raise ConfigurationError(f"backend must be a backend such as MemoryBackend(), got {backend!r}")
        _not_negative("max_wait", max_wait)
        _not_negative("max_pause", max_pause)
        if max_concurrency is not None and (isinstance(max_concurrency, bool) or not max_concurrency >= 1):
            raise ConfigurationError(f"max_concurrency must be at least 1, got {max_concurrency!r}")
        for tenant, weight in (weights or {}).items():
            if not 0 < weight < math.inf:
                raise ConfigurationError(f"weights[{tenant!r}] must be a positive number, got {weight!r}")
        self.namespace = namespace
        self.max_wait = max_wait
        self.max_pause = max_pause
        self.clock: Clock = clock or SystemClock()
        self._backend = backend or MemoryBackend()
        self._max_concurrency = max_concurrency
        self._weights = dict(weights or {})
        self._quotas, self._quotas_of = _by_model(quotas)
        self._origins: dict[Hashable, tuple[str, str]] = {}  # route -> host and credential it last went to
        self._at_hand: dict[Hashable, LockedBucket] = {}

    # Acquire

    def acquire(self, model: str | None = None, tokens: float | None = None, **options: Any) -> Reservation:
        """Wait for the right to make one call, in fair order.

        `tokens`: its size, input and output together; or `input_tokens` and `output_tokens`, `prompt` (text
        or messages, whose tokens are estimated) and `max_tokens` (the most that the answer may have).
        `tenant` and `priority` (higher first) order the line; `timeout` is the longest wait in seconds.
        `units`: what it takes of other units, such as ``{"images": 2}``. `estimated=True` says that the size
        is a guess. `route` tells apart calls of one model to several hosts before the first is sent.

        Raises CapacityExceededError, with `bucket_id` and `retry_after`, at once when the call is larger than
        the whole limit or would wait beyond `timeout`, `max_wait` or a pause longer than `max_pause`.
        """
        reservation = self._reserve(model, tokens, **options)
        if not reservation.bucket.submit(reservation.call, ThreadWaker):
            self._wait(reservation)
        return reservation

    async def aacquire(
        self, model: str | None = None, tokens: float | None = None, **options: Any
    ) -> Reservation:
        """`acquire` for coroutines, of any number of event loops at once."""
        reservation = self._reserve(model, tokens, **options)
        if not reservation.bucket.submit(reservation.call, LoopWaker):
            await self._await(reservation)
        return reservation

    def try_acquire(
        self, model: str | None = None, tokens: float | None = None, **options: Any
    ) -> Reservation | None:
        """A reservation if the call may go this instant, else None."""
        reservation = self._reserve(model, tokens, **options)
        admitted = reservation.bucket.step(lambda bucket, now: bucket.try_submit(reservation.call, now))
        return reservation if admitted else None

    def record(self, model: str | None = None, tokens: float | None = None, **options: Any) -> Reservation:
        """Count a call that goes in any case: for watching an application without holding it back."""
        reservation = self._reserve(model, tokens, **options)
        reservation.bucket.step(lambda bucket, now: bucket.record(reservation.call, now))
        return reservation

    def largest(self, model: str | None = None, unit: str = TOKENS) -> float:
        """The most of `unit` that one call of `model` may take under the limits known now; inf if none is."""
        bucket = self._at_hand.get((model, None)) or self._bucket_at((model, None), model)
        return bucket.look(lambda core, _now: core.largest(unit))

    def readmit(self, reservation: Reservation) -> None:
        """Admit another attempt of the same call; it keeps its place by age."""
        self._renew(reservation)
        if not reservation.bucket.submit(reservation.call, ThreadWaker):
            self._wait(reservation)

    async def areadmit(self, reservation: Reservation) -> None:
        self._renew(reservation)
        if not reservation.bucket.submit(reservation.call, LoopWaker):
            await self._await(reservation)

    def _wait(self, reservation: Reservation) -> None:
        call = reservation.call
        self._announce_line(reservation)
        started = self.clock.now()
        try:
            call.wake.wait()
        except BaseException:
            self._leave(reservation)
            raise
        self._arrive(reservation, started)

    async def _await(self, reservation: Reservation) -> None:
        call = reservation.call
        self._announce_line(reservation)
        started = self.clock.now()
        try:
            await call.wake.future
        except BaseException:
            self._leave(reservation)
            raise
        self._arrive(reservation, started)

    def _leave(self, reservation: Reservation) -> None:
        """The caller gave up: out of the line, or, if it was just admitted, everything given back."""
        call = reservation.call
        reservation.closed = True

        def leave(bucket: Bucket, now: float) -> None:
            bucket.withdraw(call)
            bucket.cancel(call, now)

        reservation.bucket.step(leave)

    def _arrive(self, reservation: Reservation, started: float) -> None:
        call = reservation.call
        call.wake = None
        reservation.waited += self.clock.now() - started
        reservation.wait_reason = call.reason
        if call.error is not None:
            reservation.closed = True
            raise call.error

    def _announce_line(self, reservation: Reservation) -> None:
        """Say once, when a long line forms, how long it is: nobody waits for hours in silence."""
        bucket = reservation.bucket
        if bucket.announced or not logger.isEnabledFor(logging.INFO):
            return
        waiting, seconds, limit = bucket.look(
            lambda core, now: (core.queue.count, core.eta({}, now) - now, core.wait and core.wait.limit)
        )
        if seconds > LONG_LINE:
            bucket.announced = True
            logger.info(
                "%s: %d calls wait for %s; the last goes in about %.0f s",
                reservation.bucket_id, waiting, limit, seconds,
            )  # fmt: skip

    # From a description to a call in a bucket

    def _reserve(
        self,
        model: str | None,
        tokens: float | None,
        *,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        max_tokens: float | None = None,
        prompt: Any = None,
        units: Mapping[str, float] | None = None,
        tenant: str = "",
        priority: float = 0,
        timeout: float | None = None,
        estimated: bool = False,
        route: Hashable = None,
    ) -> Reservation:
        key = (model, route)
        bucket = self._at_hand.get(key) or self._bucket_at(key, model)
        now = self.clock.now()
        if timeout is not None or self.max_wait is not None:
            _not_negative("timeout", timeout)
            deadline = now + min(
                math.inf if timeout is None else timeout, math.inf if self.max_wait is None else self.max_wait
            )
        else:
            deadline = None
        guessed = 0.0
        core = bucket.bucket
        if tokens is not None:
            _not_negative("tokens", tokens)
            cost = {REQUESTS: 1.0, TOKENS: float(tokens)}
            cost[INPUT_TOKENS] = tokens if input_tokens is None else input_tokens
            cost[OUTPUT_TOKENS] = 0.0 if output_tokens is None else output_tokens
        else:
            guessed = guess_tokens(prompt, model) if prompt is not None else 0.0
            estimated = estimated or prompt is not None
            _not_negative("input_tokens", input_tokens)
            _not_negative("output_tokens", output_tokens)
            _not_negative("max_tokens", max_tokens)
            if input_tokens is None:
                input_tokens = core.estimator.input_tokens(guessed) if guessed else 0.0
            elif estimated:
                guessed, input_tokens = input_tokens, core.estimator.input_tokens(input_tokens)
            if output_tokens is None:
                known = input_tokens or max_tokens is not None
                output_tokens = core.estimator.output_tokens(max_tokens) if known else 0.0
                estimated = estimated or max_tokens is None
            cost = dict(core.charging.hold(input_tokens, output_tokens, max_tokens))
        if units:
            for unit, amount in units.items():
                _not_negative(f"units[{unit!r}]", amount)
                cost[unit] = amount
        call = Call(
            cost, since=now, tenant=tenant, priority=priority, deadline=deadline, certain=not estimated,
            guessed=guessed, max_tokens=max_tokens,
        )  # fmt: skip
        return Reservation(self, bucket, call, model)

    def _bucket_at(self, key: tuple[str | None, Hashable], model: str | None) -> LockedBucket:
        origin = self._origins.get(key)
        bucket = self._bucket(model, origin)
        if len(self._at_hand) < MOST_ROUTES:
            self._at_hand[key] = bucket
        return bucket

    def _bucket(self, model: str | None, origin: tuple[str, str] | None) -> LockedBucket:
        name = model or "*"
        bucket_id = f"{self.namespace}/{name}"
        if origin is not None:
            bucket_id += f"@{origin[0]}" + (f"#{origin[1]}" if origin[1] else "")
        return self._backend.bucket(bucket_id, lambda: self._make(bucket_id, name))

    def _make(self, bucket_id: str, model: str) -> LockedBucket:
        quotas = self._quotas_of.get(model, self._quotas)
        bucket = Bucket(bucket_id, quotas, self.clock.now(), self.max_pause, self._max_concurrency)
        bucket.queue.weights.update(self._weights)
        return LockedBucket(bucket, self.clock)

    def _renew(self, reservation: Reservation) -> None:
        old = reservation.call
        if reservation.refusal is not None and not reservation.refusal.retryable:
            raise CapacityExceededError(
                f"{reservation.bucket_id} refused this call for good: {reservation.refusal.kind.value}",
                reservation.bucket_id,
            )
        if old.hold is not None:  # whatever became of the last attempt: it ends before the next is admitted
            reservation.bucket.step(lambda bucket, _now: bucket.lapse(old))
        reservation.call = old.again()
        reservation.closed = False

    def rehome(self, reservation: Reservation, url: str, credential: str | None) -> bool:
        """Tie the reservation to the host and credential that its request goes to.

        The first request of a model decides where its bucket belongs; one to another host or with another
        key moves to the bucket of that. True if it moved, and has to be admitted there.
        """
        host = urlsplit(url).netloc.rpartition("@")[2]
        origin = (host, self._hashed(credential))
        bucket = reservation.bucket
        if bucket.origin is None:
            bucket.origin = origin
            bucket.step(lambda core, _now: core.charge_like(charging_for(url)))
        if bucket.origin == origin:
            return False
        home = self._bucket(reservation.model, origin)
        if home.origin is None:
            home.origin = origin
            home.step(lambda core, _now: core.charge_like(charging_for(url)))
        call = reservation.call
        bucket.step(lambda core, now: core.cancel(call, now))
        reservation.bucket = home
        return True

    def _hashed(self, credential: str | None) -> str:
        """A credential leaves this function only as a short keyed hash."""
        if not credential:
            return ""
        key = hashlib.blake2b(self.namespace.encode(errors="replace")).digest()
        return hashlib.blake2b(credential.encode(errors="replace"), key=key, digest_size=4).hexdigest()

    # Reports

    def snapshot(self) -> LimiterSnapshot:
        """All buckets: their limits and where they were learned, what is left, who waits, what was refused."""
        return LimiterSnapshot(tuple(bucket.look(snapshot_bucket) for bucket in self._mine()))

    def explain(self, model: str | None = None, *, most: int = 20) -> list[str]:
        """One sentence for each call that waits, at most `most` a bucket: which limit, what is missing, when."""
        return [
            sentence
            for bucket in self._mine()
            if model is None or bucket.bucket.bucket_id.split("/", 1)[1].split("@")[0] == model
            for sentence in bucket.look(lambda core, now: explain_bucket(core, now, most))
        ]

    def forecast(
        self, *, requests: float | None = None, tokens: float | None = None, model: str | None = None
    ) -> Forecast:
        """How long so much work takes under the limits known now, and which of them binds."""
        _not_negative("requests", requests)
        _not_negative("tokens", tokens)
        work = {REQUESTS: float(requests or 0), TOKENS: float(tokens or 0)}
        found = [
            bucket
            for bucket in self._mine()
            if model is None or bucket.bucket.bucket_id.split("/", 1)[1].split("@")[0] == model
        ] or [self._bucket(model, None)]
        forecasts = [bucket.look(lambda core, now: forecast_bucket(core, work, now)) for bucket in found]
        return max(forecasts, key=lambda forecast: forecast.seconds or 0.0)

    def _mine(self) -> list[LockedBucket]:
        return self._backend.buckets(f"{self.namespace}/")


MOST_ROUTES = 10_000  # of the lookups kept at hand; beyond, each takes a microsecond longer


def _by_model(quotas: Any) -> tuple[tuple[Quota, ...], dict[str, tuple[Quota, ...]]]:
    """Quotas of every model, and of models by name."""
    if isinstance(quotas, Mapping) and quotas and all(_is_quotas(value) for value in quotas.values()):
        return (), {model: quotas_from(given) for model, given in quotas.items()}
    return quotas_from(quotas), {}


def _is_quotas(value: object) -> bool:
    return isinstance(value, (Quota, Mapping, list, tuple))


def _not_negative(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{name} must be a finite number of at least 0, got {value!r}")
