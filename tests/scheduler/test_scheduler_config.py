"""What is wrong is said when it is given, with the name of the field."""

import logging
import math

import pytest

from adaptive_rate_limiter import ConfigurationError, RequestMetadata
from adaptive_rate_limiter.scheduler import CachePolicy, RateLimiterConfig, StateConfig, create_scheduler

WRONG = {
    "max_concurrent_executions": (0, -1, 1.5, True, "10", None),
    "max_queue_size": (0, -1, 1.5, True, "10", None),
    "max_failures": (0, 2.5, None),
    "max_retries": (-1, 1.5, None),
    "request_timeout": (0, -1, "30", None, math.nan),
    "failure_window": (0, math.inf, math.nan, None),
    "max_backoff": (0, math.inf, None),
    "backoff_base": (1, 0.5, math.inf, None),
    "rate_limit_buffer_ratio": (0, -0.1, 1.1, math.nan, "0.9", None),
    "overflow_policy": ("drop", "", None, 1),
    "mode": ("fast", "", 3, None),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(ConfigurationError, match=field) as caught:
        RateLimiterConfig(**{field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_retries": 0},
        {"request_timeout": math.inf},
        {"rate_limit_buffer_ratio": 1},
        {"overflow_policy": "drop_oldest"},
        {"backoff_base": 1.1},
    ],
)
def test_the_edges_are_allowed(fields):
    config = RateLimiterConfig(**fields)
    assert {name: getattr(config, name) for name in fields} == fields


def test_an_unknown_mode_lists_the_modes(client):
    with pytest.raises(
        ConfigurationError, match=r"Unknown scheduler mode: 'fast'; .*basic, intelligent, account"
    ):
        create_scheduler(client, "fast")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"cache_policy": "write_often"},
            "cache_policy must be one of write_through, write_back, write_around",
        ),
        ({"namespace": ""}, "namespace"),
        ({"namespace": None}, "namespace"),
        ({"is_production": "yes"}, "is_production"),
        ({"acknowledge_write_back_risk": 1}, "acknowledge_write_back_risk"),
        ({"warn_write_back_production": None}, "warn_write_back_production"),
        ({"is_production": True, "cache_policy": CachePolicy.WRITE_BACK}, "acknowledge_write_back_risk"),
    ],
)
def test_a_wrong_state_is_named(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        StateConfig(**fields)


@pytest.mark.parametrize(("warn", "warned"), [(True, 1), (False, 0)])
def test_write_back_in_production_is_a_risk_taken_knowingly(caplog, warn, warned):
    with caplog.at_level(logging.WARNING):
        state = StateConfig(
            cache_policy="write_back",
            is_production=True,
            acknowledge_write_back_risk=True,
            warn_write_back_production=warn,
        )
    assert state.cache_policy is CachePolicy.WRITE_BACK
    assert len(caplog.records) == warned


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"client": None}, "client must have base_url, timeout, get_headers; .*lacks base_url"),
        ({"client": object()}, "client must have .* lacks base_url, timeout, get_headers"),
        ({"provider": object()}, "provider must have .* lacks discover_limits"),
        ({"classifier": object()}, "classifier must have classify"),
        ({"config": {"max_queue_size": 3}}, "config must be a RateLimiterConfig"),
        ({"state_config": "my-app"}, "state_config must be a StateConfig"),
        ({"backend": "memory"}, "backend"),
        ({"quotas": {"requests": -1}}, "quota.limit"),
        ({"weights": {"a": 0}}, "weights"),
    ],
)
def test_a_wrong_argument_is_named(client, options, said):
    with pytest.raises(ConfigurationError, match=said):
        create_scheduler(**{"client": client, **options})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", 7),
        ("model_id", None),
        ("resource_type", None),
        ("estimated_tokens", -1),
        ("estimated_tokens", math.inf),
        ("estimated_tokens", "10"),
        ("priority", math.nan),
        ("priority", "high"),
        ("timeout", 0),
        ("timeout", "1"),
        ("client_id", 7),
    ],
)
def test_wrong_metadata_is_named(field, value):
    fields = {"request_id": "r", "model_id": "m", "resource_type": "text", field: value}
    with pytest.raises(ConfigurationError, match=f"{field} must be"):
        RequestMetadata(**fields)


@pytest.mark.parametrize("metadata", [None, "m", 7, {"model": "m"}])
async def test_what_is_no_metadata_is_said(make, metadata):
    async def call(): ...

    async with make() as scheduler:
        with pytest.raises(ConfigurationError, match="metadata must be RequestMetadata"):
            await scheduler.submit_request(metadata, call)


async def test_what_cannot_be_called_is_said(make):
    async with make() as scheduler:
        with pytest.raises(ConfigurationError, match="request_func must be callable"):
            await scheduler.submit_request(RequestMetadata("r", "m", "text"), None)
