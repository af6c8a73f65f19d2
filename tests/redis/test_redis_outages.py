"""A server that stops, hangs, forgets or refuses."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry
from tests.redis.proxy import Proxy
from tests.redis.server import Server

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.backends.redis.wire import KINDS, keys_of
from adaptive_rate_limiter.core.pool import Fact, Renewal
from adaptive_rate_limiter.exceptions import (
    BackendConnectionError,
    BackendOperationError,
    CapacityExceededError,
)
from adaptive_rate_limiter.observability import export_metrics, subscribe

QUOTA = {"unit": "requests", "limit": 600, "window": 60}  # ten a second


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def backends():
    made = []

    def make(server, **options):
        made.append(RedisBackend(server.url, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


class Reached:
    """Set when the lease of a bucket is renewed, or fails to be."""

    def __init__(self, limiter, monkeypatch):
        (bucket,) = limiter._backend.buckets("")
        self.outage, self.back = threading.Event(), threading.Event()
        fail, apply = bucket.lease.fail, bucket.lease.apply

        def failed(*given):
            fail(*given)
            self.back.clear()
            self.outage.set()

        def applied(*given):
            apply(*given)
            self.back.set()

        monkeypatch.setattr(bucket.lease, "fail", failed)
        monkeypatch.setattr(bucket.lease, "apply", applied)


def calls(limiter, count, **options):
    for _ in range(count):
        limiter.acquire("m", **options).settle()


def test_closed_raises_at_once_while_the_server_is_away(server, backends):
    limiter = Limiter(backends(server, on_outage="closed"), quotas=QUOTA)
    server.stop()
    with pytest.raises(BackendConnectionError, match="on_outage") as caught:
        limiter.acquire("m")
    assert isinstance(caught.value.__cause__.__cause__, redis.exceptions.ConnectionError)
    started = time.monotonic()
    with pytest.raises(BackendConnectionError):
        limiter.acquire("m")
    assert time.monotonic() - started < 0.1


async def test_closed_raises_for_coroutines(server, backends):
    limiter = Limiter(backends(server, on_outage="closed"), quotas=QUOTA)
    server.stop()
    with pytest.raises(BackendConnectionError):
        await limiter.aacquire("m")


def test_closed_lets_calls_go_when_the_server_is_back(server, backends, monkeypatch):
    limiter = Limiter(backends(server, on_outage="closed"), quotas=QUOTA)
    server.stop()
    with pytest.raises(BackendConnectionError):
        limiter.acquire("m")
    reached = Reached(limiter, monkeypatch)
    server.start()
    assert reached.back.wait(10)
    calls(limiter, 3)


def test_open_lets_everything_go(server, backends):
    limiter = Limiter(backends(server, on_outage="open"), quotas={**QUOTA, "limit": 5})
    server.stop()
    calls(limiter, 50, timeout=10)


def test_degrade_goes_on_at_its_part_and_nothing_is_lost(server, backends, monkeypatch):
    limiter = Limiter(backends(server), quotas=QUOTA)
    other = Limiter(backends(server), quotas=QUOTA)
    calls(limiter, 1)
    calls(other, 1)
    calls(limiter, 5)  # hears of the other
    reached = Reached(limiter, monkeypatch)
    server.stop()
    calls(limiter, 5, timeout=20)  # the lease is spent
    assert reached.outage.is_set()
    started = time.monotonic()
    calls(limiter, 3, timeout=20)
    assert time.monotonic() - started >= 0.5  # half of ten a second
    (bucket,) = limiter._backend.buckets("")
    assert bucket.lease.workers == 2
    server.start()
    assert reached.back.wait(10)
    calls(limiter, 20, timeout=10)  # faster than its part: the pool is in force again


def test_a_server_that_hangs_keeps_nobody_beyond_its_deadline(server, backends):
    limiter = Limiter(backends(server, timeout=0.2), quotas=QUOTA)
    calls(limiter, 1)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(CapacityExceededError):
            calls(limiter, 1000, timeout=0.05)
        assert time.monotonic() - started < 5
        calls(limiter, 2, timeout=10)  # at its part of the limit
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_script_that_was_flushed_is_loaded_again(server, backends):
    backend = backends(server)
    backend.renew("b", Renewal("a", 1))
    with redis.Redis(port=server.port) as client:
        client.script_flush()
    grants = backend.renew_many([("b", Renewal("a", 2)), ("c", Renewal("a", 3))])
    assert [grant.number for grant in grants] == [2, 3]


def test_a_pool_that_was_lost_is_told_again(server, backends, monkeypatch):
    limiter = Limiter(backends(server), quotas={**QUOTA, "limit": 5, "window": 100})
    calls(limiter, 1)
    with redis.Redis(port=server.port) as client:
        client.flushall()
        calls(limiter, 3, timeout=10)
        assert len(client.keys("*:pool")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_of_which_a_part_was_evicted_counts_as_lost(server, backends, kind):
    """With an eviction policy a server that is short of memory drops keys one by one."""
    backend = backends(server)
    want = {"requests": 100.0}
    fact = Fact("requests", "requests", 10.0, evidence=1e9)
    for worker in "ab":  # b waits
        backend.renew("b", Renewal(worker, 1, {"requests": 1.0}, want, want, facts=(fact,)))
    with redis.Redis(port=server.port) as client:
        client.delete(keys_of(backend.namespace, "b")[KINDS.index(kind)])
        assert backend.renew("b", Renewal("a", 2)).limits == ()
        grant = backend.renew("b", Renewal("a", 3, facts=(fact,)))
        assert (grant.workers, grant.limits[0].left) == (1, 10.0)
        assert all(client.ttl(key) > 0 for key in keys_of(backend.namespace, "b"))


@pytest.mark.parametrize("setting", [("maxmemory", "1"), ("min-replicas-to-write", "1")], ids=str)
def test_a_server_that_takes_no_writes_counts_as_away(server, backends, setting):
    limiter = Limiter(backends(server, on_outage="closed"), quotas=QUOTA)
    with redis.Redis(port=server.port) as client:
        client.config_set(*setting)
    with pytest.raises(BackendOperationError, match="on_outage") as caught:
        limiter.acquire("m")
    assert isinstance(caught.value.__cause__, BackendOperationError)
    with pytest.raises(BackendOperationError):
        backends(server).renew("b", Renewal("a", 1))


def test_a_full_server_is_away_until_there_is_room(server, backends, monkeypatch):
    with redis.Redis(port=server.port) as client:
        limiter = Limiter(backends(server, on_outage="closed"), quotas=QUOTA)
        calls(limiter, 1)
        reached = Reached(limiter, monkeypatch)
        client.config_set("maxmemory-policy", "noeviction")
        client.set("of-others", b"x" * 1_000_000)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 500_000)
        with pytest.raises(BackendOperationError):
            calls(limiter, 1000, timeout=10)
        assert reached.outage.is_set()
        client.delete("of-others")
        assert reached.back.wait(10)
        calls(limiter, 3, timeout=10)


def test_a_replica_counts_as_away_until_it_is_promoted(server, backends, monkeypatch, tmp_path):
    (tmp_path / "replica").mkdir()
    with (
        Server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port)) as replica,
        redis.Redis(port=replica.port) as client,
    ):
        limiter = Limiter(backends(replica, on_outage="closed"), quotas=QUOTA)
        with pytest.raises(BackendOperationError):
            limiter.acquire("m")
        reached = Reached(limiter, monkeypatch)
        client.execute_command("REPLICAOF", "NO", "ONE")
        assert reached.back.wait(10)
        calls(limiter, 3, timeout=10)


def test_eight_workers_are_served_under_a_limit_of_ten_connections(tmp_path, backends):
    """Each has one connection, whatever its threads, buckets and calls."""
    heard = []  # of these buckets: other tests' may still be without their server
    unsubscribe = subscribe(lambda event: "ten-" in event.bucket_id and heard.append(event.name))
    quota = {"unit": "requests", "limit": 100_000, "window": 60}
    with Server(tmp_path, "--maxclients", "10") as server:
        limiters = [Limiter(backends(server), quotas=quota) for _ in range(8)]

        def work(limiter):
            for model in ["ten-m", "ten-n", "ten-o"] * 20:
                limiter.acquire(model, timeout=20).settle()

        with ThreadPoolExecutor(24) as pool:
            for done in [pool.submit(work, limiter) for limiter in limiters * 3]:
                done.result()
        with redis.Redis(port=server.port) as client:
            connected = client.info("clients")["connected_clients"]
        for limiter in limiters:
            limiter._backend.close()
    unsubscribe()
    assert connected == 8 + 1
    assert "outage" not in heard


def test_who_finds_no_connection_left_goes_on_at_its_part(tmp_path, backends, monkeypatch):
    with Server(tmp_path, "--maxclients", "2") as server:
        limiters = [Limiter(backends(server), quotas=QUOTA) for _ in range(3)]
        for limiter in limiters:
            calls(limiter, 2, timeout=10)
        assert [limiter.snapshot().buckets[0].outage for limiter in limiters] == [False, False, True]
        reached = Reached(limiters[2], monkeypatch)
        limiters[0]._backend.close()
        assert reached.back.wait(10)
        limiters[1]._backend.close()
        limiters[2]._backend.close()


def test_over_a_slow_link_most_calls_wait_for_no_round_trip(server, backends):
    """0.1 s there and back, as across an ocean, and fifty calls a second."""
    with Proxy(server.port) as link:
        limiter = Limiter(backends(link), quotas={**QUOTA, "limit": 60_000})
        link.delay = 0.05
        waited = []
        for _ in range(60):
            time.sleep(0.02)
            started = time.monotonic()
            limiter.acquire("m", timeout=20).settle()
            waited.append(time.monotonic() - started)
        assert not limiter.snapshot().buckets[0].outage
        assert sum(seconds > 0.05 for seconds in waited) < 30
        link.delay = 0.0
        limiter._backend.close()


def test_a_link_on_which_nothing_comes_through_is_an_outage_and_heals(server, backends, monkeypatch):
    with Proxy(server.port) as link:
        limiter = Limiter(backends(link, timeout=0.2), quotas=QUOTA)
        calls(limiter, 1)
        reached = Reached(limiter, monkeypatch)
        link.silence()
        calls(limiter, 3, timeout=20)
        assert reached.outage.wait(10)
        link.heal()
        assert reached.back.wait(10)
        limiter._backend.close()


@pytest.mark.parametrize("on_outage", ["degrade", "open", "closed"])
def test_a_gauge_says_which_way_is_in_force(server, backends, monkeypatch, on_outage):
    registry = CollectorRegistry()
    limiter = Limiter(backends(server, on_outage=on_outage), quotas=QUOTA)
    export_metrics(limiter, registry=registry)
    labels = {"bucket": "default/m", "model": "m", "on_outage": on_outage}

    def gauge():
        return registry.get_sample_value("adaptive_rate_limiter_backend_outage", labels)

    calls(limiter, 1)
    assert gauge() == 0
    reached = Reached(limiter, monkeypatch)
    server.stop()
    with suppress(BackendConnectionError):
        calls(limiter, 2, timeout=20)
    assert reached.outage.wait(10)
    assert gauge() == 1
    server.start()
    assert reached.back.wait(10)
    assert gauge() == 0


def test_an_outage_and_its_end_are_told(server, backends, monkeypatch):
    heard = []
    unsubscribe = subscribe(heard.append)
    try:
        limiter = Limiter(backends(server), quotas=QUOTA)
        calls(limiter, 1)
        reached = Reached(limiter, monkeypatch)
        server.stop()
        calls(limiter, 2, timeout=20)
        server.start()
        assert reached.back.wait(10)
        calls(limiter, 1)
    finally:
        unsubscribe()
    told = [(event.name, event.fields["on_outage"]) for event in heard if event.name.startswith("outage")]
    assert told == [("outage", "degrade"), ("outage_over", "degrade")]
