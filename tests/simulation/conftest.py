from __future__ import annotations

import os

import coverage
import pytest


@pytest.fixture(autouse=True)
def untraced():
    """Simulated hours run through the same few lines: to trace them takes four times as long, and other tests do."""
    running = coverage.Coverage.current()
    if running is not None:
        running.stop()
    yield
    if running is not None:
        running.start()
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # set anew by that; what tests start is not traced
