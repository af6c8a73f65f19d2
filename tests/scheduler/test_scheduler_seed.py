"""Every name, default and call that is published works as it is written there."""

import asyncio
import dataclasses
import inspect
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import redis.asyncio
from prometheus_client import REGISTRY

import adaptive_rate_limiter
from adaptive_rate_limiter import (
    TEXT,
    CapacityExceededError,
    ClassifierProtocol,
    ClientProtocol,
    DiscoveredBucket,
    ProviderInterface,
    RateLimitedAsyncIterator,
    RateLimitInfo,
    RequestMetadata,
    ReservationContext,
    ReservationTracker,
    StreamingReservationContext,
    StreamingResponseProtocol,
    backends,
)
from adaptive_rate_limiter import scheduler as scheduler_module
from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend, RedisBackend
from adaptive_rate_limiter.scheduler import (
    CachePolicy,
    RateLimiterConfig,
    Scheduler,
    SchedulerMode,
    StateConfig,
    create_scheduler,
)

from .snippets import run

MyClient = run("quick start")["MyClient"]
MyProvider = run("provider")["MyProvider"]
PAGES = {
    "main package": adaptive_rate_limiter,
    "scheduler package": scheduler_module,
    "backends package": backends,
}
ERRORS = {
    "RateLimiterError": ("told",),
    "CapacityExceededError": ("told", "bucket", 1.5),
    "BucketNotFoundError": ("bucket",),
    "ReservationCapacityError": ("told",),
    "BackendConnectionError": ("told",),
    "BackendOperationError": ("told",),
    "ConfigurationError": ("told",),
    "QueueOverflowError": ("told", "bucket:text"),
    "TooManyFailedRequestsError": ("told", 21, 30.0, 20),
}


class MyClassifier:
    async def classify(self, request):
        return RequestMetadata("classified", request["model"], TEXT, estimated_tokens=10)


METADATA = RequestMetadata("req-1", "venice-uncensored", TEXT, estimated_tokens=1000)


async def my_api_call():
    return "answer"


async def my_streaming_api_call():
    async def chunks():
        yield {"text": "an"}
        yield {"text": "swer", "usage": {"total_tokens": 42}}

    return chunks()


# The snippets


def test_the_quick_start():
    names = run("quick start", my_api_call=my_api_call)
    scheduler = names["scheduler"]
    assert asyncio.run(names["make_request"]()) == "answer"
    assert asyncio.run(names["make_request"]()) == "answer"  # and again, in another event loop
    assert scheduler.config == RateLimiterConfig(max_concurrent_executions=100, max_queue_size=1000)
    assert scheduler.config.mode is SchedulerMode.INTELLIGENT
    assert isinstance(scheduler.client, ClientProtocol)


async def test_a_provider(mode):
    """What a header does not tell comes out of it as 0, which is no limit of 0."""
    provider = run("provider")["MyProvider"]()
    assert provider.name == "my-provider"
    scheduler = create_scheduler(client=MyClient(), mode=mode, provider=provider)
    async with scheduler:
        assert await scheduler.submit_request(METADATA, my_api_call) == "answer"
        (bucket,) = scheduler.get_metrics()["buckets"]
    assert bucket.bucket_id == "default/default"
    assert {limit.unit: limit.limit for limit in bucket.limits} == {"requests": 100, "tokens": 100_000}


async def test_backends(mode):
    backend = run("memory")["backend"]
    assert isinstance(backend, MemoryBackend)
    scheduler = create_scheduler(client=MyClient(), mode=mode, backend=backend)
    async with scheduler:
        assert await scheduler.submit_request(METADATA, my_api_call) == "answer"


async def test_redis_is_not_reached_for_before_it_is_needed():
    names = run("redis")
    assert isinstance(names["backend"], RedisBackend)
    assert isinstance(names["redis_client"], redis.asyncio.Redis)
    backend = RedisBackend("redis://localhost:6379", namespace="my-app")
    assert isinstance(backend, BaseBackend)
    await names["redis_client"].aclose()


@pytest.mark.parametrize("name", ["basic", "intelligent", "account"])
async def test_each_mode(name):
    needed = {"create_scheduler": create_scheduler, "client": MyClient()}
    parts = {"my_provider": MyProvider(), "my_classifier": MyClassifier()}
    scheduler = run(name, **needed, **parts)["scheduler"]
    assert scheduler.config.mode.value == name
    async with scheduler:
        assert await scheduler.submit_request(metadata=METADATA, request_func=my_api_call) == "answer"
        if name == "intelligent":
            asked = {"model": "venice-uncensored"}
            assert await scheduler.submit_request(asked, my_api_call) == "answer"


async def test_a_stream_is_read_in_a_generator(mode):
    scheduler = create_scheduler(client=MyClient(), mode=mode, quotas={"tokens": 10_000})
    names = run("streaming", scheduler=scheduler, my_streaming_api_call=my_streaming_api_call)
    assert [chunk["text"] async for chunk in names["stream_request"]()] == ["an", "swer"]
    (bucket,) = scheduler.limiter.snapshot().buckets
    assert bucket.in_flight == 0
    assert bucket.limits[0].remaining >= 10_000 - 42  # not 1,000 less


def test_configuration():
    assert run("configuration")["config"] == RateLimiterConfig()
    state = run("state")["state_config"]
    assert (state.cache_policy, state.namespace, state.is_production) == (
        CachePolicy.WRITE_THROUGH,
        "my-app",
        True,
    )


def test_resource_types():
    assert run("resource types")["resource_type"] == "custom-resource"
    names = ("text", "image", "audio", "embedding", "generic")
    assert set(names) == adaptive_rate_limiter.RESOURCE_TYPES
    assert [getattr(adaptive_rate_limiter, name.upper()) for name in names] == list(names)
    assert adaptive_rate_limiter.ResourceType is str
    RequestMetadata(request_id="r", model_id="m", resource_type="custom-resource")


async def test_errors_are_told_apart(mode, capsys):
    scheduler = create_scheduler(client=MyClient(), mode=mode, quotas={"requests": 1})
    metadata = dataclasses.replace(METADATA, timeout=0.5)
    names = run("exceptions", scheduler=scheduler, metadata=metadata, request_func=my_api_call)
    async with scheduler:
        await names["handle_request"]()
        assert not capsys.readouterr().out
        await names["handle_request"]()
        bucket = "account" if mode == "account" else "venice-uncensored"
        assert capsys.readouterr().out.startswith(f"Rate limited on bucket {bucket}\nRetry after 5")
    await names["handle_request"]()
    assert capsys.readouterr().out.startswith("Rate limiter error: Scheduler is not running")


async def test_an_unknown_bucket(capsys):
    class Knows(MyProvider):
        async def get_bucket_for_model(self, model_id, resource_type=None):
            raise adaptive_rate_limiter.BucketNotFoundError(model_id)

    scheduler = create_scheduler(client=MyClient(), provider=Knows())
    names = run("exceptions", scheduler=scheduler, metadata=METADATA, request_func=my_api_call)
    async with scheduler:
        await names["handle_request"]()
    assert capsys.readouterr().out == "Unknown bucket: venice-uncensored\n"


@pytest.mark.parametrize("page", PAGES)
def test_every_name_is_exported(page):
    published = {name for name in run(page) if not name.startswith("__")}
    assert published <= set(PAGES[page].__all__)


async def test_metrics_are_exposed(mode):
    run("metrics")
    state = StateConfig(namespace=f"exposed-{mode}")
    async with create_scheduler(client=MyClient(), mode=mode, state_config=state) as scheduler:
        await scheduler.submit_request(METADATA, my_api_call)
        model = "account" if mode == "account" else "venice-uncensored"
        labels = {"bucket": f"exposed-{mode}/{model}", "model": model}
        assert REGISTRY.get_sample_value("adaptive_rate_limiter_calls_admitted_total", labels) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_name_is_in_the_readme(page):
    told = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in run(page) if not name.startswith("__") and f"`{name}`" not in told] == []


@pytest.mark.parametrize("extra", ["redis", "metrics", "full", "dev"])
def test_every_extra_is_there(extra):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{extra} = [" in project.partition("[project.optional-dependencies]")[2]


# Names, fields and defaults

REQUIRED = dataclasses.MISSING
FIELDS = {
    RequestMetadata: {
        "request_id": REQUIRED, "model_id": REQUIRED, "resource_type": REQUIRED, "estimated_tokens": None,
        "priority": 0, "submitted_at": REQUIRED, "timeout": None, "client_id": None, "endpoint": None,
        "requires_model": True,
    },
    DiscoveredBucket: {
        "bucket_id": REQUIRED, "rpm_limit": None, "tpm_limit": None, "rpm_remaining": None, "tpm_remaining": None,
    },
    RateLimitInfo: {
        "rpm_remaining": None, "rpm_limit": None, "rpm_reset": None, "tpm_remaining": None, "tpm_limit": None,
        "tpm_reset": None, "retry_after": None, "is_rate_limited": False, "timestamp": REQUIRED,
    },
    ReservationContext: {
        "reservation_id": REQUIRED, "bucket_id": REQUIRED, "estimated_tokens": REQUIRED, "created_at": REQUIRED,
    },
    StreamingReservationContext: {
        "reservation_id": REQUIRED, "bucket_id": REQUIRED, "request_id": REQUIRED, "reserved_tokens": REQUIRED,
    },
    RateLimiterConfig: {
        "mode": SchedulerMode.INTELLIGENT, "max_concurrent_executions": 100, "max_queue_size": 1000,
        "overflow_policy": "reject", "request_timeout": 30.0, "rate_limit_buffer_ratio": 0.9,
        "failure_window": 30.0, "max_failures": 20, "backoff_base": 2.0, "max_backoff": 60.0, "max_retries": 3,
    },
    StateConfig: {
        "cache_policy": CachePolicy.WRITE_THROUGH, "namespace": "default", "is_production": False,
        "acknowledge_write_back_risk": False, "warn_write_back_production": True,
    },
}  # fmt: skip
ARGUMENTS = {
    create_scheduler: ["client", "mode", "config", "provider", "classifier", "backend", "state_config"],
    Scheduler: ["client", "config", "provider", "classifier", "backend", "state_config"],
    Scheduler.submit_request: ["self", "metadata", "request_func"],
    ProviderInterface.discover_limits: ["self", "force_refresh", "timeout"],
    ProviderInterface.parse_rate_limit_response: ["self", "headers", "body", "status_code"],
    ProviderInterface.get_bucket_for_model: ["self", "model_id", "resource_type"],
    ClassifierProtocol.classify: ["self", "request"],
    ReservationTracker: ["max_reservations", "max_reservation_age", "stale_cleanup_interval"],
    ReservationTracker.store: ["self", "request_id", "bucket_id", "reservation_id", "estimated_tokens"],
    RateLimitedAsyncIterator: ["inner", "context"],
}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_fields_and_defaults(kind):
    found = {field.name: field.default for field in dataclasses.fields(kind)}
    assert list(found)[: len(FIELDS[kind])] == list(FIELDS[kind])
    assert {name: found[name] for name in FIELDS[kind]} == FIELDS[kind]


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda function: function.__qualname__)
def test_arguments_in_their_order(function):
    assert list(inspect.signature(function).parameters)[: len(ARGUMENTS[function])] == ARGUMENTS[function]


def test_values_of_enumerations():
    assert [mode.value for mode in SchedulerMode] == ["basic", "intelligent", "account"]
    assert [policy.value for policy in CachePolicy] == ["write_through", "write_back", "write_around"]


def test_what_is_made_knows_when():
    assert (datetime.now(timezone.utc) - METADATA.submitted_at).total_seconds() < 600
    assert abs(time.time() - RateLimitInfo().timestamp) < 600
    assert abs(time.monotonic() - ReservationContext("r", "b", 1).created_at) < 600


@pytest.mark.parametrize("name", ERRORS)
def test_attributes_of_errors(name):
    error = getattr(adaptive_rate_limiter, name)(*ERRORS[name])
    assert isinstance(error, adaptive_rate_limiter.RateLimiterError)
    expected = {
        "CapacityExceededError": {"bucket_id": "bucket", "retry_after": 1.5},
        "BucketNotFoundError": {"bucket_id": "bucket"},
        "QueueOverflowError": {"queue_key": "bucket:text"},
        "TooManyFailedRequestsError": {"failure_count": 21, "window_seconds": 30.0, "threshold": 20},
    }
    assert vars(error) == expected.get(name, {})
    told = "Rate limit bucket not found: bucket" if name == "BucketNotFoundError" else "told"
    assert str(error) == told


def test_errors_that_say_little():
    assert vars(CapacityExceededError("told")) == {"bucket_id": None, "retry_after": None}
    assert adaptive_rate_limiter.QueueOverflowError("told").queue_key is None
    failed = adaptive_rate_limiter.TooManyFailedRequestsError()
    assert str(failed) == "Too many failed requests"
    assert set(vars(failed).values()) == {None}
    assert issubclass(adaptive_rate_limiter.ConfigurationError, ValueError)


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
