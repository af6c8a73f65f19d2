"""Where buckets live."""

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.memory import MemoryBackend
from adaptive_rate_limiter.backends.redis import RedisBackend

__all__ = ["BaseBackend", "MemoryBackend", "RedisBackend"]
