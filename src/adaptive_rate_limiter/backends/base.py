"""What a backend is: the place where buckets live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.locked import LockedBucket


__all__ = ["BaseBackend"]


class BaseBackend(ABC):
    """Keeps one bucket for each id, shared by every Limiter that uses this backend."""

    @abstractmethod
    def bucket(self, bucket_id: str, make: Callable[[], LockedBucket]) -> LockedBucket:
        """The bucket of this id; `make` builds it when it is first asked for."""

    @abstractmethod
    def buckets(self, prefix: str) -> list[LockedBucket]:
        """Those whose id begins with `prefix`, in the order in which they were made."""
