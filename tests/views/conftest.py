import pytest

from adaptive_rate_limiter.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()
