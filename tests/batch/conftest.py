import time

import pytest

from adaptive_rate_limiter.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def until():
    """Wait, bounded, until a condition that another thread brings about."""

    def until(condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.001)

    return until
