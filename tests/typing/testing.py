"""Never run, only type-checked: a user's own tests, with every name of adaptive_rate_limiter.testing."""

from __future__ import annotations

import pytest

from adaptive_rate_limiter import BaseBackend, Limiter, MemoryBackend
from adaptive_rate_limiter.testing import (
    BackendConformance,
    EmulatorStats,
    Event,
    FakeClock,
    FixedWindow,
    Gate,
    Limit,
    ProviderEmulator,
    RequestInfo,
    Rule,
    SlidingWindow,
    Strangers,
    TokenBucket,
    ToolCall,
    Verdict,
)


class TestOwnBackend(BackendConformance):
    @pytest.fixture
    def backend(self) -> BaseBackend:
        return MemoryBackend()


def script(request: RequestInfo) -> ToolCall | None:
    return None if request.answered else ToolCall("add", {"a": 1})


def emulate() -> tuple[Event, ...]:
    with ProviderEmulator(
        "anthropic", requests_per_minute=50, algorithm="fixed_window", tool_calls=script
    ) as it:
        it.set_limits(requests_per_minute=100)
        it.schedule(5.0, requests_per_minute=10)
        stats: EmulatorStats = it.stats()
        bound: float = it.lower_bound()
    print(it.base_url, stats.refused, stats.charged["requests"], bound)
    return stats.timeline


async def emulate_for_coroutines() -> int:
    async with ProviderEmulator(tokens_per_minute=30_000, latency=(0.1, 0.2)) as provider:
        return provider.port


def without_a_server() -> float:
    limits: list[Limit] = [TokenBucket(60, burst=5), FixedWindow(60, aligned=True), SlidingWindow(60)]
    gate = Gate([Rule("requests", "requests", limit) for limit in limits], max_concurrency=8)
    verdict: Verdict = gate.admit({"requests": 1.0}, 0.0)
    Strangers(limits[0], share=0.2).catch_up(1.0)
    return verdict.retry_after or gate.lower_bound()


def fake_time() -> float | None:
    clock = FakeClock(start=5.0)
    Limiter(clock=clock)
    timer = clock.call_at(10.0, lambda: print("ten"))
    timer.cancel()
    clock.advance(5)
    return clock.next_due()


def misuse() -> None:
    ProviderEmulator("openia")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    FakeClock().advance("soon")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
