"""From what a user gives, a URL or a client, to connections of our own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.backends.redis.servers import Cluster, Single
from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.redis.servers import Servers

__all__ = ["connector"]

OF_THEIR_POOL = {"retry", "connection_class", "event_dispatcher", "connection_pool", "redis_connect_func"}


def connector(
    redis: Any, url: Any, client: Any, timeout: float
) -> tuple[Callable[[], Servers], dict[str, Any]]:
    """What makes the way to the servers, and the settings of each connection. Nothing is sent here."""
    if (url is None) == (client is None):
        raise ConfigurationError(
            f"RedisBackend takes redis_url or redis_client, one of them; got {'neither' if url is None else 'both'}"
        )
    if client is None:
        settings = _own(redis, _of_url(redis, url), timeout)
        return lambda: _single(redis, settings), settings
    if hasattr(client, "nodes_manager"):
        return _of_cluster(redis, client, timeout)
    pool = getattr(client, "connection_pool", None)
    if pool is None or not hasattr(pool, "connection_kwargs"):
        raise ConfigurationError(
            "redis_client must be a redis.Redis, a redis.cluster.RedisCluster, what Sentinel.master_for returns, "
            f"or their like of redis.asyncio; got {client!r}"
        )
    settings = _own(redis, _of_pool(redis, pool), timeout)
    if hasattr(pool, "sentinel_manager"):
        return _of_sentinel(redis, pool, settings, timeout), settings
    return lambda: _single(redis, settings), settings


def _of_url(redis: Any, url: Any) -> dict[str, Any]:
    if not isinstance(url, str):
        raise ConfigurationError(f"redis_url must be a URL such as redis://localhost:6379, got {url!r}")
    try:
        pool = redis.ConnectionPool.from_url(url)
    except ValueError as error:  # the URL may hold a password
        raise ConfigurationError(
            "redis_url must begin with redis://, rediss:// or unix://, and be a URL"
        ) from error
    return _of_pool(redis, pool)


def _of_pool(redis: Any, pool: Any) -> dict[str, Any]:
    """Its settings, with the class of the same name that is not asynchronous."""
    settings = {name: value for name, value in pool.connection_kwargs.items() if name not in OF_THEIR_POOL}
    name = pool.connection_class.__name__
    kind = getattr(redis.sentinel if "Sentinel" in name else redis, name, redis.Connection)
    return settings | {"connection_class": kind}


def _own(redis: Any, settings: dict[str, Any], timeout: float) -> dict[str, Any]:
    return settings | {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "decode_responses": False,
        "max_connections": 1,  # one at a time is in use
        "timeout": timeout,
    }


def _single(redis: Any, settings: dict[str, Any]) -> Single:
    return Single(redis.Redis(connection_pool=redis.BlockingConnectionPool(**settings)))


def _of_sentinel(redis: Any, pool: Any, settings: dict[str, Any], timeout: float) -> Callable[[], Servers]:
    if not pool.is_master:
        raise ConfigurationError(
            "redis_client must be what Sentinel.master_for returns: a replica takes no writes"
        )
    theirs = pool.sentinel_manager
    at = [
        (each.connection_pool.connection_kwargs["host"], each.connection_pool.connection_kwargs["port"])
        for each in theirs.sentinels
    ]
    kept = {name: value for name, value in theirs.sentinel_kwargs.items() if name not in OF_THEIR_POOL}
    kept |= {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "decode_responses": False,
    }
    options = {name: value for name, value in settings.items() if name not in {"timeout", "max_connections"}}

    def make() -> Single:
        manager = redis.sentinel.Sentinel(
            at,
            min_other_sentinels=theirs.min_other_sentinels,
            sentinel_kwargs=kept,
            force_master_ip=theirs._force_master_ip,  # noqa: SLF001 - there is no other way to it
        )
        found = redis.sentinel.SentinelConnectionPool(pool.service_name, manager, **options)
        return Single(redis.Redis(connection_pool=found))

    return make


def _of_cluster(redis: Any, client: Any, timeout: float) -> tuple[Callable[[], Servers], dict[str, Any]]:
    nodes = client.nodes_manager
    theirs = dict(nodes.connection_kwargs)
    if "SSL" in getattr(theirs.get("connection_class"), "__name__", ""):
        theirs["ssl"] = True
    taken = inspect.signature(redis.Redis.__init__).parameters
    options = {name: value for name, value in theirs.items() if name in taken and name not in OF_THEIR_POOL}
    like = redis.Redis(**{**options, "host": "localhost", "port": 0})
    settings = _own(redis, _of_pool(redis, like.connection_pool), timeout)
    at = [(node.host, int(node.port)) for node in list(nodes.startup_nodes.values())]
    remap = getattr(nodes, "address_remap", None)
    return lambda: Cluster(redis, settings, at, remap), settings
