"""A scheduler at work: the same code for this library and for the release on the registry, which has its import name.

`python -m benchmarks.scheduler_client overhead` or `... goodput URL`, under the interpreter that has the one to be measured.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx2

import adaptive_rate_limiter
from adaptive_rate_limiter import TEXT, DiscoveredBucket, ProviderInterface, RateLimitInfo, RequestMetadata
from adaptive_rate_limiter.backends import MemoryBackend
from adaptive_rate_limiter.scheduler import RateLimiterConfig, create_scheduler

OURS = hasattr(adaptive_rate_limiter, "Limiter")
MODES = ("basic", "intelligent", "account")
CONCURRENCIES = (1, 100, 1000)
PLENTY = 10**8  # a minute
LONGEST = 1.0  # seconds of one measurement
MOST = 20_000  # requests in one measurement
MODEL = "gpt-4o"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}


HEADERS = {
    f"x-ratelimit-{figure}-{unit}": str(value)
    for unit in ("requests", "tokens")
    for figure, value in (("limit", PLENTY), ("remaining", PLENTY - 1), ("reset", 1))
}


class Client:
    base_url = "https://api.example.com"
    timeout = 30.0

    def get_headers(self) -> dict[str, str]:
        return {}


class Provider(ProviderInterface):
    """Knows the limits from the start. The registry's release asks it for nothing else."""

    def __init__(self, requests: int) -> None:
        self.buckets = {MODEL: DiscoveredBucket(MODEL, rpm_limit=requests, tpm_limit=PLENTY)}

    name = "measured"

    async def discover_limits(self, *_: Any) -> dict[str, DiscoveredBucket]:
        return self.buckets

    def parse_rate_limit_response(self, *_: Any) -> RateLimitInfo:
        raise NotImplementedError

    async def get_bucket_for_model(self, model_id: str, *_: Any) -> str:
        return model_id


class Classifier:
    async def classify(self, request: dict[str, Any]) -> RequestMetadata:
        raise NotImplementedError


def scheduler_of(mode: str, provider: Provider | None, **config: Any) -> Any:
    """The registry's release needs all of its parts in one mode; ours needs the client."""
    settings = RateLimiterConfig(**config)
    if OURS:
        return create_scheduler(Client(), mode, settings, provider)
    from adaptive_rate_limiter.scheduler import StateManager  # type: ignore[attr-defined]

    manager = StateManager(MemoryBackend(), provider=provider)
    return create_scheduler(Client(), mode, settings, provider, Classifier(), state_manager=manager)


async def submitted(scheduler: Any, number: int, call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of `call`; the registry's release returns a ticket for it in two of its modes."""
    metadata = RequestMetadata(f"req-{number}", MODEL, TEXT, estimated_tokens=10)
    result = await scheduler.submit_request(metadata, call)
    return await result.request.future if type(result).__name__ == "ScheduleResult" else result


# Overhead


async def nothing() -> None:
    """As little as a call can be that others may overtake."""
    await asyncio.sleep(0)


async def told() -> Any:
    """The same with a reply that tells the limits."""
    await asyncio.sleep(0)
    return SimpleNamespace(headers=HEADERS, status_code=200)


CALLS = {"nothing": nothing, "headers": told}


async def rate(send: Callable[[int], Awaitable[Any]], concurrency: int) -> tuple[float, float]:
    """Calls a second, and CPU microseconds of each, of so many callers that call on and on."""
    done, until = 0, time.perf_counter() + LONGEST

    async def caller() -> None:
        nonlocal done
        while done < MOST and time.perf_counter() < until:
            done += 1
            await send(done)

    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return done / (time.perf_counter() - started), (time.process_time() - used) / done * 1e6


async def overhead() -> dict[str, tuple[float, float]]:
    """(requests a second, CPU microseconds of each beyond those of the call) by "mode reply concurrency"."""
    figures = {}
    for concurrency in CONCURRENCIES:
        for reply, call in CALLS.items():
            _, bare = await rate(lambda _, call=call: call(), concurrency)
            for mode in MODES:
                each, used = await scheduled(mode, call, concurrency)
                figures[f"{mode} {reply} {concurrency}"] = each, used - bare
    return figures


async def scheduled(mode: str, call: Callable[[], Awaitable[Any]], concurrency: int) -> tuple[float, float]:
    config = {"max_concurrent_executions": concurrency, "max_queue_size": 10_000}
    async with scheduler_of(mode, None if OURS else Provider(PLENTY), **config) as scheduler:

        async def send(number: int) -> None:
            await submitted(scheduler, number, call)

        await send(0)
        return await rate(send, concurrency)


# Goodput


async def batch(base_url: str, mode: str, calls: int, limit: int) -> dict[str, Any]:
    """All calls at once. Ours is told nothing; the registry's release is told the limit, which it cannot do without."""
    scheduler = scheduler_of(mode, None if OURS else Provider(limit), rate_limit_buffer_ratio=1.0)
    # Of httpx, the pool alone takes 10 ms of processor a call where a hundred are under way: it looks at every
    # connection for every request that waits. httpx2 takes a third of that for all that it does.
    pool = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=base_url, timeout=60, limits=pool) as http, scheduler:

        async def call() -> Any:
            response = await http.post("/chat/completions", json=BODY)
            response.raise_for_status()
            # The release takes a response of httpx2 for a stream, and reads no headers of it.
            return SimpleNamespace(headers=dict(response.headers), status_code=response.status_code)

        started = time.monotonic()
        replies = await asyncio.gather(
            *(submitted(scheduler, number, call) for number in range(calls)), return_exceptions=True
        )
        seconds = time.monotonic() - started
    return {"seconds": seconds, "lost": sum(isinstance(reply, BaseException) for reply in replies)}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("what", choices=["overhead", "goodput"])
    options.add_argument("base_url", nargs="?")
    options.add_argument("--mode", default="intelligent", choices=MODES)
    options.add_argument("--calls", type=int, default=900)
    options.add_argument("--limit", type=int, default=300)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)  # the release logs each refusal
    if given.what == "overhead":
        found: Any = asyncio.run(overhead())
    else:
        found = asyncio.run(batch(given.base_url, given.mode, given.calls, given.limit))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
