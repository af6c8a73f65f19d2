"""Every name and call that is promised works as it is written there."""

import inspect
from typing import Any

import pytest

import adaptive_rate_limiter
from adaptive_rate_limiter import (
    TEXT,
    ClassifierProtocol,
    ClientProtocol,
    DiscoveredBucket,
    ProviderInterface,
    RateLimitInfo,
    RequestMetadata,
    StreamingResponseProtocol,
    backends,
)
from adaptive_rate_limiter import scheduler as scheduler_module
from adaptive_rate_limiter.backends import MemoryBackend
from adaptive_rate_limiter.scheduler import (
    CachePolicy,
    RateLimiterConfig,
    Scheduler,
    SchedulerMode,
    StateConfig,
    create_scheduler,
)

MAIN = (
    "RateLimiterError",
    "CapacityExceededError",
    "BucketNotFoundError",
    "ReservationCapacityError",
    "BackendConnectionError",
    "BackendOperationError",
    "ConfigurationError",
    "QueueOverflowError",
    "TooManyFailedRequestsError",
    "ClientProtocol",
    "ClassifierProtocol",
    "RequestMetadata",
    "StreamingResponseProtocol",
    "ProviderInterface",
    "DiscoveredBucket",
    "RateLimitInfo",
    "ReservationContext",
    "ReservationTracker",
    "ResourceType",
    "RESOURCE_TYPES",
    "TEXT",
    "IMAGE",
    "AUDIO",
    "EMBEDDING",
    "GENERIC",
    "StreamingReservationContext",
    "RateLimitedAsyncIterator",
)


@pytest.mark.parametrize("name", MAIN)
def test_the_package_has(name):
    assert name in adaptive_rate_limiter.__all__
    assert getattr(adaptive_rate_limiter, name)


@pytest.mark.parametrize(
    "name",
    ["Scheduler", "create_scheduler", "RateLimiterConfig", "StateConfig", "SchedulerMode", "CachePolicy"],
)
def test_the_scheduler_package_has(name):
    assert name in scheduler_module.__all__


@pytest.mark.parametrize("name", ["BaseBackend", "MemoryBackend"])
def test_the_backends_package_has(name):
    assert name in backends.__all__


def test_resource_types():
    names = ("text", "image", "audio", "embedding", "generic")
    assert set(names) == adaptive_rate_limiter.RESOURCE_TYPES
    assert [getattr(adaptive_rate_limiter, name.upper()) for name in names] == list(names)
    RequestMetadata(request_id="r", model_id="m", resource_type="custom-resource")


def test_every_error_is_a_rate_limiter_error():
    errors = [getattr(adaptive_rate_limiter, name) for name in MAIN if name.endswith("Error")]
    assert all(issubclass(error, adaptive_rate_limiter.RateLimiterError) for error in errors)
    assert issubclass(adaptive_rate_limiter.ConfigurationError, ValueError)


def test_defaults():
    config = RateLimiterConfig()
    assert (config.max_concurrent_executions, config.max_queue_size) == (100, 1000)
    assert (config.request_timeout, config.rate_limit_buffer_ratio) == (30.0, 0.9)
    assert config.mode is SchedulerMode.INTELLIGENT
    assert [policy.value for policy in CachePolicy] == ["write_through", "write_back", "write_around"]
    state = StateConfig()
    assert (state.cache_policy, state.namespace) == (CachePolicy.WRITE_THROUGH, "default")
    assert StateConfig(cache_policy=CachePolicy.WRITE_THROUGH, namespace="my-app", is_production=True)


class Shaped:
    """What each protocol asks for, and derived from none of them."""

    base_url, timeout = "https://api.example.com", 30.0

    def get_headers(self): ...
    async def classify(self, request): ...
    def get_iterator(self): ...
    def set_iterator(self, iterator): ...


@pytest.mark.parametrize("protocol", [ClientProtocol, ClassifierProtocol, StreamingResponseProtocol])
def test_protocols_are_told_by_their_shape(protocol):
    assert isinstance(Shaped(), protocol)
    assert not isinstance(object(), protocol)


class MyClient(ClientProtocol):
    @property
    def base_url(self) -> str:
        return "https://api.example.com"

    @property
    def timeout(self) -> float:
        return 30.0

    def get_headers(self) -> dict:
        return {"Authorization": "Bearer ..."}


class MyProvider(ProviderInterface):
    """As a user would write one: what a header does not tell comes out as 0."""

    @property
    def name(self) -> str:
        return "my-provider"

    async def discover_limits(
        self, force_refresh: bool = False, timeout: float = 30.0
    ) -> dict[str, DiscoveredBucket]:
        return {"default": DiscoveredBucket(bucket_id="default", rpm_limit=100, tpm_limit=100000)}

    def parse_rate_limit_response(
        self, headers: dict[str, str], body: dict[str, Any] | None = None, status_code: int | None = None
    ) -> RateLimitInfo:
        return RateLimitInfo(
            rpm_remaining=int(headers.get("x-ratelimit-remaining-requests", 0)),
            rpm_limit=int(headers.get("x-ratelimit-limit-requests", 0)),
            tpm_remaining=int(headers.get("x-ratelimit-remaining-tokens", 0)),
            tpm_limit=int(headers.get("x-ratelimit-limit-tokens", 0)),
            is_rate_limited=(status_code == 429),
        )

    async def get_bucket_for_model(self, model_id: str, resource_type: str | None = None) -> str:
        return "default"


OPTIONS = {
    "client only": {},
    "provider": {"provider": MyProvider()},
    "backend": {"backend": MemoryBackend()},
    "state_config": {"state_config": StateConfig(namespace="my-app")},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_submit_request_returns_what_the_function_returned(mode, options):
    scheduler = create_scheduler(
        client=MyClient(),
        mode=mode,
        config=RateLimiterConfig(max_concurrent_executions=100, max_queue_size=1000),
        **options,
    )
    metadata = RequestMetadata(
        request_id="req-12345", model_id="venice-uncensored", resource_type=TEXT, estimated_tokens=1000
    )
    answer = object()

    async def my_api_call():
        return answer

    async with scheduler:
        assert await scheduler.submit_request(metadata=metadata, request_func=my_api_call) is answer
        assert await scheduler.submit_request(metadata, my_api_call) is answer


async def test_a_stream_is_read_in_a_generator(mode):
    scheduler = create_scheduler(client=MyClient(), mode=mode)

    async def my_streaming_api_call():
        async def stream():
            for number in range(3):
                yield number

        return stream()

    async def stream_request():
        async with scheduler:
            metadata = RequestMetadata(
                request_id="stream-12345", model_id="m", resource_type=TEXT, estimated_tokens=1000
            )
            stream = await scheduler.submit_request(metadata=metadata, request_func=my_streaming_api_call)
            async for chunk in stream:
                yield chunk

    assert [chunk async for chunk in stream_request()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "found"),
    [("basic", "basic"), ("ACCOUNT", "account"), (SchedulerMode.BASIC, "basic"), (None, "intelligent")],
)
def test_a_mode_by_name_or_by_itself(client, given, found):
    config = RateLimiterConfig()
    made = create_scheduler(client, given, config)
    assert isinstance(made, Scheduler)
    assert made.config.mode.value == found
    assert config == RateLimiterConfig()


def test_factory_and_class_take_the_same():
    names = set(inspect.signature(create_scheduler).parameters)
    assert {"client", "mode", "config", "provider", "classifier", "backend", "state_config"} <= names
