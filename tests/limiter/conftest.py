"""Steps that the tests of the limiter share. Time stands still unless a test moves it."""

import threading
import time

import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.testing import FakeClock

PATIENCE = 10.0  # seconds until a condition that must come true is given up


class CountingClock(FakeClock):
    """Knows how many timers were ever set, and how many are pending."""

    def __init__(self):
        super().__init__()
        self.set = 0

    def call_at(self, when, callback):
        self.set += 1
        return super().call_at(when, callback)

    @property
    def pending(self):
        return sum(timer.callback is not None for _, _, timer in self._due)


@pytest.fixture
def clock():
    return CountingClock()


@pytest.fixture
def limiter(clock):
    """One request a second, one at once: the second call waits."""
    return Limiter(quotas={"unit": "requests", "limit": 60, "burst": 1}, clock=clock)


@pytest.fixture
def bucket(limiter):
    """The limiter's only bucket, as its snapshot shows it."""

    def look():
        (only,) = limiter.snapshot().buckets
        return only

    return look


@pytest.fixture
def until():
    """Wait, bounded, until a condition that another thread brings about."""

    def until(condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.001)

    return until


@pytest.fixture
def in_thread():
    """Run functions in threads; all have to end by the end of the test. Returns the thread; `error` is what it raised."""
    threads = []

    def start(function, *args):
        thread = threading.Thread(target=run, args=(function, args), daemon=True)
        thread.error = None
        threads.append(thread)
        thread.start()
        return thread

    def run(function, args):
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - told to whoever asks
            threading.current_thread().error = error

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
