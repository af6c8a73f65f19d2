"""Where buckets live."""

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.memory import MemoryBackend

__all__ = ["BaseBackend", "MemoryBackend"]
