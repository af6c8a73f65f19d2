import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def limiter(clock):
    return Limiter(quotas={"requests": 60, "tokens": 6000}, clock=clock)


@pytest.fixture
def call(limiter):
    """One call that goes at once: what it uses, and what the provider says to it."""

    def call(tokens=100, status=200, headers=None, body=None, model="m"):
        with limiter.acquire(model, tokens, timeout=0) as reservation:
            reservation.observe(status, headers or {}, body)
            reservation.settle(tokens=tokens)

    return call
