"""When a backend that was away is tried again."""

import logging
import threading
from collections import Counter

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import BaseBackend
from adaptive_rate_limiter.backends.renewer import FIRST, MOST, Renewer
from adaptive_rate_limiter.core.pool import Pool
from adaptive_rate_limiter.exceptions import BackendConnectionError
from adaptive_rate_limiter.testing import FakeClock


class Away(BaseBackend):
    """Pools in memory; those named in `lost` cannot be reached. Each bucket has a place of its own."""

    def __init__(self):
        super().__init__()
        self.pools, self.lost, self.batches = {}, set(), []

    def renew(self, bucket_id, renewal):
        return self.pools.setdefault(bucket_id, Pool()).renew(renewal, 0.0)

    def renew_many(self, renewals):
        self.batches.append([bucket_id for bucket_id, _ in renewals])
        return [
            BackendConnectionError("away") if bucket_id in self.lost else self.renew(bucket_id, renewal)
            for bucket_id, renewal in renewals
        ]


def bucket_of(backend, clock, model="m"):
    limiter = Limiter(backend, clock=clock, quotas={"requests": 10})
    backend._renewer.kick = lambda bucket: None  # the test is the thread
    limiter.try_acquire(model)
    return backend.buckets(f"default/{model}")[0]


@pytest.fixture
def clock():
    return FakeClock()


def delays(clock, failures):
    """Seconds to the next try of two hundred processes, which all lost the server at the same moment."""
    found = []
    for _ in range(200):
        backend = Away()
        backend.lost.add("default/m")
        bucket = bucket_of(backend, clock)
        for _ in range(failures):
            backend._renewer.renew([bucket])
        found.append(bucket.lease.due_at(clock.now()) - clock.now())
    return found


def test_processes_that_lost_a_server_together_do_not_come_back_together(clock):
    found = delays(clock, 8)
    assert min(found) >= MOST / 2
    assert max(found) <= MOST * 1.5
    at_once = Counter(int(delay / 0.1) for delay in found)
    assert max(at_once.values()) <= 30  # of 200 within a tenth of a second: 10 on the average


def test_the_first_try_comes_soon(clock):
    found = delays(clock, 1)
    assert FIRST / 2 <= min(found) < max(found) <= FIRST * 1.5


def test_a_bucket_that_is_reached_does_not_wait_for_one_that_is_not(clock, caplog):
    backend = Away()
    first, second = bucket_of(backend, clock, "a"), bucket_of(backend, clock, "b")
    backend.lost.add("default/a")
    with caplog.at_level(logging.WARNING):
        backend._renewer.renew([first, second])
        assert (first.lease.outage, second.lease.outage) == (True, False)
        backend._renewer.renew([first, second])
        assert backend.batches[-2:] == [["default/b"], ["default/a"]]
        backend.lost.clear()
        backend._renewer.renew([first, second])
    assert not first.lease.outage
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "the backend cannot be reached",
        "the backend is reached again",
    ]


def test_what_a_backend_must_not_raise_is_logged_and_counts_as_an_outage(clock, caplog, monkeypatch):
    backend = Away()
    bucket = bucket_of(backend, clock)
    monkeypatch.setattr(backend, "renew_many", lambda renewals: 1 / 0)
    backend._renewer.renew([bucket])
    assert bucket.lease.outage
    assert "ZeroDivisionError" in caplog.text


def test_a_renewal_that_is_asked_for_while_the_backend_closes_does_not_stop_it(clock, monkeypatch):
    backend = Away()
    bucket = bucket_of(backend, clock)
    renewer = Renewer(backend)
    asked, goes_on, renew_many = threading.Event(), threading.Event(), backend.renew_many

    def slowly(renewals):
        asked.set()
        assert goes_on.wait(10)
        return renew_many(renewals)

    monkeypatch.setattr(backend, "renew_many", slowly)
    renewer.kick(bucket)
    assert asked.wait(10)
    closing = threading.Thread(target=renewer.close, args=([],), daemon=True)
    closing.start()
    while renewer._running is not None:
        pass
    renewer.kick(bucket)
    goes_on.set()
    closing.join(10)
    assert not closing.is_alive()
    renewer.close([])
    assert not renewer._running


def test_a_fork_while_a_bucket_outlives_its_backend(clock):
    """It failed in the child, with every lock held."""
    bucket = bucket_of(Away(), clock)
    collect()
    assert bucket.renewer.backend is None
    bucket.before_fork()
    bucket.after_fork_in_child()
    assert bucket.bucket.concurrency.in_flight == 0
