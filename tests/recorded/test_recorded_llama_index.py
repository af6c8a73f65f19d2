"""Recorded responses through LlamaIndex's models: under AdaptiveLLM, and with a limiter in their own field."""

import json

import httpx
import openai
import pytest
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from tests.recorded.cassettes import replay, request_of
from tests.recorded.expected import LIMITS

from llama_index.llms.adaptive_rate_limiter import AdaptiveLimiter, AdaptiveLLM

CALLED = [
    "cerebras/200-float-seconds",
    "github-models/200-2025-shared-pool",
    "groq/200-50000rpd-refill",
    "groq/200-rpd-reset-5h18m",
    "mistral/200-req-10-second",
    "openai/200-project-tokens",
    "openai/200-rpd-reset-1h8m",
    "together/200-2024",
]
STREAMED = [
    "groq/200-stream-30ms",
    "mistral/200-stream-bysize-2024",
    "openai/200-stream-input-images",
    "sambanova/200-stream",
]


@pytest.fixture
async def clients():
    with httpx.Client(verify=False) as http:
        async with httpx.AsyncClient(verify=False) as ahttp:
            yield {"http_client": http, "async_http_client": ahttp}


@pytest.fixture(params=["wrapper", "field"])
def llm(request, limiter, clients):
    """The model that sends what was recorded, under either way in."""

    def model_for(case):
        recorded = request_of(case)
        model = json.loads(recorded["body"])["model"]
        given = {
            "model": model, "api_key": "none", "max_retries": 0, **clients,
            "api_base": recorded["uri"].removesuffix("/chat/completions"),
        }  # fmt: skip
        kind = OpenAI if case.startswith("openai/") else OpenAILike
        if kind is OpenAILike:
            given["is_chat_model"] = True
        if request.param == "field":
            return kind(rate_limiter=AdaptiveLimiter(limiter), **given)
        return AdaptiveLLM(llm=kind(**given), limiter=limiter)

    return model_for


@pytest.fixture
def learned(limiter):
    """What was learned from the only call; it has ended."""

    def read():
        (bucket,) = limiter.snapshot().buckets
        assert (bucket.admitted, bucket.in_flight) == (1, 0)
        return sorted((limit.unit, limit.limit, limit.window) for limit in bucket.limits)

    return read


def told(case):
    return sorted(limit[:3] for limit in LIMITS[case])


@pytest.mark.parametrize("case", CALLED)
async def test_complete_learns(case, llm, learned):
    with replay(case):
        assert "Hello!" in (await llm(case).acomplete("Hello")).text
    assert learned() == told(case)


@pytest.mark.parametrize("case", STREAMED)
async def test_stream_learns(case, llm, learned):
    with replay(case):
        parts = [part.delta async for part in await llm(case).astream_complete("Hello")]
    assert "".join(part or "" for part in parts) == "Hello!"
    assert learned() == told(case)


@pytest.mark.parametrize("llm", ["wrapper"], indirect=True)
async def test_a_refusal_is_waited_out_to_the_millisecond(llm, finish, limiter):
    with replay("groq/429-tpm-59-977s", "groq/200-50000rpd-refill") as cassette:
        reply, seconds = await finish(llm("groq/429-tpm-59-977s").acomplete("Hello"))
    assert "Hello!" in reply.text
    assert 59.977 <= seconds <= 60.5
    assert cassette.play_count == 2
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)


@pytest.mark.parametrize("case", ["openai/429-insufficient-quota", "openai/429-request-too-large"])
async def test_what_no_wait_cures_reaches_the_caller_after_one_response(case, llm, finish, limiter):
    with replay(case, case) as cassette, pytest.raises(openai.RateLimitError):
        await finish(llm(case).acomplete("Hello"))
    assert cassette.play_count == 1
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)
