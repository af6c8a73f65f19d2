"""A recorder such as VCR replays below the observation: limits are learned from a cassette, and nothing is sent."""

from pathlib import Path

import httpx
import httpx2
import openai
import pytest
import vcr
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.http import observe_http
from langchain_adaptive_rate_limiter import AdaptiveLimiter

CASSETTE = str(Path(__file__).parent / "cassettes" / "openai_chat.yaml")
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def replayed():
    with vcr.use_cassette(
        CASSETTE, record_mode="none", match_on=["method", "host", "path"], allow_playback_repeats=True
    ) as cassette:
        yield cassette


def _told(limiter):
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (1, 0)
    return {limit.unit: limit.limit for limit in bucket.limits}


LIMITS = {"requests": 500, "tokens": 30_000}


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_limits_are_learned_from_a_cassette(replayed, library):
    limiter = Limiter()
    with (
        library.Client() as http,
        openai.OpenAI(api_key="k", http_client=http) as client,
        observe_http(),
        limiter.acquire("gpt-4o"),
    ):
        client.chat.completions.create(**CALL)
    assert _told(limiter) == LIMITS
    assert replayed.play_count == 1


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_limits_are_learned_from_a_cassette_in_async(replayed, library):
    limiter = Limiter()
    async with library.AsyncClient() as http, openai.AsyncOpenAI(api_key="k", http_client=http) as client:
        with observe_http():
            async with await limiter.aacquire("gpt-4o"):
                await client.chat.completions.create(**CALL)
    assert _told(limiter) == LIMITS


def test_langchain_learns_from_a_cassette(replayed):
    limiter = AdaptiveLimiter()
    with httpx.Client() as http:
        ChatOpenAI(model="gpt-4o", api_key="k", http_client=http, rate_limiter=limiter).invoke("hello")
    assert _told(limiter.limiter) == LIMITS
