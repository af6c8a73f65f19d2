"""What each way in adds to one call of no latency, in CPU microseconds, and to the first byte of a stream.

`python -m benchmarks.entry_points` prints the figures. LangChain's and LlamaIndex's chat models: see invoke.py and
llama_index.py.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport, observe_http
from benchmarks import compiled, turns
from benchmarks.invoke import HEADERS, REPLY
from langchain_adaptive_rate_limiter import AdaptiveEmbeddings
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter

URL = "http://provider.test/v1/chat/completions"
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
VECTORS = json.dumps(
    {
        "object": "list", "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
).encode()  # fmt: skip
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'


def mock(library: Any, content: bytes = REPLY) -> Any:
    return library.MockTransport(lambda _: library.Response(200, headers=HEADERS, content=content))


class Events(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for _ in range(20):
            yield EVENT


def streaming(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers=HEADERS | {"content-type": "text/event-stream"}, stream=Events())


def sync_call(library: Any, limited: bool) -> Callable[[], float]:
    inner = mock(library)
    client = library.Client(transport=AdaptiveTransport(Limiter(), inner) if limited else inner)
    return lambda: _timed(lambda: client.post(URL, json=CALL))


def async_call(library: Any, limited: bool) -> Callable[[], float]:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    inner = mock(library)
    client = library.AsyncClient(transport=AsyncAdaptiveTransport(Limiter(), inner) if limited else inner)
    return lambda: _timed(lambda: loop.run_until_complete(client.post(URL, json=CALL)))


def first_byte(limited: bool) -> Callable[[], float]:
    """From the request to the first event of the answer; the rest is read outside the time."""
    inner = httpx.MockTransport(streaming)
    client = httpx.Client(transport=AdaptiveTransport(Limiter(), inner) if limited else inner)

    def call() -> float:
        started = time.thread_time()
        with client.stream("POST", URL, json=CALL | {"stream": True}) as response:
            pieces = response.iter_raw()
            next(pieces)
            taken = time.thread_time() - started
            for _ in pieces:
                pass
        return taken

    return call


def by_hand(limited: bool) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx))
    if not limited:
        return lambda: _timed(lambda: client.post(URL, json=CALL))
    limiter = Limiter()
    observe_http()

    def call() -> None:
        with limiter.acquire("gpt-4o", prompt=CALL["messages"], max_tokens=64):
            client.post(URL, json=CALL)

    return lambda: _timed(call)


def langchain_embeddings(limited: bool) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx, VECTORS))
    model: Any = OpenAIEmbeddings(api_key="none", http_client=client, check_embedding_ctx_length=False)
    model = AdaptiveEmbeddings(model) if limited else model
    return lambda: _timed(lambda: model.embed_query("Hello"))


def llama_index_embeddings(limited: str) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx, VECTORS))
    model: Any = OpenAIEmbedding(api_key="none", http_client=client, max_retries=1)
    if limited == "wrapped":
        model = AdaptiveEmbedding(model)
    elif limited:
        model.rate_limiter = AdaptiveLimiter()
    return lambda: _timed(lambda: model.get_query_embedding("Hello"))


ENTRIES: dict[str, tuple[Callable[[], Callable[[], float]], Callable[[], Callable[[], float]]]] = {
    "AdaptiveTransport, httpx": (lambda: sync_call(httpx, False), lambda: sync_call(httpx, True)),
    "AdaptiveTransport, httpx2": (lambda: sync_call(httpx2, False), lambda: sync_call(httpx2, True)),
    "AsyncAdaptiveTransport, httpx": (lambda: async_call(httpx, False), lambda: async_call(httpx, True)),
    "AsyncAdaptiveTransport, httpx2": (lambda: async_call(httpx2, False), lambda: async_call(httpx2, True)),
    "observe_http and acquire": (lambda: by_hand(False), lambda: by_hand(True)),
    "AdaptiveEmbeddings": (lambda: langchain_embeddings(False), lambda: langchain_embeddings(True)),
    "AdaptiveEmbedding": (lambda: llama_index_embeddings(""), lambda: llama_index_embeddings("wrapped")),
    "AdaptiveLimiter of embeddings": (
        lambda: llama_index_embeddings(""), lambda: llama_index_embeddings("field"),
    ),
    "first byte of a stream": (lambda: first_byte(False), lambda: first_byte(True)),
}  # fmt: skip
"""Name -> makers of one timed call, without the limiter and with it."""


def _timed(call: Callable[[], Any]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def serve(name: str, limited: bool) -> None:
    warnings.simplefilter("ignore")
    turns.serve(ENTRIES[name][limited]())


def measure() -> dict[str, list[float]]:
    """For each way in: microseconds of one call without a limiter, and what it adds, in Python and compiled."""
    found = {}
    for name in ENTRIES:
        arms = {arm: ["benchmarks.entry_points", "--serve", name, arm] for arm in ("0", "1")}
        if compiled.PYTHON:
            arms["1" + turns.COMPILED] = arms["1"]
        plain, *limited = turns.measure(arms).values()
        found[name] = [plain, *(figure - plain for figure in limited)]
    return found


def lines(measured: dict[str, list[float]]) -> list[str]:
    heads = ("way in", "without a limiter", "added", "added by the compiled wheel")
    columns = 1 + max(map(len, measured.values()))
    rows = ["| " + " | ".join(heads[:columns]) + " |", "|---" * columns + "|"]
    rows += [
        f"| {name} | " + " | ".join(f"{figure:.0f}" for figure in row) + " |"
        for name, row in measured.items()
    ]
    return rows if compiled.PYTHON else [*rows, "", compiled.MISSING]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3] == "1")
    else:
        print("\n".join(lines(measure())))
