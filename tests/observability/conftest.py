"""What the tests of events and metrics share. Time stands still unless a test moves it."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from adaptive_rate_limiter.observability import subscribe
from adaptive_rate_limiter.testing import FakeClock

PREFIX = "adaptive_rate_limiter_"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def turn():
    """Let the event loop run whatever is ready, and what that makes ready."""

    async def turn():
        for _ in range(8):
            await asyncio.sleep(0)

    return turn


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


class Scrape:
    """The samples of one scrape, by name (without the prefix) and labels."""

    def __init__(self, registry):
        self.samples = {}
        for family in registry.collect():
            for sample in family.samples:
                key = (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} comes twice"
                self.samples[key] = sample.value

    def one(self, name, **labels):
        """The sum of all samples of this name that have these labels."""
        return sum(self.by(name, **labels).values())

    def by(self, name, *wanted, **labels):
        """Sums by the values of the labels that are wanted."""
        sums = {}
        for (sample, its), value in self.samples.items():
            if sample == name and labels.items() <= dict(its).items():
                key = tuple(dict(its)[label] for label in wanted)
                key = key[0] if len(key) == 1 else key
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def label_values(self, label):
        return {value for _, labels in self.samples for name, value in labels if name == label}


@pytest.fixture
def scrape(registry):
    return lambda: Scrape(registry)
