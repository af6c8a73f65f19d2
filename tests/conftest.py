"""Properties are checked on the same examples in every run; `HYPOTHESIS_PROFILE=explore` looks for new ones.

`fuzz` is for tests/providers/test_provider_fuzz.py, whose examples come to 100,000 with it.
"""

from __future__ import annotations

import gc
import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop(
        "COVERAGE_PROCESS_CONFIG", None
    )  # what tests start is not traced: it would take twice as long

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.register_profile("fuzz", max_examples=8000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish() -> None:
    """What the imports have made stays: a collection in a test looks at what the test has made."""
    gc.collect()
    gc.freeze()
