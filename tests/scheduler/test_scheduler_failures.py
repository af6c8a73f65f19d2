"""Refusals go back into line, other failures are tried again in basic mode, and a dead provider is left alone."""

import asyncio

import httpx
import pytest

from adaptive_rate_limiter import (
    CapacityExceededError,
    RequestTimeoutError,
    TooManyFailedRequestsError,
)
from adaptive_rate_limiter.scheduler import RateLimiterConfig
from adaptive_rate_limiter.scheduler.retry import backoff, may_pass_later

from .conftest import Api, request
from .test_scheduler_limits import RefusedError


class FailedError(Exception):
    def __init__(self, status=500):
        super().__init__(status)
        self.status_code = status


async def submitted(scheduler, call, later, seconds, **fields):
    task = asyncio.create_task(scheduler.submit_request(request(**fields), call))
    await later(seconds)
    return task


@pytest.fixture
def no_backoff(monkeypatch):
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.submission.backoff", lambda *_: 0.001)


# Refusals, in every mode


async def test_a_refusal_is_tried_again_when_the_provider_says(make, mode, later):
    api = Api(RefusedError(2), RefusedError(3), "answer")
    async with make(mode) as scheduler:
        task = await submitted(scheduler, api.call(), later, 4.9)
        assert len(api.started) == 2
        await later(0.2)
        assert await task == "answer"


async def test_a_returned_refusal_is_tried_again_too(make, mode, later):
    refused = httpx.Response(429, headers={"retry-after": "2"})
    answer = httpx.Response(200)
    api = Api(refused, answer)
    async with make(mode) as scheduler:
        task = await submitted(scheduler, api.call(), later, 1.9)
        assert len(api.started) == 1
        await later(0.2)
        assert await task is answer


async def test_the_last_refusal_is_an_error_that_says_when(make, mode, later, settled):
    errors = [RefusedError(1), RefusedError(1), RefusedError(7)]
    api = Api(*errors)
    async with make(mode, max_retries=2) as scheduler:
        task = await submitted(scheduler, api.call(), later, 10)
        with pytest.raises(CapacityExceededError) as caught:
            await task
        assert caught.value.__cause__ is errors[2]
        assert caught.value.bucket_id == ("account" if mode == "account" else "m")
        assert caught.value.retry_after == 7
        assert len(api.started) == 3
        assert settled(scheduler)


async def test_the_last_returned_refusal_is_returned(make, mode, later):
    responses = [httpx.Response(429, headers={"retry-after": "1"}) for _ in range(2)]
    async with make(mode, max_retries=1) as scheduler:
        task = await submitted(scheduler, Api(*responses).call(), later, 5)
        assert await task is responses[1]


SPENT = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}


@pytest.mark.parametrize(
    ("error", "raised", "retry_after"),
    [
        (RefusedError(body=SPENT), CapacityExceededError, None),  # no wait cures it
        (
            RefusedError(73_192),
            CapacityExceededError,
            pytest.approx(73_192, abs=1),
        ),  # nobody sleeps for hours
        (FailedError(403), FailedError, None),
        (FailedError(413), FailedError, None),
        (FailedError(401), FailedError, None),
        (FailedError(422), FailedError, None),
    ],
)
async def test_what_no_wait_cures_is_not_tried_again(make, mode, later, *, error, raised, retry_after):
    api = Api(error)
    async with make(mode) as scheduler:
        task = await submitted(scheduler, api.call(), later, 1)
        with pytest.raises(raised) as caught:
            await task
        assert len(api.started) == 1
        if raised is CapacityExceededError:
            assert caught.value.retry_after == retry_after
            assert caught.value.__cause__ is error
        else:
            assert caught.value is error


async def test_an_overloaded_provider_is_tried_again_and_its_error_raised(make, mode, later):
    errors = [FailedError(529), FailedError(529)]
    api = Api(*errors)
    async with make(mode, max_retries=1) as scheduler:
        task = await submitted(scheduler, api.call(), later, 30)
        with pytest.raises(FailedError) as caught:
            await task
        assert caught.value is errors[1]
        assert len(api.started) == 2


async def test_the_deadline_counts_for_all_attempts_together(make, mode, later):
    async with make(mode) as scheduler:
        task = await submitted(scheduler, Api(RefusedError(5)).call(), later, 0, timeout=3)
        with pytest.raises(CapacityExceededError) as caught:
            await task
        assert isinstance(caught.value.__cause__, RefusedError)
        assert caught.value.retry_after == pytest.approx(5, abs=0.01)


# Other failures


@pytest.mark.parametrize(("mode", "attempts"), [("basic", 3), ("intelligent", 1), ("account", 1)])
@pytest.mark.parametrize(
    "error", [FailedError(500), FailedError(408), ConnectionError(), RuntimeError("temporary")]
)
async def test_only_basic_mode_tries_other_failures_again(make, later, no_backoff, *, mode, attempts, error):
    api = Api(error, error, "answer")
    async with make(mode) as scheduler:
        task = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        while not task.done():
            await asyncio.sleep(0.001)
            await later(1)
        results = await asyncio.gather(task, return_exceptions=True)
    assert len(api.started) == attempts
    assert results == (["answer"] if attempts == 3 else [error])


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (None, 500, True),
        (None, 503, True),
        (None, 409, True),
        (None, 400, False),
        (None, 404, False),
        (ValueError(), None, False),
        (TypeError(), None, False),
        (KeyError(), None, False),
        (NotImplementedError(), None, False),
        (AssertionError(), None, False),
        (CapacityExceededError("of another limiter"), None, False),
        (RequestTimeoutError(), None, True),
        (OSError(), None, True),
        (Exception(), None, True),
    ],
)
def test_what_may_pass_later(error, status, again):
    assert may_pass_later(error, status) is again


def test_backoff_doubles_and_its_jitter_only_adds():
    config = RateLimiterConfig(max_backoff=10.0)
    for retry, least in enumerate([1, 2, 4, 8, 10, 10]):
        waits = [backoff(retry, config) for _ in range(200)]
        assert least <= min(waits) < max(waits) <= 1.25 * least
    assert backoff(10_000, config) <= 12.5


async def test_no_backoff_beyond_the_deadline(make):
    error = FailedError(500)
    async with make("basic") as scheduler:
        with pytest.raises(FailedError) as caught:
            await scheduler.submit_request(request(timeout=0.5), Api(error).call())
        assert caught.value is error


# The circuit


async def test_too_many_failures_open_the_circuit_of_their_bucket(make, mode, clock):
    options = {"max_failures": 3, "failure_window": 30.0, "max_retries": 0}
    bucket = "account" if mode == "account" else "m"
    async with make(mode, **options) as scheduler:
        for _ in range(3):
            with pytest.raises(FailedError):
                await scheduler.submit_request(request(), Api(FailedError(500)).call())
        with pytest.raises(TooManyFailedRequestsError, match=bucket) as caught:
            await scheduler.submit_request(request(), Api().call())
        error = caught.value
        assert (error.failure_count, error.window_seconds, error.threshold) == (3, 30.0, 3)
        if mode != "account":
            await scheduler.submit_request(request(model_id="other"), Api().call())
        clock.advance(30.1)
        assert await scheduler.submit_request(request(), Api("well again").call()) == "well again"


@pytest.mark.parametrize("harmless", [FailedError(404), RefusedError(0.01), "a success"])
async def test_what_does_not_open_the_circuit(make, later, harmless):
    async with make(max_failures=2, max_retries=0) as scheduler:
        for answer in (FailedError(500), harmless, harmless, harmless):
            task = await submitted(scheduler, Api(answer).call(), later, 5)
            await asyncio.gather(task, return_exceptions=True)
        assert await scheduler.submit_request(request(), Api("open").call()) == "open"


async def test_a_success_between_failures_counts(make):
    async with make(max_failures=2, max_retries=0) as scheduler:
        for _ in range(5):
            with pytest.raises(FailedError):
                await scheduler.submit_request(request(), Api(FailedError(500)).call())
            await scheduler.submit_request(request(), Api().call())


async def test_attempts_count_and_the_open_circuit_ends_them(make, no_backoff):
    api = Api(*[FailedError(500)] * 9)
    async with make("basic", max_failures=2, max_retries=8) as scheduler:
        with pytest.raises(TooManyFailedRequestsError) as caught:
            await scheduler.submit_request(request(), api.call())
        assert isinstance(caught.value.__cause__, FailedError)
        assert len(api.started) == 2
