"""Three nodes that share the slots, one of which may go, and slots that move."""

import itertools
import threading

import pytest
import redis.asyncio.cluster
import redis.cluster
from tests.redis.server import RIGHTS
from tests.redis.topologies import RedisCluster, until

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.backends.redis import servers
from adaptive_rate_limiter.backends.redis.status import pools
from adaptive_rate_limiter.backends.redis.wire import keys_of
from adaptive_rate_limiter.core.pool import Fact, Renewal
from adaptive_rate_limiter.exceptions import BackendConnectionError, BackendOperationError
from adaptive_rate_limiter.observability import subscribe
from adaptive_rate_limiter.testing import BackendConformance

namespaces = map("cluster-{}".format, itertools.count())
HUNDRED = Fact("requests", "requests", 100.0, 3600.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def nodes_of(cluster):
    return [redis.cluster.ClusterNode(*address) for address in cluster.addresses]


class TestClusterByClient(BackendConformance):
    @pytest.fixture
    def backend(self, cluster):
        with redis.cluster.RedisCluster(startup_nodes=nodes_of(cluster)) as client:
            backend = RedisBackend(redis_client=client, namespace=next(namespaces))
            yield backend
            backend.close()


class TestClusterByUrl(BackendConformance):
    @pytest.fixture
    def backend(self, cluster):
        backend = RedisBackend(cluster.primaries[1].url, namespace=next(namespaces))
        yield backend
        backend.close()


@pytest.fixture
def backend(cluster):
    client = redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
    backend = RedisBackend(redis_client=client, namespace=next(namespaces))
    yield backend
    backend.close()


def bucket_of(cluster, backend, node, after=""):
    """The id of a bucket whose pool lives at `node`."""
    names = map((after + "b{}").format, itertools.count())
    return next(name for name in names if cluster.owner(keys_of(backend.namespace, name)[0]) is node)


def test_buckets_of_every_node_are_renewed_at_once(cluster, backend):
    ids = [bucket_of(cluster, backend, node) for node in cluster.primaries]
    grants = backend.renew_many([(each, Renewal("w", number)) for number, each in enumerate(ids)])
    assert [grant.number for grant in grants] == [0, 1, 2]


def test_a_bucket_whose_slot_moves_keeps_its_pool_through_ask_and_moved(cluster, backend):
    source, target = cluster.primaries[:2]
    bucket_id = bucket_of(cluster, backend, source)
    key = keys_of(backend.namespace, bucket_id)[0]
    left = []

    def spend(number):
        renewal = Renewal("w", number, {"requests": 1.0}, {"requests": 1.0}, facts=(HUNDRED,))
        left.append(backend.renew(bucket_id, renewal).limits[0].left)

    spend(1)
    cluster.begin_move(key, source, target)
    spend(2)  # still there
    cluster.move_keys(key, source, target)
    spend(3)  # ASK
    cluster.end_move(key, source, target)
    spend(4)  # MOVED
    spend(5)
    assert left == pytest.approx([99, 98, 97, 96, 95], abs=0.1)
    assert cluster.owner(key, target) is target


def test_a_bucket_whose_keys_are_at_two_nodes_is_asked_for_again_a_moment_later(
    cluster, backend, monkeypatch
):
    source, target = cluster.primaries[:2]
    bucket_id = bucket_of(cluster, backend, source, "split")
    pool, *_ = keys = keys_of(backend.namespace, bucket_id)
    backend.renew(bucket_id, Renewal("w", 1, facts=(HUNDRED,)))
    cluster.begin_move(pool, source, target)
    source.ask("MIGRATE", "127.0.0.1", target.port, keys[1], 0, 5000)
    monkeypatch.setattr(servers.time, "sleep", lambda seconds: cluster.move_keys(pool, source, target))
    assert backend.renew(bucket_id, Renewal("w", 2)).limits[0].limit == 100.0
    cluster.end_move(pool, source, target)
    assert backend.renew(bucket_id, Renewal("w", 3)).workers == 1


def test_no_call_is_lost_and_no_outage_told_while_slots_move_under_traffic(cluster):
    backend = RedisBackend(cluster.primaries[0].url, namespace=next(namespaces))
    heard, stop, admitted = [], threading.Event(), []
    unsubscribe = subscribe(lambda event: "slots" in event.bucket_id and heard.append(event.name))
    limiter = Limiter(backend, quotas={"unit": "requests", "limit": 100_000, "window": 3600 * 24 * 30})

    def calls():
        while not stop.wait(0.01):
            limiter.acquire("slots", timeout=20).settle()
            admitted.append(1)

    limiter.acquire("slots").settle()
    (bucket,) = backend.buckets("")
    key = keys_of(backend.namespace, bucket.bucket_id)[0]
    source = cluster.owner(key)
    target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
    thread = threading.Thread(target=calls)
    thread.start()

    def renewed():
        before = bucket.lease.answered_at
        until(lambda: bucket.lease.answered_at > before)

    try:
        renewed()
        cluster.begin_move(key, source, target)
        cluster.move_keys(key, source, target)
        renewed()
        cluster.end_move(key, source, target)
        renewed()
    finally:
        stop.set()
        thread.join()
        unsubscribe()
        backend.close()
    assert not [name for name in heard if name.startswith("outage")]
    other = RedisBackend(target.url, namespace=backend.namespace)
    grant = other.renew(bucket.bucket_id, Renewal("x", 1))
    other.close()
    assert grant.limits[0].left == pytest.approx(100_000 - len(admitted) - 1, abs=1)


def test_a_slot_that_moves_slowly_is_waited_for(cluster, backend):
    """Five tries were over before the keys of a bucket had all gone, and an outage was told."""
    backend.renew("slowly", Renewal("w", 1, facts=(HUNDRED,)))
    backend.renew("slowly", Renewal("w", 2, need={"requests": 500.0}, due={"requests": 500.0}))
    keys = keys_of(backend.namespace, "slowly")
    source = cluster.owner(keys[0])
    target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
    cluster.begin_move(keys[0], source, target)
    source.ask("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000, "REPLACE")
    rest = threading.Timer(0.2, cluster.move_keys, (keys[0], source, target))
    rest.start()
    grant = backend.renew("slowly", Renewal("w", 3))
    rest.join()
    cluster.end_move(keys[0], source, target)
    assert grant.number == 3


def test_status_shows_the_pools_of_all_nodes(cluster, backend):
    for number, node in enumerate(cluster.primaries):
        backend.renew(bucket_of(cluster, backend, node, f"status{number}"), Renewal("w", 1, facts=(HUNDRED,)))
    with redis.Redis(port=cluster.primaries[2].port) as client:
        names = {pool["bucket"][:7] for pool in pools(client) if backend.namespace in pool["key"]}
    assert names == {"status0", "status1", "status2"}


def test_a_node_that_is_away_fails_its_own_buckets_alone(tmp_path):
    with RedisCluster(tmp_path / "c") as cluster:
        backend = RedisBackend(cluster.primaries[0].url, timeout=0.5)
        ids = [bucket_of(cluster, backend, node) for node in cluster.primaries]

        def renew(number):
            return backend.renew_many([(each, Renewal("w", number)) for each in ids])

        assert [grant.number for grant in renew(1)] == [1, 1, 1]
        cluster.primaries[0].stop()  # the one by which the others became known
        first, second, third = renew(2)
        assert isinstance(first, BackendConnectionError)
        assert (second.number, third.number) == (2, 2)
        until(lambda: "cluster_slots_fail:0" not in cluster.primaries[1].ask("CLUSTER", "INFO").splitlines())
        first, second, third = renew(3)
        assert isinstance(first, BackendConnectionError)
        assert (second.number, third.number) == (3, 3)
        backend.close()


def test_redirections_suffice_where_the_map_may_not_be_read(cluster):
    rights = ["~adaptive-rate-limiter:*", *RIGHTS, "+asking"]
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "limiter", "reset", "on", ">secret", *rights)
    backend = RedisBackend(f"redis://limiter:secret@127.0.0.1:{cluster.nodes[0].port}", namespace="rights")
    ids = [bucket_of(cluster, backend, node) for node in cluster.primaries]
    grants = backend.renew_many([(each, Renewal("w", 1)) for each in ids])
    assert [grant.number for grant in grants] == [1, 1, 1]
    backend.close()


def test_redirections_without_end_are_an_error(cluster, backend):
    source, target = cluster.primaries[:2]
    bucket_id = bucket_of(cluster, backend, source, "loop")
    slot = redis.crc.key_slot(keys_of(backend.namespace, bucket_id)[0].encode())
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)  # and the target does not import
    try:
        with pytest.raises(BackendOperationError, match="Redis failed"):
            backend.renew(bucket_id, Renewal("w", 1))
    finally:
        source.ask("CLUSTER", "SETSLOT", slot, "STABLE")
    assert backend.renew(bucket_id, Renewal("w", 1)).number == 1
