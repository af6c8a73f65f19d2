"""Namespaces, keys, rights, what is given to a backend, and what it gives away."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.redis.server import RIGHTS

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.backends.redis.wire import keys_of
from adaptive_rate_limiter.core.pool import Fact, Renewal
from adaptive_rate_limiter.exceptions import BackendOperationError, ConfigurationError

LIMIT = Fact("requests", "requests", 10.0)
hostile = st.text(st.sampled_from("a{}:~*/%\n\0é"), max_size=12)


@given(hostile, hostile, hostile, hostile)
def test_two_names_never_share_a_key(namespace, bucket, other_namespace, other_bucket):
    same = (namespace, bucket) == (other_namespace, other_bucket)
    keys, others = set(keys_of(namespace, bucket)), set(keys_of(other_namespace, other_bucket))
    assert keys == others if same else not keys & others


@given(hostile, hostile)
def test_a_key_has_one_hash_tag_and_no_room_to_break_out(namespace, bucket):
    for key in keys_of(namespace, bucket):
        assert key.count("{") == key.count("}") == 1
        assert key.count(":") == 3
        assert key.isprintable()


def test_the_keys_of_a_bucket_are_in_one_slot():
    assert len({redis.crc.key_slot(key.encode()) for key in keys_of("{a}", "b{c}")}) == 1


def test_long_names_make_short_keys():
    assert len(keys_of("n" * 10_000, "b" * 10_000)[0]) < 120


def test_namespaces_share_nothing(redis_server):
    first = RedisBackend(redis_server.url, namespace="safety a")
    second = RedisBackend(redis_server.url, namespace="safety b")
    first.renew("bucket", Renewal("w", 1, facts=(LIMIT,)))
    assert second.renew("bucket", Renewal("w", 1)).limits == ()
    assert len(first.renew("bucket", Renewal("w", 2)).limits) == 1
    first.close()
    second.close()


def test_a_pool_expires_a_day_after_its_last_use_or_after_two_windows(redis_server):
    backend = RedisBackend(redis_server.url, namespace="expiry")
    backend.renew("day", Renewal("w", 1, facts=(LIMIT,)))
    month = Fact("requests", "requests", 10.0, 30 * 86_400.0)
    backend.renew("month", Renewal("w", 1, facts=(month,)))
    backend.close()
    with redis.Redis(port=redis_server.port) as client:
        assert all(86_300 < client.ttl(key) <= 86_400 for key in keys_of("expiry", "day"))
        assert all(59 * 86_400 < client.ttl(key) <= 60 * 86_400 for key in keys_of("expiry", "month"))


def test_the_documented_rights_suffice(redis_server):
    with redis.Redis(port=redis_server.port) as client:
        rights = ["~adaptive-rate-limiter:*", *RIGHTS]
        client.execute_command("ACL", "SETUSER", "limiter", "reset", "on", ">secret", *rights)
        backend = RedisBackend(f"redis://limiter:secret@127.0.0.1:{redis_server.port}", namespace="acl")
        limiter = Limiter(backend, quotas={"requests": 10})
        limiter.acquire("m").settle()
        backend.close()
        client.execute_command("ACL", "SETUSER", "limiter", "-evalsha")
        with pytest.raises(BackendOperationError) as raised:
            backend.renew("b", Renewal("w", 1))
        assert "secret" not in str(raised.value)
        backend.close()


def test_a_key_of_another_kind_is_left_alone(redis_server):
    backend = RedisBackend(redis_server.url, namespace="kind")
    with redis.Redis(port=redis_server.port) as client:
        client.rpush(keys_of("kind", "b")[0], "somebody's")
        with pytest.raises(BackendOperationError):
            backend.renew("b", Renewal("w", 1))
        assert client.lrange(keys_of("kind", "b")[0], 0, -1) == [b"somebody's"]
    backend.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "redis_url or redis_client"),
        ({"redis_url": "redis://x", "redis_client": redis.Redis()}, "redis_url or redis_client"),
        ({"redis_url": "http://:secret@x"}, "redis_url"),
        ({"redis_url": 6379}, "redis_url"),
        ({"redis_client": "redis://x"}, "redis_client"),
        ({"redis_url": "redis://x", "on_outage": "panic"}, "on_outage"),
        ({"redis_url": "redis://x", "weight": 0}, "weight"),
        ({"redis_url": "redis://x", "timeout": -1}, "timeout"),
        ({"redis_url": "redis://x", "namespace": 3}, "namespace"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_what_cannot_be_used_is_named(given, said):
    with pytest.raises(ConfigurationError, match=said) as raised:
        RedisBackend(**given)
    assert "secret" not in str(raised.value)


def test_without_redis_py_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"pip install 'adaptive-rate-limiter\[redis\]'"):
        RedisBackend("redis://localhost")


def test_the_clients_own_settings_are_taken_and_its_connections_left_alone(redis_server):
    client = redis.Redis(port=redis_server.port, db=3, decode_responses=True, max_connections=1)
    backend = RedisBackend(redis_client=client, namespace="own")
    backend.renew("b", Renewal("w", 1))
    assert client.exists(keys_of("own", "b")[0])
    backend.close()
    assert client.ping()
    client.close()
