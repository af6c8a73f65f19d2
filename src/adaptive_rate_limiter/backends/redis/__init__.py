"""Pools of buckets in Redis or Valkey. Needs the extra `adaptive-rate-limiter[redis]` when it is used."""

from adaptive_rate_limiter.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
