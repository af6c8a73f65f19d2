"""What a limiter adds to one `ChatOpenAI.invoke` of no latency, in microseconds."""

from __future__ import annotations

import json
import sys
import time

import httpx
from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from benchmarks import compiled, turns
from langchain_adaptive_rate_limiter import AdaptiveLimiter

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
        return AdaptiveLimiter(Limiter())
    if client == "in-memory":
        return InMemoryRateLimiter(requests_per_second=1e9, max_bucket_size=1e9)
    return None


def serve(client: str) -> None:
    model = _model(_limiter(client))

    def call() -> float:
        started = time.thread_time()
        model.invoke("Hello")
        return time.thread_time() - started

    turns.serve(call)


def measure() -> dict[str, float]:
    """Microseconds of one call, per limiter. An AdaptiveLimiter watches all of its process, so each has its own."""
    arms = {client: ["benchmarks.invoke", client] for client in CLIENTS}
    if compiled.PYTHON:
        arms["adaptive" + turns.COMPILED] = arms["adaptive"]
    return turns.measure(arms)


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1])
    else:
        for name, microseconds in measure().items():
            print(f"{name:20s} {microseconds:8.1f} us")
