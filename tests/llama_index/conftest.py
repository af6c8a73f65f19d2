import httpx
import pytest
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from adaptive_rate_limiter import Limiter


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch):
    """Tokens are guessed by characters, as the emulator counts them, whatever another test has loaded."""
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})


@pytest.fixture
def client():
    with httpx.Client(timeout=20, verify=False) as client:
        yield client


@pytest.fixture
async def async_client():
    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        yield client


class Lab:
    """An emulated provider, and models that talk to it over HTTP."""

    def __init__(self, start, limiter):
        self._start = start
        self.limiter = limiter

    def provider(self, name="openai", **options):
        options = {"latency": 0.005, "output_tokens": 12} | options
        return self._start(name, **options)

    def llm(self, emulator, client, **options):
        given = {"model": "gpt-4o", "max_tokens": 20, "max_retries": 0, "api_key": "sk-test"} | options
        return OpenAI(api_base=emulator.base_url, **self._side(client), **given)

    def embedding(self, emulator, client, **options):
        given = {"model": "text-embedding-3-small", "max_retries": 0, "api_key": "sk-test"} | options
        return OpenAIEmbedding(api_base=emulator.url + "/v1", **self._side(client), **given)

    def _side(self, client):
        return {"http_client" if isinstance(client, httpx.Client) else "async_http_client": client}


@pytest.fixture
def limiter():
    return Limiter()


@pytest.fixture
def lab(provider_emulator, limiter):
    return Lab(provider_emulator, limiter)


@pytest.fixture
def bucket_of(limiter):
    """The only bucket; or that of a model."""

    def find(model=""):
        (found,) = [bucket for bucket in limiter.snapshot().buckets if model in bucket.bucket_id]
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


@pytest.fixture
def same_books(left):
    """Limiter and provider have counted the same."""

    def check(emulator, calls):
        stats = emulator.stats()
        assert (stats.admitted, stats.refused) == (calls, 0)
        assert left() == {name: round(amount) for name, amount in stats.remaining.items()}

    return check
