"""One Limiter, one key, one limit: two frameworks, their embeddings and a bare SDK, none of them refused.

`python -m tests.test_one_budget PROVIDER REDIS` is another process that shares them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI as LlamaIndexOpenAI
from openai import AsyncOpenAI, OpenAI

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport
from adaptive_rate_limiter.testing import ProviderEmulator
from langchain_adaptive_rate_limiter import AdaptiveEmbeddings
from langchain_adaptive_rate_limiter import AdaptiveLimiter as ForLangChain
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLLM
from llama_index.llms.adaptive_rate_limiter import AdaptiveLimiter as ForLlamaIndex

MODEL = "gpt-4o"  # one name for all, embeddings included, since a limit belongs to a model
LIMIT, EACH = 30, 6  # requests a second, calls of each of the six clients
PROMPT = "How many?"


class Clients:
    """Six ways to one provider: `sync` and `asynchronous` by name, each making one call."""

    def __init__(self, base_url: str, limiter: Limiter, http: httpx.Client, ahttp: httpx.AsyncClient):
        given = {"model": MODEL, "api_key": "k", "max_retries": 0}
        langchain = {**given, "base_url": base_url, "http_client": http, "http_async_client": ahttp}
        llama = {
            "api_key": "k",
            "api_base": base_url,
            "http_client": http,
            "async_http_client": ahttp,
        }
        self._transport = AdaptiveTransport(limiter)
        self._atransport = AsyncAdaptiveTransport(limiter)
        bare = {"api_key": "k", "base_url": base_url, "max_retries": 0}
        self._client = OpenAI(http_client=httpx.Client(transport=self._transport), **bare)
        self._aclient = AsyncOpenAI(http_client=httpx.AsyncClient(transport=self._atransport), **bare)
        chat = ChatOpenAI(rate_limiter=ForLangChain(limiter=limiter), **langchain)
        embeddings = AdaptiveEmbeddings(
            OpenAIEmbeddings(check_embedding_ctx_length=False, **langchain), limiter
        )
        llm = AdaptiveLLM(llm=LlamaIndexOpenAI(model=MODEL, max_retries=0, **llama), limiter=limiter)
        field = LlamaIndexOpenAI(
            model=MODEL, max_retries=0, rate_limiter=ForLlamaIndex(limiter=limiter), **llama
        )
        embedding = AdaptiveEmbedding(OpenAIEmbedding(model_name=MODEL, max_retries=1, **llama), limiter)
        said = [ChatMessage(role="user", content=PROMPT)]
        messages = [{"role": "user", "content": PROMPT}]
        self.sync = {
            "LangChain": lambda: chat.invoke(PROMPT),
            "LangChain's embeddings": lambda: embeddings.embed_query(PROMPT),
            "AdaptiveLLM": lambda: llm.chat(said),
            "rate_limiter=": lambda: field.chat(said),
            "LlamaIndex's embeddings": lambda: embedding.get_text_embedding(PROMPT),
            "the SDK": lambda: self._client.chat.completions.create(model=MODEL, messages=messages),
        }
        self.asynchronous = {
            "LangChain": lambda: chat.ainvoke(PROMPT),
            "LangChain's embeddings": lambda: embeddings.aembed_query(PROMPT),
            "AdaptiveLLM": lambda: llm.achat(said),
            "rate_limiter=": lambda: field.achat(said),
            "LlamaIndex's embeddings": lambda: embedding.aget_text_embedding(PROMPT),
            "the SDK": lambda: self._aclient.chat.completions.create(model=MODEL, messages=messages),
        }

    async def close(self) -> None:
        self._client.close()
        await self._aclient.close()


@pytest.fixture
async def build():
    made = []
    with httpx.Client(timeout=20, verify=False) as http:
        async with httpx.AsyncClient(timeout=20, verify=False) as ahttp:

            def start(provider, limiter):
                made.append(Clients(provider.base_url, limiter, http, ahttp))
                return made[-1]

            yield start
            for clients in made:
                await clients.close()


def in_threads(clients):
    """Each of `clients` calls EACH times in a thread of its own; the errors."""
    failed = []

    def work(call):
        try:
            for _ in range(EACH):
                call()
        except Exception as error:  # noqa: BLE001 - of any kind
            failed.append(error)

    threads = [threading.Thread(target=work, args=(call,)) for call in clients.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def _check(provider, limiter, seconds, calls):
    stats = provider.stats()
    assert (stats.admitted, stats.refused) == (calls, 0)
    assert seconds >= (calls - LIMIT) / LIMIT
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight, bucket.waiting) == (calls, 0, 0)


async def test_all_of_them_in_threads_share_one_budget(build):
    with ProviderEmulator("ietf", requests_per_minute=LIMIT, window=1.0, latency=0.005) as provider:
        limiter = Limiter()
        clients = build(provider, limiter).sync
        clients["AdaptiveLLM"]()  # tells the limit
        started = time.monotonic()
        assert not await asyncio.to_thread(in_threads, clients)
        _check(provider, limiter, time.monotonic() - started, 1 + EACH * len(clients))


async def test_all_of_them_in_one_loop_share_one_budget(build):
    with ProviderEmulator("ietf", requests_per_minute=LIMIT, window=1.0, latency=0.005) as provider:
        limiter = Limiter()
        clients = build(provider, limiter).asynchronous
        await clients["the SDK"]()
        started = time.monotonic()
        await asyncio.gather(*(call() for call in clients.values() for _ in range(EACH)))
        _check(provider, limiter, time.monotonic() - started, 1 + EACH * len(clients))


@pytest.fixture
def redis_url(tmp_path):
    pytest.importorskip("redis")
    from tests.redis.server import Server

    with Server(tmp_path) as server:
        yield server.url


def test_all_of_them_in_two_processes_share_one_budget(redis_url):
    with ProviderEmulator("ietf", requests_per_minute=60, window=6.0, latency=0.005) as provider:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.test_one_budget",
            provider.base_url,
            redis_url,
        ]
        other = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "ready\n"
        main(provider.base_url, redis_url)
        other.communicate(timeout=50)
        stats = provider.stats()
    assert other.returncode == 0
    assert stats.admitted == 2 * 6 * EACH  # more than fit into a window
    assert stats.refused <= 1


def main(base_url: str, redis_url: str) -> None:
    from adaptive_rate_limiter.backends import RedisBackend

    backend = RedisBackend(redis_url, namespace="one-budget")
    with httpx.Client(timeout=20, verify=False) as http:
        clients = Clients(base_url, Limiter(backend), http, httpx.AsyncClient(verify=False))
        print("ready", flush=True)
        failed = in_threads(clients.sync)
        asyncio.run(clients.close())
    backend.close()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
