"""What the tests of events and metrics share. Time stands still unless a test moves it."""

import pytest
from prometheus_client import CollectorRegistry
from tests.observability.scraped import Scrape

from adaptive_rate_limiter.observability import subscribe
from adaptive_rate_limiter.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def listen():
    """Subscribe until the end of the test."""
    ends = []

    def listen(callback):
        ends.append(subscribe(callback))
        return ends[-1]

    yield listen
    for end in ends:
        end()


@pytest.fixture
def heard(listen):
    """All events from here on."""
    events = []
    listen(events.append)
    return events


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def scrape(registry):
    return lambda: Scrape(registry)
