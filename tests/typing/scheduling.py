"""Never run, only type-checked: a user's own code around a scheduler, with every public name that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import adaptive_rate_limiter as arl
from adaptive_rate_limiter import (
    AUDIO,
    EMBEDDING,
    GENERIC,
    IMAGE,
    RESOURCE_TYPES,
    TEXT,
    ClassifierProtocol,
    ClientProtocol,
    DiscoveredBucket,
    ProviderInterface,
    RateLimitInfo,
    RequestMetadata,
    ReservationContext,
    ReservationTracker,
    ResourceType,
    StreamingResponseProtocol,
)
from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend, RedisBackend
from adaptive_rate_limiter.scheduler import (
    CachePolicy,
    RateLimiterConfig,
    Scheduler,
    SchedulerMode,
    StateConfig,
    create_scheduler,
)
from adaptive_rate_limiter.streaming import (
    RateLimitedAsyncIterator,
    StreamingReservationContext,
    is_stream,
    wrap,
)

KINDS: frozenset[str] = frozenset([TEXT, IMAGE, AUDIO, EMBEDDING, GENERIC])
own_kind: ResourceType = "video"


class Client:
    """Any class with these three is one."""

    base_url = "https://api.example.com"
    timeout = 30.0

    def get_headers(self) -> dict[str, str]:
        return {}


class Derived(ClientProtocol):
    @property
    def base_url(self) -> str:
        return "https://api.example.com"

    @property
    def timeout(self) -> float:
        return 30.0

    def get_headers(self) -> dict[str, str]:
        return {}


class Provider(ProviderInterface):
    @property
    def name(self) -> str:
        return "my-provider"

    async def discover_limits(
        self, force_refresh: bool = False, timeout: float = 30.0
    ) -> dict[str, DiscoveredBucket]:
        return {"shared": DiscoveredBucket(bucket_id="shared", rpm_limit=100, tpm_limit=100_000)}

    def parse_rate_limit_response(
        self, headers: dict[str, str], body: dict[str, Any] | None = None, status_code: int | None = None
    ) -> RateLimitInfo:
        return RateLimitInfo(rpm_limit=int(headers.get("x-limit", 0)), is_rate_limited=status_code == 429)

    async def get_bucket_for_model(self, model_id: str, resource_type: str | None = None) -> str:
        return "shared"


class Classifier:
    async def classify(self, request: dict[str, Any]) -> RequestMetadata:
        return RequestMetadata("r", str(request["model"]), TEXT, estimated_tokens=100, client_id="gold")


class Wrapped:
    """A response that holds its stream."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self.chunks = chunks

    def get_iterator(self) -> AsyncIterator[Any]:
        return self.chunks

    def set_iterator(self, iterator: AsyncIterator[Any]) -> None:
        self.chunks = iterator


client: ClientProtocol = Client()
classifier: ClassifierProtocol = Classifier()
config: RateLimiterConfig = RateLimiterConfig(
    mode=SchedulerMode.BASIC, max_concurrent_executions=10, overflow_policy="drop_oldest", max_retries=1
)
state: StateConfig = StateConfig(cache_policy=CachePolicy.WRITE_THROUGH, namespace="app", is_production=True)
shared: BaseBackend = RedisBackend("redis://localhost", namespace="app", on_outage="degrade", weight=2.0)


async def submit() -> str:
    scheduler: Scheduler = create_scheduler(
        Derived(), "intelligent", config, Provider(), classifier, MemoryBackend(), state
    )

    async def call() -> dict[str, Any]:
        return {"answer": 42}

    async with scheduler:
        metadata = RequestMetadata("req-1", "gpt-4o", TEXT, priority=1, timeout=5.0)
        reply = await scheduler.submit_request(metadata, call)
        other = await scheduler.submit_request({"model": "gpt-4o"}, call)
        running: bool = scheduler.is_running()
        metrics: dict[str, Any] = scheduler.get_metrics()
    return f"{reply} {other} {running} {metrics} {RESOURCE_TYPES | KINDS} {own_kind}"


async def start_by_hand() -> None:
    scheduler = Scheduler(client, weights={"gold": 3.0}, quotas={"requests": 500}, backend=shared)
    await scheduler.start()
    await scheduler.stop()


async def track() -> int:
    forgotten: list[ReservationContext] = []
    tracker = ReservationTracker(max_reservations=100, on_stale=forgotten.append)
    await tracker.store("req-1", "gpt-4o", reservation_id="res-1", estimated_tokens=1000)
    found: ReservationContext | None = await tracker.get_and_clear("req-1", "gpt-4o")
    return found.estimated_tokens if found is not None else tracker.reservation_count


async def stream(chunks: AsyncIterator[str]) -> list[str]:
    context: StreamingReservationContext = StreamingReservationContext("res-1", "gpt-4o", "req-1", 1000)
    response: StreamingResponseProtocol = Wrapped(chunks)
    limited: RateLimitedAsyncIterator[str] = RateLimitedAsyncIterator(chunks, context)
    if is_stream(response):
        wrap(response, context)
    received = [chunk async for chunk in limited]
    await limited.aclose()
    tokens: int | None = limited.context.final_tokens
    return [*received, str(tokens)]


async def failures() -> float | None:
    try:
        await submit()
    except arl.QueueOverflowError as error:
        key: str | None = error.queue_key
        print(key)
    except arl.TooManyFailedRequestsError as error:
        count: int | None = error.failure_count
        print(count, error.window_seconds, error.threshold)
    except arl.BucketNotFoundError as error:
        print(error.bucket_id)
    except (TimeoutError, arl.RequestTimeoutError):
        return 0.0
    except arl.CapacityExceededError as error:
        return error.retry_after
    return None


def misuse() -> None:
    create_scheduler(object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    RateLimiterConfig(max_retries="3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    RedisBackend(on_outage="wait")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
