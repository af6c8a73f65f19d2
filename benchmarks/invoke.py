"""What a limiter adds to one `ChatOpenAI.invoke` of no latency, in microseconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

import httpx
from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from benchmarks import turns
from langchain_adaptive_rate_limiter import AdaptiveLimiter, callbacks

CLIENTS = ("none", "in-memory", "adaptive")

REPLY = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
).encode()  # fmt: skip
HEADERS = {
    "content-type": "application/json",
    "x-ratelimit-limit-requests": "30000000",
    "x-ratelimit-remaining-requests": "29999999",
    "x-ratelimit-reset-requests": "0s",
    "x-ratelimit-limit-tokens": "3000000000",
    "x-ratelimit-remaining-tokens": "2999999900",
    "x-ratelimit-reset-tokens": "0s",
}


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers=HEADERS, content=REPLY, request=request)


def _model(limiter: BaseRateLimiter | None) -> ChatOpenAI:
    client = httpx.Client(transport=httpx.MockTransport(_answer))
    return ChatOpenAI(model="gpt-4o", api_key="none", http_client=client, rate_limiter=limiter, max_retries=0)


def _limiter(client: str) -> BaseRateLimiter | None:
    if client == "adaptive":
        return AdaptiveLimiter(Limiter(clock=turns.TIME))
    if client == "in-memory":
        return InMemoryRateLimiter(requests_per_second=1e9, max_bucket_size=1e9)
    return None


def _unobserved(call: Callable[[], float]) -> Callable[[], float]:
    """An AdaptiveLimiter has all runs of its process observed."""
    context = copy_context()
    context.run(callbacks._observed.set, None)
    return lambda: context.run(call)


def call(client: str) -> Callable[[], float]:
    timed = turns.timed(partial(_model(_limiter(client)).invoke, "Hello"))
    return timed if client == "adaptive" else _unobserved(timed)


def arms() -> turns.Arms:
    return {client: partial(call, client) for client in CLIENTS}


def measure() -> dict[str, turns.Figure]:
    """Microseconds of one call without a limiter, and what each adds to it."""
    return turns.measure("benchmarks.invoke")["invoke"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        turns.serve({"invoke": arms}, sys.argv[2:])
    else:
        for name, microseconds in measure().items():
            print(f"{name:20s} {microseconds} us")
