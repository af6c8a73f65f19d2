"""Buckets in the memory of this process."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.core.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.locked import LockedBucket
    from adaptive_rate_limiter.core.pool import Grant, Renewal

__all__ = ["MemoryBackend"]


class MemoryBackend(BaseBackend):
    """The default: for one process, any number of threads and event loops.

    Limiters that share one, under the same namespace, share buckets; the first to use a bucket states its
    quotas and bounds. There is nobody to share a pool with, so its buckets take no leases.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pools: dict[str, Pool] = {}
        self._step = threading.Lock()

    def bucket(self, bucket_id: str, make: Callable[[], LockedBucket]) -> LockedBucket:
        found = self._buckets.get(bucket_id)
        return found if found is not None else self._buckets.setdefault(bucket_id, make())

    def renew(self, bucket_id: str, renewal: Renewal) -> Grant:
        with self._step:
            return self._pools.setdefault(bucket_id, Pool()).renew(renewal, time.monotonic())
