"""What a limiter adds to one `ChatOpenAI.invoke` of no latency, in microseconds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import httpx
from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from langchain_adaptive_rate_limiter import AdaptiveLimiter

ROUNDS, CALLS = 15, 40

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


def measure() -> dict[str, float]:
    """Median microseconds of one call, per limiter; the rounds are interleaved, since machines are noisy."""
    models = {
        "none": _model(None),
        "in-memory": _model(InMemoryRateLimiter(requests_per_second=1e9, max_bucket_size=1e9)),
        "adaptive": _model(AdaptiveLimiter(Limiter())),
    }
    rounds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        _time(lambda model=model: model.invoke("Hello"))
    for _ in range(ROUNDS):
        for name, model in models.items():
            rounds[name].append(_time(lambda model=model: model.invoke("Hello")))
    return {name: statistics.median(times) for name, times in rounds.items()}


def _time(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1e6


if __name__ == "__main__":
    for name, microseconds in measure().items():
        print(f"{name:10s} {microseconds:8.1f} us")
