"""Recorded responses through LangChain's models, with `rate_limiter=AdaptiveLimiter()` as the whole set-up."""

import json

import anthropic
import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from tests.recorded.cassettes import replay, request_of
from tests.recorded.expected import LIMITS

from adaptive_rate_limiter import CapacityExceededError
from langchain_adaptive_rate_limiter import AdaptiveLimiter

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

CALLED = [
    "anthropic/200-2024-fixed-window",
    "anthropic/200-retry-after-8-resets-past",
    "azure-openai/200-2024-remaining-only",
    "cerebras/200-float-seconds",
    "github-models/200-2025-shared-pool",
    "groq/200-rpd-reset-5h18m",
    "litellm-proxy/200-prefixed-copy",
    "mistral/200-req-10-second",
    "openai/200-project-tokens",
    "openai/200-rpd-reset-1h8m",
    "together/200-2024",
]
STREAMED = [
    "anthropic/200-stream-requests-only",
    "anthropic/200-stream-thinking-reserve",
    "azure-openai/200-stream-full-set",
    "groq/200-stream-30ms",
    "huggingface/router-200-together",
    "mistral/200-stream-bysize-2024",
    "openai/200-stream-input-images",
    "sambanova/200-stream",
]


@pytest.fixture
def http():
    with httpx.Client(verify=False) as client:
        yield client


@pytest.fixture
async def ahttp():
    async with httpx.AsyncClient(verify=False) as client:
        yield client


@pytest.fixture
def chat(limiter, http, ahttp):
    """The chat model that sends what was recorded."""
    rate_limiter = AdaptiveLimiter(limiter)

    def model_for(case):
        request = request_of(case)
        uri, body = request["uri"], json.loads(request["body"])
        given = {"api_key": "none", "rate_limiter": rate_limiter}
        if uri.endswith("/v1/messages"):
            return ChatAnthropic(model=body["model"], max_tokens=body["max_tokens"], **given)
        given |= {"http_client": http, "http_async_client": ahttp, "stream_usage": True}
        if "/deployments/" in uri:
            return AzureChatOpenAI(
                azure_endpoint=uri.partition("/openai/")[0],
                azure_deployment=uri.split("/")[5],
                api_version="2024-10-21",
                **given,
            )
        return ChatOpenAI(model=body["model"], base_url=uri.removesuffix("/chat/completions"), **given)

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
def test_invoke_learns(case, chat, learned):
    with replay(case):
        assert chat(case).invoke("Hello").content == "Hello!"
    assert learned() == told(case)


@pytest.mark.parametrize("case", CALLED)
async def test_ainvoke_learns(case, chat, learned):
    with replay(case):
        assert (await chat(case).ainvoke("Hello")).content == "Hello!"
    assert learned() == told(case)


@pytest.mark.parametrize("case", STREAMED)
def test_stream_learns(case, chat, learned):
    with replay(case):
        assert "".join(chunk.text for chunk in chat(case).stream("Hello")) == "Hello!"
    assert learned() == told(case)


@pytest.mark.parametrize("case", STREAMED)
async def test_astream_learns(case, chat, learned):
    with replay(case):
        assert "".join([chunk.text async for chunk in chat(case).astream("Hello")]) == "Hello!"
    assert learned() == told(case)


CURED = {  # a refusal, a success of the same provider, and the seconds between them
    "anthropic/529-overloaded": ("anthropic/200-2024-fixed-window", 1),
    "azure-openai/429-retry-45": ("azure-openai/200-2024-remaining-only", 45),
    "github-models/429-minute": ("github-models/200-2025-shared-pool", 44),
    "groq/429-tpm-59-977s": ("groq/200-50000rpd-refill", 59.977),
    "openai/503-envoy-text": ("openai/200-rpd-reset-1h8m", 1),
}


@pytest.mark.parametrize("refusal", CURED)
async def test_the_retry_inside_a_model_waits_for_the_provider(refusal, chat, finish, limiter):
    success, least = CURED[refusal]
    with replay(refusal, success) as cassette:
        reply, seconds = await finish(chat(refusal).ainvoke("Hello"))
    assert reply.content == "Hello!"
    assert least <= seconds <= least + 0.5
    assert cassette.play_count == 2
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)


@pytest.mark.parametrize(
    "case",
    [
        "anthropic/429-extra-usage-required",
        "azure-openai/429-retry-86400",
        "groq/429-1m0-363s",
        "moonshot/429-tpd",
        "ollama-cloud/429-session",
        "openai/429-insufficient-quota",
        "openai/429-request-too-large",
        "openai/429-rpd-7m12s",
        "openrouter/429-free-per-day",
    ],
)
async def test_what_no_wait_cures_reaches_the_caller_after_one_response(case, chat, finish, clock, limiter):
    refused = pytest.raises((openai.RateLimitError, anthropic.RateLimitError))
    with replay(case, case, case) as cassette, refused:
        await finish(chat(case).ainvoke("Hello"))
    assert cassette.play_count == 1
    assert clock.now() < 2
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)


@pytest.mark.parametrize(
    ("case", "seconds"),
    [
        ("azure-openai/429-retry-86400", 86_400),
        ("openai/429-rpd-7m12s", 432),
        ("openai/429-insufficient-quota", 3600),
    ],
)
def test_the_next_call_of_a_model_whose_quota_is_spent_is_refused_with_the_time(case, seconds, chat):
    with replay(case, case) as cassette:
        model = chat(case)
        with pytest.raises(openai.RateLimitError):
            model.invoke("Hello")
        with pytest.raises(CapacityExceededError) as refused:
            model.invoke("Hello")
    assert refused.value.retry_after == pytest.approx(seconds)
    assert cassette.play_count == 1


def test_another_model_goes_on_when_one_has_spent_its_quota(chat):
    with replay("openai/429-rpd-7m12s", "openai/200-project-tokens"):
        with pytest.raises(openai.RateLimitError):
            chat("openai/429-rpd-7m12s").invoke("Hello")
        assert chat("openai/200-project-tokens").invoke("Hello").content == "Hello!"
