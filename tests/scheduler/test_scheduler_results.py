"""What comes back is what the function returned; what it raised is raised. Limits are learned from both."""

import asyncio
import contextlib
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock, Mock

import httpx
import pytest
from openai.pagination import AsyncPage
from openai.types import Model
from openai.types.chat import ChatCompletion

from adaptive_rate_limiter import CapacityExceededError, RequestTimeoutError

from .conftest import Api, request

COMPLETION = {
    "id": "1",
    "choices": [],
    "created": 1,
    "model": "m",
    "object": "chat.completion",
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}

RESULTS = {
    "nothing": None,
    "a number": 7,
    "a dictionary": {"answer": 42},
    "a list": [1, 2],
    "bytes": b"answer",
    "an httpx response": httpx.Response(200, headers={"x-ratelimit-limit-requests": "60"}, json={"a": 1}),
    "a refused httpx response of no cure": httpx.Response(403, json={"error": {"message": "no"}}),
    "a pydantic model": ChatCompletion.model_validate(COMPLETION),
    "a page, which can be iterated": AsyncPage[Model].model_construct(data=[], object="list"),
    "an iterator": iter([1, 2]),
    "a mock": Mock(),
    "a magic mock": MagicMock(),
    "an async mock": AsyncMock(),
    "a mock with headers": SimpleNamespace(headers=MagicMock(), status_code=MagicMock()),
    "an exception": ValueError("returned, not raised"),
    "a class": dict,
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
async def test_a_result_passes_untouched(make, mode, settled, result):
    async def call():
        return result

    async with make(mode) as scheduler:
        assert await scheduler.submit_request(request(), call) is result
        assert settled(scheduler)


async def test_a_function_may_be_plain_or_return_any_awaitable(make, mode):
    async def answer():
        return "answer"

    async with make(mode) as scheduler:
        for call in (lambda: "answer", answer, lambda: asyncio.ensure_future(answer())):
            assert await scheduler.submit_request(request(), call) == "answer"


async def test_a_request_that_may_go_goes_at_once(make, mode):
    """No turn of the event loop passes between a request and its result, let alone a tick of a clock."""

    async def call():
        return "answer"

    async with make(mode, quotas={"requests": 1000, "tokens": 10_000}) as scheduler:
        for _ in range(3):
            with pytest.raises(StopIteration) as ended:
                scheduler.submit_request(request(), call).send(None)
            assert ended.value.value == "answer"


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("error", [BrokenError("x"), KeyError("x"), OSError("x")])
async def test_an_error_passes_untouched(make, settled, error):
    async with make("intelligent") as scheduler:
        with pytest.raises(type(error)) as caught:
            await scheduler.submit_request(request(), Api(error).call())
        assert caught.value is error
        assert settled(scheduler)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
async def test_what_is_no_exception_passes_at_once(make, mode, settled, error):
    calls = []

    async def call():
        calls.append(1)
        raise error

    async with make(mode) as scheduler:
        coroutine = scheduler.submit_request(request(), call)
        with pytest.raises(type(error)):
            coroutine.send(None)
        assert calls == [1]
        assert settled(scheduler)


# Learning

HEADERS = {
    "x-ratelimit-limit-requests": "120",
    "x-ratelimit-remaining-requests": "100",
    "x-ratelimit-limit-tokens": "9000",
    "x-ratelimit-remaining-tokens": "8990",
}


def carriers():
    response = httpx.Response(200, headers=HEADERS, json={"usage": {"total_tokens": 7}})
    yield "an httpx response", response
    yield "an object with a response", SimpleNamespace(response=response)
    yield "a raw response of an SDK", SimpleNamespace(http_response=response, headers=response.headers)
    yield "google-genai", SimpleNamespace(sdk_http_response=SimpleNamespace(headers=HEADERS))
    yield "aiohttp", SimpleNamespace(status=200, headers=HEADERS)
    yield "a dictionary", {"headers": HEADERS, "status": 200, "body": {"usage": {"total_tokens": 7}}}
    yield "botocore", {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": HEADERS}}


CARRIERS = dict(carriers())


@pytest.mark.parametrize("result", CARRIERS.values(), ids=CARRIERS)
async def test_limits_are_learned_from_a_result(make, mode, result):
    async with make(mode) as scheduler:
        assert await scheduler.submit_request(request(), Api(result).call()) is result
        (bucket,) = scheduler.limiter.snapshot().buckets
    limits = {limit.unit: limit.limit for limit in bucket.limits}
    assert limits == {"requests": 120, "tokens": 9000}


@pytest.fixture
def read(monkeypatch):
    """How often a scheduler reads headers from here on."""

    def read(scheduler):
        seen, parse = [], scheduler.limiter.parse
        monkeypatch.setattr(
            scheduler.limiter, "parse", lambda *given, **more: seen.append(given) or parse(*given, **more)
        )
        return seen

    return read


@pytest.mark.parametrize(("remaining", "least", "most"), [(9000, 1, 100), (2000, 200, 200)])
async def test_headers_far_from_every_limit_need_not_all_be_read(make, read, *, remaining, least, most):
    async with make() as scheduler:
        seen = read(scheduler)
        for sent in range(200):
            headers = {
                "x-ratelimit-limit-requests": "10000",
                "x-ratelimit-remaining-requests": str(remaining - sent),
            }
            await scheduler.submit_request(request(), Api({"headers": headers}).call())
    assert least <= len(seen) <= most


async def test_a_refusal_is_always_read(make, read, later):
    async with make() as scheduler:
        for _ in range(5):
            await scheduler.submit_request(request(), Api({"headers": HEADERS}).call())
        seen = read(scheduler)
        refused = {"headers": {"retry-after": "2"}, "status": 429}
        task = asyncio.create_task(scheduler.submit_request(request(), Api(refused, "answer").call()))
        await later(2.1)
        assert await task == "answer"
    assert len(seen) == 1


USAGES = {
    "an SDK's model": ChatCompletion.model_validate(COMPLETION),
    "a response's body": httpx.Response(200, json=COMPLETION),
    "a dictionary": COMPLETION,
    "a dictionary with the body inside": {"headers": {}, "body": COMPLETION},
}


@pytest.mark.parametrize("result", USAGES.values(), ids=USAGES)
async def test_usage_replaces_the_estimate(make, result):
    async with make(quotas={"tokens": 1000}) as scheduler:
        await scheduler.submit_request(request(estimated_tokens=500), Api(result).call())
        (bucket,) = scheduler.limiter.snapshot().buckets
    assert bucket.limits[0].remaining == 1000 - 7


async def test_what_nobody_tells_stays_charged(make):
    async with make(quotas={"tokens": 1000}) as scheduler:
        await scheduler.submit_request(request(estimated_tokens=500), Api("answer").call())
        with pytest.raises(KeyError):
            await scheduler.submit_request(request(estimated_tokens=200), Api(KeyError()).call())
        (bucket,) = scheduler.limiter.snapshot().buckets
    assert bucket.limits[0].remaining == 1000 - 500 - 200


async def test_what_never_left_is_given_back(make):
    async with make(quotas={"tokens": 1000}, max_retries=0) as scheduler:
        with pytest.raises(httpx.ConnectError):
            await scheduler.submit_request(request(), Api(httpx.ConnectError("refused")).call())
        wrapped = BrokenError("connection")
        wrapped.__cause__ = httpx.ConnectError("refused")
        with pytest.raises(BrokenError):
            await scheduler.submit_request(request(), Api(wrapped).call())
        (bucket,) = scheduler.limiter.snapshot().buckets
    assert bucket.limits[0].remaining == 1000


async def test_without_an_estimate_earlier_replies_tell_what_a_request_takes(make, mode, turn):
    """It was taken for nothing: whatever the limit on tokens, all requests went at once."""
    api = Api({"usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}})
    async with make(mode, quotas={"tokens": 1000}, max_concurrent_executions=50) as scheduler:
        await scheduler.submit_request(request(estimated_tokens=None), api.call())
        api.hold()
        tasks = [
            asyncio.create_task(scheduler.submit_request(request(estimated_tokens=None), api.call()))
            for _ in range(30)
        ]
        await turn()
        assert len(api.started) == 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Time


async def test_a_request_that_takes_too_long_ends(make, mode, settled):
    api = Api().hold()
    async with make(mode, request_timeout=0.02, max_retries=0) as scheduler:
        with pytest.raises(RequestTimeoutError, match=r"timed out after 0.02s") as caught:
            await scheduler.submit_request(request(), api.call())
        assert isinstance(caught.value, TimeoutError)
        assert settled(scheduler)
        assert api.started == [None]


async def test_timeout_of_one_request(make, mode):
    api = Api().hold()
    async with make(mode, max_retries=0) as scheduler:
        with pytest.raises(RequestTimeoutError):
            await scheduler.submit_request(request(timeout=0.02), api.call())


async def test_one_timer_serves_requests_of_any_timeout(make):
    api = Api().hold()
    async with make() as scheduler:
        await scheduler.submit_request(request(), Api("first").call())  # until then, one goes at a time
        tasks = [
            asyncio.create_task(scheduler.submit_request(request(timeout=seconds), api.call()))
            for seconds in (30, 0.03, 0.01, 20)
        ]
        for task in (tasks[2], tasks[1]):
            with pytest.raises(RequestTimeoutError):
                await task
        assert not tasks[0].done()
        api.gate.set()
        assert await tasks[0] is None
        assert await tasks[3] is None


async def test_a_timeout_in_line_is_said_at_once_with_the_time(make, mode):
    async with make(mode, quotas={"unit": "requests", "limit": 60, "burst": 1}) as scheduler:
        await scheduler.submit_request(request(), Api().call())
        with pytest.raises(CapacityExceededError) as caught:
            await scheduler.submit_request(request(timeout=0.5), Api().call())
        expected = "account" if mode == "account" else "m"
        assert (caught.value.bucket_id, caught.value.retry_after) == (expected, pytest.approx(1.0))


async def test_a_cancelled_caller_is_gone(make, mode, settled, turn):
    api = Api().hold()
    async with make(mode, quotas={"unit": "requests", "limit": 60, "burst": 1}) as scheduler:
        running = asyncio.create_task(scheduler.submit_request(request(), api.call("running")))
        waiting = asyncio.create_task(scheduler.submit_request(request(), api.call("waiting")))
        await turn()
        for task in (running, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert api.started == ["running"]
        assert settled(scheduler)


async def test_cancelled_by_a_timeout_of_the_caller(make, settled):
    async with make() as scheduler:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(scheduler.submit_request(request(), Api().hold().call()), 0.02)
        assert settled(scheduler)
