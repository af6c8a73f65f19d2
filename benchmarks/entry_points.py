"""What each way in adds to one call of no latency, in CPU microseconds, and to the first byte of a stream.

`python -m benchmarks.entry_points` prints the figures, or those of the ways in that are named after it. LangChain's and LlamaIndex's chat models: see invoke.py and
llama_index.py.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import httpx
import httpx2
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index_instrumentation import get_dispatcher

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport, observe_http
from benchmarks import turns
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


limiter = partial(Limiter, clock=turns.TIME)


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
    client = library.Client(transport=AdaptiveTransport(limiter(), inner) if limited else inner)
    return turns.timed(lambda: client.post(URL, json=CALL))


def async_call(library: Any, limited: bool) -> Callable[[], float]:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    inner = mock(library)
    client = library.AsyncClient(transport=AsyncAdaptiveTransport(limiter(), inner) if limited else inner)
    return turns.timed(lambda: loop.run_until_complete(client.post(URL, json=CALL)))


def first_byte(limited: bool) -> Callable[[], float]:
    """From the request to the first event of the answer; the rest is read outside the time."""
    inner = httpx.MockTransport(streaming)
    client = httpx.Client(transport=AdaptiveTransport(limiter(), inner) if limited else inner)

    def call() -> float:
        started = time.process_time()
        with client.stream("POST", URL, json=CALL | {"stream": True}) as response:
            pieces = response.iter_raw()
            next(pieces)
            taken = time.process_time() - started
            for _ in pieces:
                pass
        return taken

    return call


def by_hand(limited: bool) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx))
    if not limited:
        return turns.timed(lambda: client.post(URL, json=CALL))
    shared = limiter()
    observe_http()

    def call() -> None:
        with shared.acquire("gpt-4o", prompt=CALL["messages"], max_tokens=64):
            client.post(URL, json=CALL)

    return turns.timed(call)


def langchain_embeddings(limited: bool) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx, VECTORS))
    model: Any = OpenAIEmbeddings(api_key="none", http_client=client, check_embedding_ctx_length=False)
    model = AdaptiveEmbeddings(model, limiter=limiter()) if limited else model
    return turns.timed(lambda: model.embed_query("Hello"))


def llama_index_embeddings(limited: str) -> Callable[[], float]:
    client = httpx.Client(transport=mock(httpx, VECTORS))
    model: Any = OpenAIEmbedding(api_key="none", http_client=client, max_retries=1)
    if limited == "wrapped":
        model = AdaptiveEmbedding(model, limiter=limiter())
    elif limited:
        model.rate_limiter = AdaptiveLimiter(limiter())
    return turns.timed(lambda: model.get_query_embedding("Hello"))


_root = get_dispatcher()
UNWATCHED = [*_root.event_handlers], [*_root.span_handlers]  # before the first AdaptiveLimiter


def unwatched(call: Callable[[], float]) -> Callable[[], float]:
    """An AdaptiveLimiter has handlers that see all of its process."""

    def without() -> float:
        watching = _root.event_handlers, _root.span_handlers
        _root.event_handlers, _root.span_handlers = UNWATCHED
        try:
            return call()
        finally:
            _root.event_handlers, _root.span_handlers = watching

    return without


ENTRIES: dict[str, tuple[Callable[[], Callable[[], float]], Callable[[], Callable[[], float]]]] = {
    "AdaptiveTransport, httpx": (lambda: sync_call(httpx, False), lambda: sync_call(httpx, True)),
    "AdaptiveTransport, httpx2": (lambda: sync_call(httpx2, False), lambda: sync_call(httpx2, True)),
    "AsyncAdaptiveTransport, httpx": (lambda: async_call(httpx, False), lambda: async_call(httpx, True)),
    "AsyncAdaptiveTransport, httpx2": (lambda: async_call(httpx2, False), lambda: async_call(httpx2, True)),
    "observe_http and acquire": (lambda: by_hand(False), lambda: by_hand(True)),
    "AdaptiveEmbeddings": (lambda: langchain_embeddings(False), lambda: langchain_embeddings(True)),
    "AdaptiveEmbedding": (lambda: llama_index_embeddings(""), lambda: llama_index_embeddings("wrapped")),
    "AdaptiveLimiter of embeddings": (
        lambda: unwatched(llama_index_embeddings("")), lambda: llama_index_embeddings("field"),
    ),
    "first byte of a stream": (lambda: first_byte(False), lambda: first_byte(True)),
}  # fmt: skip
"""Name -> makers of one timed call, without the limiter and with it."""


def arms(name: str) -> turns.Arms:
    without, limited = ENTRIES[name]
    return {"without": without, "limited": limited}


def measure(asked: Iterable[str] = ()) -> dict[str, dict[str, turns.Figure]]:
    """For each way in: microseconds of one call without a limiter, and what it adds, in Python and compiled."""
    return turns.measure("benchmarks.entry_points", asked)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        warnings.simplefilter("ignore")
        turns.serve({name: partial(arms, name) for name in ENTRIES}, sys.argv[2:])
    else:
        print("\n".join(turns.lines(measure(sys.argv[1:]))))
