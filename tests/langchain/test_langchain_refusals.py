"""Refusals: those that time cures are retried after admission; the others reach the caller at once, unchanged."""

import json

import anthropic
import httpx
import httpx2
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from langchain_adaptive_rate_limiter import AdaptiveLimiter

# The library whose clients Anthropic's SDK takes: once httpx, now httpx2.
ANTHROPICS = httpx if issubclass(anthropic.DefaultHttpxClient, httpx.Client) else httpx2
SPENT = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}
LARGE = {
    "type": "error",
    "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"},
}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


class Wire:
    """Answers with a script, below everything that is tested, and counts."""

    def __init__(self, library, *answers):
        self.library, self.answers, self.requests = library, list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return self.library.Response(status, headers=headers, json=body)

    def openai(self, limiter, **options):
        client = self.library.Client(transport=self.library.MockTransport(self))
        return ChatOpenAI(model="gpt-4o", api_key="k", http_client=client, rate_limiter=limiter, **options)

    def aopenai(self, limiter):
        client = self.library.AsyncClient(transport=self.library.MockTransport(self))
        return ChatOpenAI(model="gpt-4o", api_key="k", http_async_client=client, rate_limiter=limiter)

    def anthropic(self, limiter):
        client = self.library.Client(transport=self.library.MockTransport(self))
        llm = ChatAnthropic(model="claude-next", api_key="k", max_tokens=10, rate_limiter=limiter)
        llm.__dict__["_client"] = anthropic.Anthropic(api_key="k", http_client=client)
        return llm


@pytest.mark.parametrize("form", ["invoke", "stream"])
def test_a_spent_quota_surfaces_after_one_attempt(form, limiter):
    wire = Wire(httpx, (429, {}, SPENT))
    llm = wire.openai(limiter)
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as raised:
        llm.invoke("hello") if form == "invoke" else list(llm.stream("hello"))
    (note,) = raised.value.__notes__
    assert note == "adaptive-rate-limiter: default/gpt-4o refused this call: quota_exhausted"
    assert len(wire.requests) == 1
    assert limiter.limiter.snapshot().buckets[0].in_flight == 0


async def test_a_spent_quota_surfaces_after_one_attempt_in_async(limiter):
    wire = Wire(httpx, (429, {}, SPENT))
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as raised:
        await wire.aopenai(limiter).ainvoke("hello")
    assert "quota_exhausted" in str(raised.value.__notes__)
    assert len(wire.requests) == 1


def test_a_request_that_is_too_large_surfaces_after_one_attempt(lab, client, limiter, bucket_of):
    emulator = lab.provider(tokens_per_minute=100)
    with pytest.raises(openai.RateLimitError, match="too large"):
        lab.chat(emulator, client, limiter).invoke("word" * 1000)
    assert emulator.stats().requests == 1
    assert bucket_of().in_flight == 0
    assert lab.chat(emulator, client, limiter).invoke("hello").content  # the bucket is not paused by it


def test_anthropics_refusal_of_size_surfaces_after_one_attempt(limiter):
    wire = Wire(ANTHROPICS, (413, {}, LARGE))
    with pytest.raises(anthropic.APIStatusError, match="maximum size"):
        wire.anthropic(limiter).invoke("hello")
    assert len(wire.requests) == 1


def test_a_wait_of_a_day_surfaces_after_one_attempt(limiter):
    body = {
        "error": {
            "message": "Rate limit reached on requests per day",
            "type": "requests",
            "code": "rate_limit_exceeded",
        }
    }
    wire = Wire(httpx, (429, {"retry-after": "73192"}, body))
    with pytest.raises(openai.RateLimitError, match="requests per day") as raised:
        wire.openai(limiter).invoke("hello")
    assert "it may pass in 73192 s" in str(raised.value.__notes__)
    assert len(wire.requests) == 1


def test_the_sdks_retry_waits_for_admission(lab, client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    with httpx.Client(base_url=emulator.url) as stranger:  # takes the whole limit, which nobody has told yet
        stranger.post(
            "/v1/chat/completions", json={"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
        )
    assert lab.chat(emulator, client, limiter).invoke("hello").content
    stats = emulator.stats()
    assert (stats.refused, stats.requests) == (1, 3)
    assert (bucket_of().admitted, bucket_of().refused, bucket_of().in_flight) == (2, 1, 0)


async def test_the_sdks_retry_waits_for_admission_in_async(lab, async_client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    await async_client.post(
        emulator.base_url + "/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]},
    )
    assert (await lab.chat(emulator, async_client, limiter).ainvoke("hello")).content
    assert (emulator.stats().refused, emulator.stats().requests) == (1, 3)
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)


def test_a_retry_that_may_not_wait_gets_the_providers_refusal():
    """Not our error, which the SDK would take for a broken connection and try again."""
    limited = {
        "error": {
            "message": "Rate limit reached. Please try again in 20s.",
            "type": "requests",
            "code": "rate_limit_exceeded",
        }
    }
    wire = Wire(httpx, (429, {"retry-after-ms": "20"}, limited))
    limiter = AdaptiveLimiter(quotas=[{"unit": "requests", "limit": 1, "window": 50}], max_wait=0.3)
    with pytest.raises(openai.RateLimitError, match="try again in 20s"):
        wire.openai(limiter).invoke("hello")
    assert len(wire.requests) == 1


def test_an_overloaded_provider_is_tried_again(limiter):
    good = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-next", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip
    wire = Wire(
        ANTHROPICS, (529, {"retry-after-ms": "10", "retry-after": "0.01"}, OVERLOADED), (200, {}, good)
    )
    assert wire.anthropic(limiter).invoke("hello").content == "hi"
    assert len(wire.requests) == 2


def test_two_keys_have_two_buckets(lab, client):
    shared = Limiter()
    emulator = lab.provider(requests_per_minute=1000)
    for key in ("one", "two"):
        lab.chat(emulator, client, AdaptiveLimiter(shared), api_key=key).invoke("hello")
    buckets = shared.snapshot().buckets
    assert len(buckets) == 2
    assert [bucket.in_flight for bucket in buckets] == [0, 0]
    assert not any("one" in json.dumps(bucket.bucket_id) for bucket in buckets)
