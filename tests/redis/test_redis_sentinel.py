"""A primary that Sentinel replaces."""

import threading
import time

import pytest
import redis.asyncio.sentinel
import redis.sentinel
from tests.redis.topologies import SentinelSetup, until

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.core.pool import Renewal
from adaptive_rate_limiter.exceptions import ConfigurationError
from adaptive_rate_limiter.observability import subscribe
from adaptive_rate_limiter.testing import BackendConformance


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory):
    with SentinelSetup(tmp_path_factory.mktemp("sentinel")) as sentinels:
        yield sentinels


def backend_of(sentinels, module=redis.sentinel, **options):
    sentinel = module.Sentinel([("127.0.0.1", sentinels.sentinel.port)])
    return RedisBackend(redis_client=sentinel.master_for(sentinels.SERVICE), **options)


class TestSentinel(BackendConformance):
    @pytest.fixture
    def backend(self, sentinels, request):
        backend = backend_of(sentinels, redis.asyncio.sentinel, namespace=request.node.name)
        yield backend
        backend.close()


def test_a_replica_is_not_taken(sentinels):
    sentinel = redis.sentinel.Sentinel([("127.0.0.1", sentinels.sentinel.port)])
    with pytest.raises(ConfigurationError, match="master_for"):
        RedisBackend(redis_client=sentinel.slave_for(sentinels.SERVICE))


def test_a_primary_that_was_demoted_is_left(sentinels):
    """It answers, takes no writes, and Sentinel names another."""
    backend = backend_of(sentinels, namespace="demoted")
    assert backend.renew("b", Renewal("w", 1)).number == 1
    old = sentinels.primary()

    def fail_over():
        with sentinels.client as client:
            return client.execute_command("SENTINEL", "FAILOVER", sentinels.SERVICE)

    until(fail_over)  # refused while Sentinel has not heard of the replica lately
    until(lambda: sentinels.primary() != old)

    def renewed():
        grants = backend.renew_many([("b", Renewal("w", 2))])
        return getattr(grants[0], "number", None) == 2

    until(renewed)
    backend.close()


def test_a_failover_under_traffic_loses_no_call_and_the_limit_holds(tmp_path):
    heard = []
    unsubscribe = subscribe(lambda event: "failover" in event.bucket_id and heard.append(event.name))
    with SentinelSetup(tmp_path) as sentinels:
        backend = backend_of(sentinels, namespace="traffic", timeout=0.5)
        limiter = Limiter(backend, quotas={"unit": "requests", "limit": 600, "window": 60, "burst": 10})
        admitted, stop = [], threading.Event()

        def calls():
            while not stop.is_set():
                limiter.acquire("failover", timeout=30).settle()
                admitted.append(time.monotonic())

        threads = [threading.Thread(target=calls) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(admitted) >= 15)
            old = sentinels.primary()
            (sentinels.first if old == sentinels.first.port else sentinels.second).stop()
            until(lambda: "outage" in heard)
            until(lambda: sentinels.primary() != old)
            until(lambda: "outage_over" in heard)
            after = len(admitted)
            until(lambda: len(admitted) >= after + 10)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            unsubscribe()
        with redis.Redis(port=sentinels.primary()) as client:
            assert len(client.keys("*:pool")) == 1  # the pool lives at the new primary
        backend.close()
    seconds = admitted[-1] - admitted[0]
    assert len(admitted) <= 10 + 10 * seconds * 1.1 + 5
