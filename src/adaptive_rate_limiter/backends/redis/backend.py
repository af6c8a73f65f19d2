"""Buckets whose limits are shared through Redis or Valkey."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.redis.wire import DIGEST, SCRIPT, arguments, decode
from adaptive_rate_limiter.exceptions import (
    BackendConnectionError,
    BackendOperationError,
    ConfigurationError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.lease import OnOutage
    from adaptive_rate_limiter.core.pool import Grant, Renewal

__all__ = ["RedisBackend"]

TIMEOUT = 1.0  # seconds for one round trip, and for a connection: then the server counts as out of reach
ASYNCHRONOUS = (
    "retry",
    "connection_class",
    "credential_provider",
    "event_dispatcher",
)  # of another kind there


class RedisBackend(BaseBackend):
    """One budget for many processes and machines: the pools of their buckets live in Redis.

    `redis_url` says where the server is (``redis://``, ``rediss://`` with TLS, ``unix://``), or `redis_client`, whose
    connection settings are taken: a `redis.Redis` or a `redis.asyncio.Redis`. Its connections stay its own.
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
        self._redis = _redis()
        self._settings = _settings(self._redis, redis_url, redis_client, float(timeout))
        self._connecting = threading.Lock()
        self._client: Any = None

    def renew(self, bucket_id: str, renewal: Renewal) -> Grant:
        return self.renew_many([(bucket_id, renewal)])[0]

    def renew_many(self, renewals: Sequence[tuple[str, Renewal]]) -> list[Grant]:
        """All in one round trip, and one more where the server has lost the script."""
        steps = [arguments(self.namespace, bucket_id, renewal) for bucket_id, renewal in renewals]
        errors = self._redis.exceptions
        try:
            replies = self._run(steps)
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            raise BackendConnectionError(f"Redis cannot be reached: {error}") from error
        except errors.RedisError as error:
            raise BackendOperationError(f"Redis failed: {error}") from error
        return [decode(reply) for reply in replies]

    def _run(self, steps: list[list[str]]) -> list[Any]:
        client = self._connected()
        replies = self._send(client, steps, DIGEST, "EVALSHA")
        lost = [
            place
            for place, reply in enumerate(replies)
            if isinstance(reply, self._redis.exceptions.NoScriptError)
        ]
        if lost:  # the renewals that were not run are sent with the script itself
            again = self._send(client, [steps[place] for place in lost], SCRIPT, "EVAL")
            for place, reply in zip(lost, again, strict=True):
                replies[place] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    @staticmethod
    def _send(client: Any, steps: list[list[str]], script: str, command: str) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for place, step in enumerate(steps):
            if place and command == "EVAL":
                pipeline.execute_command("EVALSHA", DIGEST, *step)
            else:
                pipeline.execute_command(command, script, *step)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                pool = self._redis.BlockingConnectionPool(**self._settings)
                self._client = self._redis.Redis(connection_pool=pool)
            return self._client

    def close(self) -> None:
        super().close()
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()


def _redis() -> Any:
    try:
        import redis  # noqa: PLC0415 - an extra, needed by nobody else
    except ImportError as error:
        raise ImportError("RedisBackend needs redis: pip install 'adaptive-rate-limiter[redis]'") from error
    return redis


def _settings(redis: Any, url: Any, client: Any, timeout: float) -> dict[str, Any]:
    """The arguments of a connection pool of our own."""
    if (url is None) == (client is None):
        raise ConfigurationError(
            f"RedisBackend takes redis_url or redis_client, one of them; got {'neither' if url is None else 'both'}"
        )
    if client is None:
        if not isinstance(url, str):
            raise ConfigurationError(f"redis_url must be a URL such as redis://localhost:6379, got {url!r}")
        try:
            pool = redis.ConnectionPool.from_url(url)
        except ValueError as error:  # the URL may hold a password
            raise ConfigurationError(
                "redis_url must begin with redis://, rediss:// or unix://, and be a URL"
            ) from error
        settings = dict(pool.connection_kwargs)
        kind = pool.connection_class
    else:
        given = getattr(client, "connection_pool", None)
        if given is None or not hasattr(given, "connection_kwargs"):
            raise ConfigurationError(
                f"redis_client must be a redis.Redis or a redis.asyncio.Redis, got {client!r}"
            )
        settings = {
            name: value for name, value in given.connection_kwargs.items() if name not in ASYNCHRONOUS
        }
        kind = getattr(redis, given.connection_class.__name__, redis.Connection)
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return settings | {
        "connection_class": kind,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry,
        "decode_responses": False,
        "max_connections": 2,  # one is in use, and one more where a caller closes meanwhile
        "timeout": timeout,
    }
