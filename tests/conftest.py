"""Properties are checked on the same examples in every run; `HYPOTHESIS_PROFILE=explore` looks for new ones.

`fuzz` is for tests/providers/test_provider_fuzz.py, whose examples come to 100,000 with it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
import sys
import threading

import pytest
from hypothesis import settings

UNTRACED = {  # folders and files: what they run through, other tests do, too
    "recorded", "sdks", "simulation",
    "test_discovery", "test_langchain_calls", "test_langchain_runs", "test_langchain_standard_workloads",
    "test_limiter_waiting", "test_llama_index_agents", "test_llama_index_ingestion", "test_observability_metrics",
    "test_pool", "test_provider_fuzz", "test_provider_memory", "test_recording", "test_redis_differential",
    "test_scheduler_http", "test_scheduler_limits", "test_scheduler_walk",
}  # fmt: skip

if "PYTEST_XDIST_WORKER" in os.environ:
    # What tests start is not traced.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

TRACE = sys.gettrace()
OURS = ("adaptive_rate_limiter", "langchain_adaptive_rate_limiter", "llama_index.llms.adaptive_rate_limiter")
THEIRS = (
    "langchain_openai", "llama_index.core.instrumentation", "llama_index.core.embeddings", "llama_index.core.llms",
    "matplotlib.pyplot", "openai", "pydantic", "redis", "rich", "uvicorn",
)  # fmt: skip


def _import_ours() -> None:
    """To trace an import takes half as long again: so ours are imported before the tests are, and theirs before ours."""
    sys.settrace(None)
    for name in THEIRS:
        importlib.import_module(name)
    sys.settrace(TRACE)
    for name in OURS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    sys.settrace(None)  # until all tests are collected


if TRACE is not None and "PYTEST_XDIST_WORKER" in os.environ:
    _import_ours()

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.register_profile("fuzz", max_examples=8000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish() -> None:
    """What the imports have made stays: a collection in a test looks at what the test has made."""
    gc.collect()
    gc.freeze()
    sys.settrace(TRACE)


@pytest.fixture(autouse=True)
def untraced(request):
    """To trace a test takes almost twice as long."""
    trace = sys.gettrace() if UNTRACED & {request.path.parent.name, request.path.stem} else None
    of_threads = threading.gettrace()
    if trace is not None:
        sys.settrace(None)
        threading.settrace(None)
    yield
    if trace is not None:
        threading.settrace(of_threads)
        sys.settrace(trace)


@pytest.fixture
def turn():
    """Let the event loop run whatever is ready, and what that makes ready."""

    async def turn():
        for _ in range(12):
            await asyncio.sleep(0)

    return turn


@pytest.fixture
def recorded(monkeypatch):
    """Pairs of (guessed prompt tokens, told prompt tokens), one for each settled call."""
    from adaptive_rate_limiter.reservation import Reservation

    pairs = []
    settle = Reservation.settle

    def noted(self, **usage):
        first = settle(self, **usage)
        if first:
            pairs.append((self.call.guessed, usage.get("input_tokens")))
        return first

    monkeypatch.setattr(Reservation, "settle", noted)
    return pairs
