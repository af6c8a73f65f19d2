"""Properties are checked on the same examples in every run; `HYPOTHESIS_PROFILE=explore` looks for new ones.

`fuzz` is for tests/providers/test_provider_fuzz.py, whose examples come to 100,000 with it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import pytest
from hypothesis import settings

UNTRACED = {"recorded", "sdks", "simulation"}  # folders: what they run through, other tests do, too

if "PYTEST_XDIST_WORKER" in os.environ:
    # What tests start is not traced.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.register_profile("fuzz", max_examples=8000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish() -> None:
    """What the imports have made stays: a collection in a test looks at what the test has made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def untraced(request):
    """To trace a test takes almost twice as long."""
    trace = sys.gettrace() if request.path.parent.name in UNTRACED else None
    if trace is not None:
        sys.settrace(None)
    yield
    if trace is not None:
        sys.settrace(trace)


@pytest.fixture
def turn():
    """Let the event loop run whatever is ready, and what that makes ready."""

    async def turn():
        for _ in range(12):
            await asyncio.sleep(0)

    return turn
