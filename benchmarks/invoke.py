"""What a limiter adds to one `ChatOpenAI.invoke` of no latency, in microseconds."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import httpx
from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter
from langchain_openai import ChatOpenAI

from adaptive_rate_limiter import Limiter
from langchain_adaptive_rate_limiter import AdaptiveLimiter

ROUNDS, CALLS = 40, 50
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
    """For every line that comes in, the microseconds of one call: the median of CALLS, in CPU time."""
    model = _model(_limiter(client))
    for _ in sys.stdin:
        taken = []
        for _ in range(CALLS):
            started = time.thread_time()
            model.invoke("Hello")
            taken.append(time.thread_time() - started)
        print(statistics.median(taken) * 1e6, flush=True)


def measure() -> dict[str, float]:
    """Microseconds of one call, per limiter, and what AdaptiveLimiter() added: medians of the rounds.

    Each has a process of its own, since an AdaptiveLimiter watches all of its process, and the processes take turns,
    since machines are noisy.
    """
    command = [sys.executable, "-m", "benchmarks.invoke"]
    with ExitStack() as stack:
        workers = {
            client: stack.enter_context(
                subprocess.Popen([*command, client], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for client in CLIENTS
        }
        rounds = [{client: _round(worker) for client, worker in workers.items()} for _ in range(ROUNDS)]
        for worker in workers.values():
            worker.stdin.close()
    del rounds[0]  # imports and first-use costs
    added = statistics.median(one["adaptive"] - one["none"] for one in rounds)
    return {client: statistics.median(one[client] for one in rounds) for client in CLIENTS} | {"added": added}


def _round(worker: subprocess.Popen[str]) -> float:
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1])
    else:
        for name, microseconds in measure().items():
            print(f"{name:10s} {microseconds:8.1f} us")
