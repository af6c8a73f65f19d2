"""Buckets whose limits are shared through Redis or Valkey."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.redis.servers import Cluster, Single
from adaptive_rate_limiter.backends.redis.settings import connector
from adaptive_rate_limiter.backends.redis.wire import arguments, decode
from adaptive_rate_limiter.exceptions import (
    BackendConnectionError,
    BackendOperationError,
    ConfigurationError,
    RateLimiterError,
)
from adaptive_rate_limiter.sharing import Shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.backends.redis.servers import Servers
    from adaptive_rate_limiter.core.lease import OnOutage
    from adaptive_rate_limiter.core.pool import Grant, Renewal

__all__ = ["RedisBackend"]

TIMEOUT = 1.0  # seconds for one round trip, and for a connection: then the server counts as out of reach


class RedisBackend(Shared, BaseBackend):
    """One budget for many processes and machines: the pools of their buckets live in Redis.

    `redis_url` says where the server is (``redis://``, ``rediss://`` with TLS, ``unix://``), or any node of a cluster;
    or `redis_client`, whose settings are taken: a `redis.Redis`, a `redis.cluster.RedisCluster`, what
    `redis.sentinel.Sentinel.master_for` returns, or their like of `redis.asyncio`. Its connections stay its own.
    `namespace`: backends with different ones share nothing. `timeout`: seconds after which the server counts as
    out of reach. `weight` and `on_outage` are those of `BaseBackend`.

    Nothing is sent before the first call. Raises ImportError where redis-py is missing, and ConfigurationError
    naming the argument and its value.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        redis_client: Any = None,
        namespace: str = "default",
        on_outage: OnOutage = "degrade",
        weight: float = 1.0,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(weight=weight, on_outage=on_outage)
        if not isinstance(namespace, str):
            raise ConfigurationError(f"namespace must be a name, got {namespace!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise ConfigurationError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self.namespace = namespace
        self._url, self._timeout = redis_url, timeout
        self._redis = _redis()
        self._connect, self._settings = connector(self._redis, redis_url, redis_client, float(timeout))
        self._lock, self._process_of_lock = threading.Lock(), os.getpid()
        self._servers: Servers | None = None

    def elsewhere(self) -> partial[RedisBackend]:
        if self._url is None:
            raise TypeError(
                "a RedisBackend is pickled with its redis_url: it cannot be if given a redis_client"
            )
        return partial(
            RedisBackend,
            self._url,
            namespace=self.namespace,
            on_outage=self.on_outage,
            weight=self.weight,
            timeout=self._timeout,
        )

    def renew(self, bucket_id: str, renewal: Renewal) -> Grant:
        (grant,) = self.renew_many([(bucket_id, renewal)])
        if isinstance(grant, RateLimiterError):
            raise grant
        return grant

    def renew_many(self, renewals: Sequence[tuple[str, Renewal]]) -> Sequence[Grant | RateLimiterError]:
        """All in one round trip to each server, and one more where a server has lost the script."""
        steps = [arguments(self.namespace, bucket_id, renewal) for bucket_id, renewal in renewals]
        errors = self._redis.exceptions
        with self._turn():
            try:
                replies = self._run(steps)
            except (errors.RedisError, OSError) as error:
                replies = [error] * len(steps)
            if self._servers is not None and any(isinstance(reply, Exception) for reply in replies):
                self._servers.look_again()
        return [self._read(reply) for reply in replies]

    def _read(self, reply: Any) -> Grant | RateLimiterError:
        if not isinstance(reply, Exception):
            return decode(reply)
        errors = self._redis.exceptions
        lost = isinstance(reply, (errors.ConnectionError, errors.TimeoutError, OSError))
        made: RateLimiterError = (
            BackendConnectionError(f"Redis cannot be reached: {reply}")
            if lost
            else BackendOperationError(f"Redis failed: {reply}")
        )
        made.__cause__ = reply
        return made

    def _run(self, steps: list[list[str]]) -> list[Any]:
        errors = self._redis.exceptions
        if self._servers is None:
            self._servers = self._connect()
        replies = self._servers.run(steps, whole=False)
        moved = next((reply for reply in replies if isinstance(reply, errors.AskError)), None)
        if moved is not None and isinstance(self._servers, Single):  # the server is a node of a cluster
            self._servers.close()
            self._servers = self._cluster_of(moved)
            replies = self._servers.run(steps, whole=False)
        lost = [place for place, reply in enumerate(replies) if isinstance(reply, errors.NoScriptError)]
        if lost:  # the renewals that were not run are sent with the script itself
            again = self._servers.run([steps[place] for place in lost], whole=True)
            for place, reply in zip(lost, again, strict=True):
                replies[place] = reply
        return replies

    def _cluster_of(self, moved: Any) -> Cluster:
        """The cluster of the one node that a user named."""
        host, port = self._settings.get("host", "localhost"), int(self._settings.get("port", 6379))
        return Cluster(self._redis, self._settings, [(host, port), (moved.host or host, moved.port)])

    def _turn(self) -> threading.Lock:
        """One at a time goes to the servers; a forked child does not wait for a thread that it has not."""
        if self._process_of_lock != os.getpid():
            self._process_of_lock, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def close(self) -> None:
        super().close()
        with self._turn():
            servers, self._servers = self._servers, None
        if servers is not None:
            servers.close()


def _redis() -> Any:
    try:
        import redis  # noqa: PLC0415 - an extra, needed by nobody else
    except ImportError as error:
        raise ImportError("RedisBackend needs redis: pip install 'adaptive-rate-limiter[redis]'") from error
    return redis
