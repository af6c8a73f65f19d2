"""Never run, only type-checked: what a user's own code looks like, with every public name."""

from __future__ import annotations

import adaptive_rate_limiter as arl
from adaptive_rate_limiter import (
    AsyncBatch,
    BaseBackend,
    Batch,
    BucketSnapshot,
    CapacityExceededError,
    Forecast,
    Limiter,
    LimiterSnapshot,
    LimitSnapshot,
    MemoryBackend,
    Outcome,
    Quota,
    QuotaReading,
    RateLimiterError,
    RateLimitInfo,
    Refusal,
    RefusalKind,
    Reservation,
)
from adaptive_rate_limiter.batch import BatchOptions
from adaptive_rate_limiter.testing import FakeClock

clock: FakeClock = FakeClock(start=5.0)
backend: BaseBackend = MemoryBackend()
limiter: Limiter = Limiter()
limiter = Limiter(
    backend,
    namespace="team",
    quotas={"requests": 500, "tokens": 30_000},
    max_wait=600,
    max_pause=60.0,
    max_concurrency=8,
    weights={"gold": 3},
    clock=clock,
)
Limiter(quotas=Quota("requests", 500, window=60.0, algorithm="sliding_window", burst=None))
Limiter(quotas=[{"unit": "requests", "limit": 500}])


def sync() -> str:
    with limiter.acquire("gpt-4o", 812) as reservation:
        info: RateLimitInfo = reservation.observe(
            200, {"x-ratelimit-limit-requests": "500"}, None, url="https://x"
        )
        first: bool = reservation.settle(input_tokens=800, output_tokens=12, cached_tokens=700)
    with limiter.acquire(
        model="gpt-4o",
        input_tokens=800,
        output_tokens=12,
        max_tokens=100,
        prompt=[{"role": "user", "content": "Hello"}],
        units={"images": 2},
        tenant="gold",
        priority=1,
        timeout=5.0,
        estimated=True,
        route=("api.openai.com", "chat"),
    ) as reservation:
        reservation.settle(tokens=812)
    waited: float = reservation.waited
    reason: str | None = reservation.wait_reason
    return f"{info} {first} {waited:.3f} {reason} {reservation.bucket_id}"


async def asynchronous() -> None:
    reservation: Reservation = await limiter.aacquire("gpt-4o", 812, timeout=None)
    async with reservation as same:
        await same.areadmit()
        same.cancel()
        same.lapse()
    maybe: Reservation | None = limiter.try_acquire("gpt-4o", tokens=812)
    if maybe is not None:
        maybe.settle(tokens=800)
    limiter.record("gpt-4o", prompt="Hello").lapse()


def many() -> list[int]:
    batch: Batch[str, int] = limiter.map(len, ["a", "b"], concurrency=4, progress=False)
    outcome: Outcome[str, int]
    for outcome in batch.as_completed():
        print(outcome.index, outcome.item, outcome.value, outcome.error, outcome.seconds, outcome.ok)
    options: BatchOptions = {"earlier": batch, "progress": None}
    again: Batch[str, int] = limiter.map(len, ["a", "b"], **options)
    with limiter.watch(every=1.0), limiter.history as history:
        print(again.run().failed, again.missing, history.plot("gpt-4o"), history.marks()[0].text)
    return batch.results()


async def many_at_once() -> None:
    async def ask(prompt: str) -> float:
        return float(prompt)

    batch: AsyncBatch[str, float] = limiter.amap(ask, ["1", "2"])
    async with limiter.watch():
        values: list[float] = (await batch).results()
    async for outcome in batch:
        print(outcome.result(), values)


def misuse() -> None:
    limiter.map(len, [1, 2])  # type: ignore[arg-type]
    limiter.acquire("gpt-4o", token=812)  # type: ignore[call-arg]
    limiter.acquire("gpt-4o", tokens="812")  # type: ignore[arg-type]
    limiter.acquire("gpt-4o", timeout="soon")  # type: ignore[arg-type]
    Limiter("redis://localhost")  # type: ignore[arg-type]
    Limiter(max_pause=None)  # type: ignore[arg-type]


def refusals(reservation: Reservation) -> float | None:
    try:
        reservation.readmit()
    except CapacityExceededError as error:
        bucket: str | None = error.bucket_id
        print(bucket)
        return error.retry_after
    except RateLimiterError:
        raise
    refusal: Refusal | None = reservation.refusal
    if refusal is not None and refusal.kind is RefusalKind.RATE_LIMIT and refusal.retryable:
        return refusal.retry_after
    return None


def reports() -> list[str]:
    snapshot: LimiterSnapshot = limiter.snapshot()
    buckets: tuple[BucketSnapshot, ...] = snapshot.buckets
    limits: tuple[LimitSnapshot, ...] = buckets[0].limits
    share: float = buckets[0].account.share
    forecast: Forecast = limiter.forecast(requests=2000, tokens=1_000_000, model="gpt-4o")
    apart: Forecast = limiter.forecast(input_tokens=9_000, output_tokens=500)
    largest: float = limiter.largest("gpt-4o", "tokens")
    told = f"{forecast} {apart} {forecast.seconds} {forecast.binds} {limits[0].remaining} {share} {largest} {snapshot.waiting}"
    return [told, *limiter.explain("gpt-4o", most=5)]


def errors() -> tuple[type[RateLimiterError], ...]:
    return (
        arl.BackendConnectionError,
        arl.BackendOperationError,
        arl.BucketNotFoundError,
        arl.CapacityExceededError,
        arl.ConfigurationError,
        arl.QueueOverflowError,
        arl.ReservationCapacityError,
        arl.TooManyFailedRequestsError,
    )


def readings(info: RateLimitInfo) -> list[tuple[str, float | None, float | None]]:
    quotas: tuple[QuotaReading, ...] = info.quotas
    return [(quota.unit, quota.remaining, quota.reset_after) for quota in quotas]


def fake_time() -> float | None:
    timer = clock.call_at(10.0, lambda: print("ten"))
    timer.cancel()
    clock.advance(5)
    return clock.next_due()
