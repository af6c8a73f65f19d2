"""One batch through a LangChain chat model against an emulated provider: `python -m benchmarks.goodput CELL`.

Prints one line of JSON. Client and provider talk HTTP on loopback, each in a process of its own: a provider does not
share its client's processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter

from adaptive_rate_limiter.testing import ProviderEmulator
from langchain_adaptive_rate_limiter import AdaptiveLimiter

LATENCY = (0.2, 0.6)


class Provider(NamedTuple):
    """An emulator in another process."""

    base_url: str
    pipe: Connection

    def outcome(self) -> tuple[Any, float]:
        """Its counts, and T* for what it admitted."""
        self.pipe.send("outcome")
        return self.pipe.recv()


@contextmanager
def served(provider: str, change: list[list[float]], **settings: Any) -> Iterator[Provider]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, provider, change, settings), daemon=True)
    process.start()
    try:
        yield Provider(ours.recv(), ours)
    finally:
        ours.close()  # it ends when nobody asks any more
        process.join()


def _serve(pipe: Connection, provider: str, change: list[list[float]], settings: dict[str, Any]) -> None:
    with ProviderEmulator(provider, **settings) as emulator:
        for at, limit in change:
            emulator.schedule(at=at, requests_per_minute=limit)
        pipe.send(emulator.base_url)
        try:
            while pipe.recv():
                pipe.send((emulator.stats(), emulator.lower_bound()))
        except EOFError:
            pass


def model_for(provider: str, base_url: str, limiter: BaseRateLimiter | None) -> Any:
    """The chat model of the provider's own SDK, with its defaults."""
    if provider == "anthropic":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(
            model="claude-sonnet-4-5", api_key="none", base_url=base_url, rate_limiter=limiter,
            max_tokens=32,
        )  # fmt: skip
    if provider == "azure":
        from langchain_openai import AzureChatOpenAI

        return AzureChatOpenAI(
            azure_endpoint=base_url, azure_deployment="gpt-4o", api_version="2024-10-21",
            api_key="none", rate_limiter=limiter, max_tokens=32,
        )  # fmt: skip
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o", api_key="none", base_url=base_url, rate_limiter=limiter, max_tokens=32)


def limiter_for(client: str, requests_per_minute: float) -> BaseRateLimiter | None:
    if client == "adaptive":
        return AdaptiveLimiter()
    if client == "in-memory":  # langchain-core's, told the true limit by hand
        return InMemoryRateLimiter(
            requests_per_second=requests_per_minute / 60, max_bucket_size=requests_per_minute
        )
    return None


def prompts(kind: str, calls: int) -> list[str]:
    if kind == "phased":  # small ones first, then large ones, as data sets are stored
        half = calls // 2
        return [f"{number} " + "s" * 150 for number in range(half)] + [
            f"{number} " + "l" * 4000 for number in range(calls - half)
        ]
    return [f"Say something about the number {number}." for number in range(calls)]


async def run(cell: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {"algorithm": cell.algorithm, "latency": LATENCY, "strangers": cell.strangers}
    if cell.tokens_per_minute:
        settings["tokens_per_minute"] = cell.tokens_per_minute
    with served(cell.provider, [], latency=0.0) as warm:  # imports and first-use costs are nobody's
        await model_for(cell.provider, warm.base_url, None).abatch(prompts("plain", 20))
    settings["requests_per_minute"] = cell.requests_per_minute
    with served(cell.provider, cell.change, **settings) as provider:
        model = model_for(
            cell.provider, provider.base_url, limiter_for(cell.client, cell.requests_per_minute)
        )
        started = time.monotonic()
        replies = await model.abatch(prompts(cell.prompts, cell.calls), return_exceptions=True)
        seconds = time.monotonic() - started
        stats, needed = provider.outcome()
        lost = sum(isinstance(reply, BaseException) for reply in replies)
        bound = lower_bound(cell) or needed
        return {
            "provider": cell.provider, "algorithm": cell.algorithm, "client": cell.client, "seconds": seconds,
            "bound": bound, "ratio": seconds / bound if bound and not lost else None, "refused": stats.refused,
            "refused_share": stats.refused / max(1, stats.refused + stats.admitted), "lost": lost,
            "finished": cell.calls - lost,
        }  # fmt: skip


def lower_bound(cell: argparse.Namespace) -> float | None:
    """T* for all calls; None where it depends on more than the request limit (then the emulator tells)."""
    if cell.change or cell.strangers or cell.tokens_per_minute:
        return None
    limit = cell.requests_per_minute
    if cell.algorithm == "token_bucket":
        return max(0.0, (cell.calls - limit) / (limit / 60))
    return (math.ceil(cell.calls / limit) - 1) * 60.0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser()
    options.add_argument("--provider", default="openai")
    options.add_argument("--algorithm", default="token_bucket")
    options.add_argument("--client", default="adaptive", choices=["adaptive", "in-memory", "none"])
    options.add_argument("--calls", type=int, default=900)
    options.add_argument("--requests-per-minute", type=float, default=300)
    options.add_argument("--tokens-per-minute", type=float)
    options.add_argument("--prompts", default="plain")
    options.add_argument("--strangers", type=float, default=0.0)
    options.add_argument("--change", type=json.loads, default=[], help="[[seconds, new limit], ...]")
    return options


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(parser().parse_args()))))
