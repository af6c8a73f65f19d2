"""Real clients against a real server: limits are learned and kept, usage is settled, streams included."""

import asyncio
import time

import anthropic
import httpx
import openai
import pytest

from adaptive_rate_limiter import CapacityExceededError
from adaptive_rate_limiter.scheduler import RateLimiterConfig, create_scheduler
from adaptive_rate_limiter.testing import ProviderEmulator

from .conftest import Client, request

MESSAGES = [{"role": "user", "content": "What is two and two?"}]
BODY = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 16}


@pytest.fixture
def scheduler(mode, observed):
    config = RateLimiterConfig(rate_limit_buffer_ratio=1.0)
    return create_scheduler(Client(), mode, config, observe_http=observed)


@pytest.fixture(params=[True, False], ids=["observed", "not observed"])
def observed(request):
    return request.param


def limits_of(scheduler):
    (bucket,) = [bucket for bucket in scheduler.limiter.snapshot().buckets if bucket.admitted]
    assert (bucket.in_flight, bucket.waiting) == (0, 0)
    return {limit.unit: limit for limit in bucket.limits if limit.source == "told"}


async def test_a_batch_over_httpx_is_never_refused(scheduler):
    with ProviderEmulator(requests_per_minute=6000, burst=0.5, latency=(0.01, 0.05)) as provider:
        async with httpx.AsyncClient(base_url=provider.base_url) as http, scheduler:

            async def call():
                return await http.post("/chat/completions", json=BODY)

            calls = (scheduler.submit_request(request(n, model_id="gpt-4o"), call) for n in range(100))
            responses = await asyncio.gather(*calls)
    assert {response.status_code for response in responses} == {200}
    assert all(type(response) is httpx.Response for response in responses)
    assert provider.stats().refused <= 1  # a send may overtake another on its way
    assert limits_of(scheduler)["requests"].limit == 6000


async def test_openai(scheduler):
    with ProviderEmulator(requests_per_minute=600, tokens_per_minute=60_000, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url)
        async with client, scheduler:
            completion = await scheduler.submit_request(
                request(model_id="gpt-4o", estimated_tokens=5000),
                lambda: client.chat.completions.create(**BODY),
            )
            raw = await scheduler.submit_request(
                request(model_id="gpt-4o", estimated_tokens=5000),
                lambda: client.chat.completions.with_raw_response.create(**BODY),
            )
    assert type(completion) is openai.types.chat.ChatCompletion
    assert raw.headers["x-ratelimit-limit-requests"] == "600"
    assert raw.parse().usage == completion.usage
    limits = limits_of(scheduler)
    assert (limits["requests"].limit, limits["tokens"].limit) == (600, 60_000)
    assert limits["tokens"].remaining > 50_000  # not 10,000 less


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_of_openai(scheduler, usage):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    with ProviderEmulator(tokens_per_minute=60_000, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url)
        async with client, scheduler:
            stream = await scheduler.submit_request(
                request(model_id="gpt-4o", estimated_tokens=5000),
                lambda: client.chat.completions.create(**BODY, stream=True, **options),
            )
            assert stream.response.headers["x-ratelimit-limit-tokens"] == "60000"
            assert scheduler.get_metrics()["open_streams"] == 1
            chunks = [chunk async for chunk in stream]
            assert scheduler.get_metrics()["open_streams"] == 0
            remaining = limits_of(scheduler)["tokens"].remaining
    assert type(chunks[0]) is openai.types.chat.ChatCompletionChunk
    total = sum(chunk.usage.total_tokens for chunk in chunks if chunk.usage)
    assert (total > 0) is usage
    if usage:
        assert 59_000 < remaining + total <= 60_000


async def test_anthropic(scheduler):
    with ProviderEmulator("anthropic", requests_per_minute=600, input_tokens_per_minute=60_000) as provider:
        client = anthropic.AsyncAnthropic(api_key="none", base_url=provider.base_url)
        ask = {"model": "claude", "messages": MESSAGES, "max_tokens": 16}
        async with client, scheduler:
            metadata = request(model_id="claude", estimated_tokens=5000)
            message = await scheduler.submit_request(metadata, lambda: client.messages.create(**ask))
            stream = await scheduler.submit_request(
                metadata, lambda: client.messages.create(**ask, stream=True)
            )
            async with stream:
                events = [event.type async for event in stream]
    assert type(message) is anthropic.types.Message
    assert events[0] == "message_start"
    limits = limits_of(scheduler)
    assert (limits["requests"].limit, limits["input_tokens"].limit) == (600, 60_000)
    assert limits["input_tokens"].remaining > 45_000


async def test_a_refusal_raised_by_an_sdk_is_waited_out(mode, observed):
    """Two at once, then one each second. The SDK makes no attempts of its own."""
    scheduler = create_scheduler(Client(), mode, observe_http=observed)
    with ProviderEmulator(requests_per_minute=60, burst=2.0, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url, max_retries=0)
        await asyncio.gather(*(client.chat.completions.create(**BODY) for _ in range(2)))  # somebody else's
        async with client, scheduler:
            started = time.monotonic()
            answer = await scheduler.submit_request(
                request(model_id="gpt-4o"), lambda: client.chat.completions.create(**BODY)
            )
    assert answer.usage
    assert provider.stats().refused == 1
    assert 0.2 < time.monotonic() - started < 4.0


async def test_a_refused_response_that_is_returned_is_waited_out(mode, observed):
    scheduler = create_scheduler(Client(), mode, observe_http=observed)
    with ProviderEmulator(requests_per_minute=60, burst=2.0, latency=0.01) as provider:
        async with httpx.AsyncClient(base_url=provider.base_url) as http, scheduler:
            for _ in range(2):
                await http.post("/chat/completions", json=BODY)  # somebody else's
            response = await scheduler.submit_request(
                request(model_id="gpt-4o"), lambda: http.post("/chat/completions", json=BODY)
            )
    assert response.status_code == 200
    assert provider.stats().refused == 1


async def test_usage_is_seen_on_the_wire_where_the_result_tells_none(mode):
    with ProviderEmulator(tokens_per_minute=60_000, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url)

        async def ask():
            completion = await client.chat.completions.create(**BODY)
            return completion.choices[0].message.content

        async with client, create_scheduler(Client(), mode) as scheduler:
            await scheduler.submit_request(request(model_id="gpt-4o", estimated_tokens=5000), ask)
            (bucket,) = [b for b in scheduler.limiter.snapshot().buckets if b.admitted]
    assert bucket.tally.overestimated > 4000


async def test_who_retries_inside_is_not_retried_outside(mode):
    with ProviderEmulator(faults=[500, 500, 500, 500]) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url, max_retries=1)
        async with client, create_scheduler(Client(), mode) as scheduler:
            with pytest.raises(openai.InternalServerError):
                await scheduler.submit_request(
                    request(model_id="gpt-4o"), lambda: client.chat.completions.create(**BODY)
                )
    assert provider.stats().faults == 2


async def test_the_last_refusal_of_an_sdk_is_the_cause(mode, observed):
    scheduler = create_scheduler(Client(), mode, RateLimiterConfig(max_retries=0), observe_http=observed)
    with ProviderEmulator(requests_per_minute=1, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url, max_retries=0)
        await client.chat.completions.create(**BODY)
        async with client, scheduler:
            with pytest.raises(CapacityExceededError) as caught:
                await scheduler.submit_request(
                    request(model_id="gpt-4o"), lambda: client.chat.completions.create(**BODY)
                )
    assert isinstance(caught.value.__cause__, openai.RateLimitError)
    assert caught.value.bucket_id == ("account" if mode == "account" else "gpt-4o")
    assert 50 < caught.value.retry_after <= 60


async def test_an_sdk_that_sleeps_out_a_refusal_does_not_time_out(mode):
    """It would be cut off by request_timeout; instead it goes back into line, and is sent when that is over."""
    config = RateLimiterConfig(request_timeout=0.3)
    with ProviderEmulator(requests_per_minute=60, burst=1.0, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url, max_retries=2)
        await client.chat.completions.create(**BODY)
        async with client, create_scheduler(Client(), mode, config) as scheduler:
            answer = await scheduler.submit_request(
                request(model_id="gpt-4o"), lambda: client.chat.completions.create(**BODY)
            )
    assert answer.usage
    assert provider.stats().refused == 1


async def test_a_stream_that_is_sent_when_it_is_read(mode):
    with ProviderEmulator(requests_per_minute=600, latency=0.01) as provider:
        client = openai.AsyncOpenAI(api_key="none", base_url=provider.base_url)

        async def ask():
            async for chunk in await client.chat.completions.create(**BODY, stream=True):
                yield chunk

        async with client, create_scheduler(Client(), mode) as scheduler:
            stream = await scheduler.submit_request(request(model_id="gpt-4o"), ask)
            assert len([chunk async for chunk in stream]) > 1
            assert limits_of(scheduler)["requests"].limit == 600


async def test_a_server_that_is_not_there(mode, observed):
    config = RateLimiterConfig(max_retries=0)
    async with create_scheduler(Client(), mode, config, observe_http=observed) as scheduler:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as http:
            with pytest.raises(httpx.ConnectError):
                await scheduler.submit_request(request(), lambda: http.post("/", json=BODY))
        assert all(bucket.in_flight == 0 for bucket in scheduler.limiter.snapshot().buckets)
