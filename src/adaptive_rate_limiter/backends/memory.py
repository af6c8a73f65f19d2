"""Buckets in the memory of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.backends.base import BaseBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.locked import LockedBucket

__all__ = ["MemoryBackend"]


class MemoryBackend(BaseBackend):
    """The default: for one process, any number of threads and event loops.

    Limiters that share one, under the same namespace, share buckets; the first to use a bucket states its
    quotas and bounds.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, LockedBucket] = {}

    def bucket(self, bucket_id: str, make: Callable[[], LockedBucket]) -> LockedBucket:
        found = self._buckets.get(bucket_id)
        return found if found is not None else self._buckets.setdefault(bucket_id, make())

    def buckets(self, prefix: str) -> list[LockedBucket]:
        return [bucket for key, bucket in list(self._buckets.items()) if key.startswith(prefix)]
