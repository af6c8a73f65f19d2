"""A wrong argument is told at once, by its name and its value."""

from fractions import Fraction

import pytest

from adaptive_rate_limiter import ConfigurationError, Limiter, MemoryBackend, Quota

NAN, INF = float("nan"), float("inf")

LIMITER = [
    ({"quotas": {"requests": 0}}, "quota.limit", "0"),
    ({"quotas": {"requests": -5}}, "quota.limit", "-5"),
    ({"quotas": {"requests": NAN}}, "quota.limit", "nan"),
    ({"quotas": {"requests": INF}}, "quota.limit", "inf"),
    ({"quotas": {"requests": "60"}}, "quota.limit", "'60'"),
    ({"quotas": {"requests": True}}, "quota.limit", "True"),
    ({"quotas": {"": 60}}, "quota.unit", "''"),
    ({"quotas": {"limit": 60}}, "quota.unit is missing", "60"),
    ({"quotas": {"unit": "requests"}}, "quota.limit is missing", "requests"),
    ({"quotas": {"unit": "requests", "limit": 60, "per": 1}}, "'per'", "window"),
    ({"quotas": {"unit": "requests", "limit": 60, "window": 0}}, "quota.window", "0"),
    ({"quotas": {"unit": "requests", "limit": 60, "burst": -1}}, "quota.burst", "-1"),
    ({"quotas": {"unit": "requests", "limit": 60, "algorithm": "leaky"}}, "quota.algorithm", "'leaky'"),
    ({"quotas": 60}, "quotas", "60"),
    ({"quotas": "requests"}, "quotas", "'requests'"),
    ({"quotas": {"gpt-4o": {"requests": 0}}}, "quota.limit", "0"),
    ({"max_wait": -1}, "max_wait", "-1"),
    ({"max_wait": NAN}, "max_wait", "nan"),
    ({"max_wait": "10"}, "max_wait", "'10'"),
    ({"max_pause": -0.1}, "max_pause", "-0.1"),
    ({"max_pause": NAN}, "max_pause", "nan"),
    ({"max_pause": None}, "max_pause", "None"),
    ({"max_concurrency": 0}, "max_concurrency", "0"),
    ({"max_concurrency": -3}, "max_concurrency", "-3"),
    ({"max_concurrency": 2.5}, "max_concurrency", "2.5"),
    ({"max_concurrency": True}, "max_concurrency", "True"),
    ({"max_concurrency": "4"}, "max_concurrency", "'4'"),
    ({"weights": {"a": 0}}, "weights['a']", "0"),
    ({"weights": {"a": NAN}}, "weights['a']", "nan"),
    ({"weights": {"a": "2"}}, "weights['a']", "'2'"),
    ({"weights": 3}, "weights", "3"),
    ({"backend": "redis://localhost"}, "backend", "'redis://localhost'"),
    ({"backend": MemoryBackend}, "backend", "MemoryBackend"),
    ({"namespace": None}, "namespace", "None"),
    ({"rpm": 60}, "'rpm'", "quotas"),
]


@pytest.mark.parametrize(("arguments", "name", "value"), LIMITER)
def test_of_the_limiter(arguments, name, value):
    with pytest.raises(ConfigurationError) as caught:
        Limiter(**arguments)
    assert name in str(caught.value)
    assert value in str(caught.value)


CALL = [
    ({"tokens": -1}, "tokens", "-1"),
    ({"tokens": NAN}, "tokens", "nan"),
    ({"tokens": INF}, "tokens", "inf"),
    ({"tokens": "100"}, "tokens", "'100'"),
    ({"tokens": True}, "tokens", "True"),
    ({"tokens": 10**400}, "tokens", "10000"),
    ({"units": {"images": Fraction(10**400)}}, "units['images']", "10000"),
    ({"tokens": 5, "input_tokens": -1}, "input_tokens", "-1"),
    ({"input_tokens": NAN}, "input_tokens", "nan"),
    ({"output_tokens": -2}, "output_tokens", "-2"),
    ({"max_tokens": -2}, "max_tokens", "-2"),
    ({"max_tokens": "16"}, "max_tokens", "'16'"),
    ({"units": {"images": -1}}, "units['images']", "-1"),
    ({"timeout": -1}, "timeout", "-1"),
    ({"timeout": NAN}, "timeout", "nan"),
    ({"timeout": "5"}, "timeout", "'5'"),
    ({"tenant": 5}, "tenant", "5"),
    ({"priority": NAN}, "priority", "nan"),
    ({"priority": INF}, "priority", "inf"),
    ({"priority": 10**400}, "priority", "10000"),
    ({"priority": "high"}, "priority", "'high'"),
    ({"model": 4}, "model", "4"),
    ({"model": ["gpt-4o"]}, "model", "['gpt-4o']"),
    ({"route": ["a"]}, "route", "['a']"),
    ({"max_wait": 5}, "'max_wait'", "timeout"),
    ({"token": 5}, "'token'", "tokens"),
]


@pytest.mark.parametrize(("arguments", "name", "value"), CALL)
async def test_of_a_call(clock, arguments, name, value):
    limiter = Limiter(clock=clock)
    for acquire in (limiter.acquire, limiter.try_acquire, limiter.record):
        with pytest.raises(ConfigurationError) as caught:
            acquire(**arguments)
        assert name in str(caught.value)
        assert value in str(caught.value)
    with pytest.raises(ConfigurationError):
        await limiter.aacquire(**arguments)
    assert all(bucket.in_flight == 0 for bucket in limiter.snapshot().buckets)


@pytest.mark.parametrize(
    "arguments",
    [{"requests": -1}, {"tokens": NAN}, {"tokens": "9"}, {"input_tokens": -1}, {"output": 5}],
)
def test_of_a_forecast(clock, arguments):
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Limiter(clock=clock).forecast(**arguments)


def test_a_configuration_error_is_a_value_error():
    with pytest.raises(ValueError, match="max_wait"):
        Limiter(max_wait=-1)


def test_numbers_of_other_libraries_are_numbers(clock):
    limiter = Limiter(quotas={"tokens": 1000}, clock=clock)
    half = Fraction(1, 2)
    limiter.acquire("m", tokens=half, timeout=half, priority=half).settle()
    limiter.acquire("m", input_tokens=half, output_tokens=half, max_tokens=half).settle(tokens=half)
    assert limiter.snapshot().buckets[0].limits[0].remaining == 999


QUOTAS = [
    {"requests": 500},
    Quota("requests", 500),
    [Quota("requests", 500)],
    ({"unit": "requests", "limit": 500},),
    {"unit": "requests", "limit": 500},
    {"m": {"requests": 500}},
    {"m": Quota("requests", 500)},
    {"m": [{"unit": "requests", "limit": 500, "window": 60}], "other": {"tokens": 5}},
]


@pytest.mark.parametrize("quotas", QUOTAS)
def test_every_way_to_state_a_quota(clock, quotas):
    limiter = Limiter(quotas=quotas, clock=clock)
    limiter.acquire("m").settle()
    (limit,) = limiter.snapshot().buckets[0].limits
    assert (limit.unit, limit.limit, limit.window, limit.source) == ("requests", 500, 60.0, "stated")


def test_size_by_prompt_and_by_parts(clock):
    limiter = Limiter(quotas={"tokens": 100_000, "images": 10, "input_tokens": 50_000}, clock=clock)

    def taken(**call):
        before = {limit.unit: limit.remaining for limit in limiter.snapshot().buckets[0].limits}
        limiter.acquire("m", **call)
        after = {limit.unit: limit.remaining for limit in limiter.snapshot().buckets[0].limits}
        return {unit: before[unit] - after[unit] for unit in before}

    limiter.acquire("m").settle()
    assert taken(tokens=30) == {"tokens": 30, "images": 0, "input_tokens": 30}
    assert taken(tokens=30, input_tokens=10) == {"tokens": 30, "images": 0, "input_tokens": 10}
    assert taken(input_tokens=10, output_tokens=5) == {"tokens": 15, "images": 0, "input_tokens": 10}
    assert taken(input_tokens=10, max_tokens=5) == {"tokens": 15, "images": 0, "input_tokens": 10}
    assert taken(prompt="x" * 400, max_tokens=5) == {"tokens": 105, "images": 0, "input_tokens": 100}
    assert taken(prompt=[{"role": "user", "content": "x" * 396}], max_tokens=0)["tokens"] == 100
    assert taken(input_tokens=10, output_tokens=0, estimated=True)["tokens"] == 10
    assert taken(units={"images": 2}) == {"tokens": 0, "images": 2, "input_tokens": 0}
    assert taken() == {"tokens": 0, "images": 0, "input_tokens": 0}


def test_estimates_are_corrected_by_what_calls_really_used(clock):
    limiter = Limiter(quotas={"tokens": 100_000}, clock=clock)
    for _ in range(20):
        reservation = limiter.acquire("m", prompt="x" * 400, max_tokens=1000)
        reservation.settle(input_tokens=200, output_tokens=10)
        clock.advance(1)
    reservation = limiter.acquire("m", prompt="x" * 400, max_tokens=1000)
    assert 180 <= reservation.call.cost["input_tokens"] <= 260
    assert reservation.call.cost["output_tokens"] <= 30


def test_an_estimate_without_a_size_is_the_usual_one(clock):
    limiter = Limiter(quotas={"tokens": 100_000}, clock=clock)
    first = limiter.acquire("m", estimated=True)
    assert first.call.cost["tokens"] == 0
    first.settle(input_tokens=200, output_tokens=10)
    second = limiter.acquire("m", estimated=True)
    sizes = {unit: second.call.cost[unit] for unit in ("tokens", "input_tokens", "output_tokens")}
    assert sizes == {"tokens": 210, "input_tokens": 200, "output_tokens": 10}
    assert limiter.acquire("m").call.cost["tokens"] == 0  # of which nobody said anything
