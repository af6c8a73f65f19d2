"""Buckets in the memory of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from adaptive_rate_limiter.backends.base import BaseBackend
from adaptive_rate_limiter.backends.locked import LockedBucket


class MemoryBackend(BaseBackend):
    """The default: for one process, any number of threads and event loops."""

    def __init__(self) -> None:
        self._buckets: dict[str, LockedBucket] = {}
        self._lock = threading.Lock()

    def bucket(self, bucket_id: str, make: Callable[[], LockedBucket]) -> LockedBucket:
        found = self._buckets.get(bucket_id)
        if found is None:
            with self._lock:
                found = self._buckets.get(bucket_id) or self._buckets.setdefault(bucket_id, make())
        return found

    def buckets(self, prefix: str) -> list[LockedBucket]:
        with self._lock:
            return [bucket for key, bucket in self._buckets.items() if key.startswith(prefix)]
