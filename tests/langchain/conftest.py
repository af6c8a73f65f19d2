import httpx
import pytest
from langchain_openai import ChatOpenAI

from langchain_adaptive_rate_limiter import AdaptiveLimiter


@pytest.fixture
def client():
    with httpx.Client(timeout=20) as client:
        yield client


@pytest.fixture
async def async_client():
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest.fixture
def limiter():
    return AdaptiveLimiter()


class Lab:
    """An emulated provider, and chat models that talk to it over HTTP."""

    def __init__(self, start):
        self._start = start

    def provider(self, name="openai", **options):
        options = {"latency": 0.005, "output_tokens": 12} | options
        return self._start(name, **options)

    def chat(self, emulator, client, limiter, **options):
        side = "http_client" if isinstance(client, httpx.Client) else "http_async_client"
        given = {"model": "gpt-4o", "max_tokens": 20, "api_key": "sk-test", side: client} | options
        return ChatOpenAI(base_url=emulator.base_url, rate_limiter=limiter, **given)


@pytest.fixture
def lab(provider_emulator):
    return Lab(provider_emulator)


@pytest.fixture
def bucket_of(limiter):
    """The only bucket; or that of a model."""

    def find(model=""):
        (found,) = [bucket for bucket in limiter.limiter.snapshot().buckets if model in bucket.bucket_id]
        return found

    return find


@pytest.fixture
def left(bucket_of):
    """What the limiter believes to be left, by unit; every call has ended."""

    def read(model=""):
        bucket = bucket_of(model)
        assert (bucket.in_flight, bucket.waiting) == (0, 0)
        return {limit.unit: round(limit.remaining) for limit in bucket.limits}

    return read
