"""What a backend is: the place where buckets live, and where workers that share them meet."""

from __future__ import annotations

import math
import os
import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, get_args

from adaptive_rate_limiter.backends.leased import LeasedBucket
from adaptive_rate_limiter.backends.renewer import Renewer
from adaptive_rate_limiter.core.lease import OnOutage, Terms
from adaptive_rate_limiter.exceptions import ConfigurationError, RateLimiterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adaptive_rate_limiter.backends.locked import LockedBucket
    from adaptive_rate_limiter.core.pool import Grant, Renewal


__all__ = ["BaseBackend"]


class BaseBackend(ABC):
    """Keeps one bucket for each id, shared by every Limiter that uses this backend, in any process.

    An implementation has one method to write, `renew`: one atomic step on the pool of a bucket, as
    `adaptive_rate_limiter.core.pool.Pool.renew` makes it. All else, the line, fairness, leases, outages, is
    done here. `adaptive_rate_limiter.testing.BackendConformance` proves an implementation.

    `weight`: this worker's part where several want more than there is. `on_outage`: what to do while `renew`
    fails; "degrade" spends the lease, then goes on at this worker's part of the limit, "open" lets everything go,
    "closed" raises BackendConnectionError at once, or BackendOperationError where the backend was reached and failed.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(self, *, weight: float = 1.0, on_outage: OnOutage = "degrade") -> None:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ConfigurationError(f"weight must be a positive number, got {weight!r}")
        if on_outage not in get_args(OnOutage):
            raise ConfigurationError(
                f"on_outage must be one of {', '.join(get_args(OnOutage))}, got {on_outage!r}"
            )
        self.weight = float(weight)
        self.on_outage = on_outage
        self._worker = ""
        self._process = 0
        self._buckets: dict[str, LockedBucket] = {}
        self._renewer = Renewer(self)

    @abstractmethod
    def renew(self, bucket_id: str, renewal: Renewal) -> Grant:
        """One atomic step on the pool of this bucket: `Pool.renew(renewal, now)` with the time of the pool's place.

        May take its time, for it is called in a thread of its own, one call at a time. Raises BackendConnectionError if the
        pool cannot be reached, BackendOperationError if it fails.
        """

    def renew_many(self, renewals: Sequence[tuple[str, Renewal]]) -> Sequence[Grant | RateLimiterError]:
        """The same for several buckets, in one round trip where that can be.

        What it raises is of all of them; an error in the place of a grant is of that bucket alone.
        """
        return [self.renew(bucket_id, renewal) for bucket_id, renewal in renewals]

    def close(self) -> None:
        """Give back what is leased, and end the thread. May be called again; a call made later starts anew."""
        self._renewer.close([bucket for bucket in self._buckets.values() if isinstance(bucket, LeasedBucket)])

    @property
    def worker(self) -> str:
        """The name by which the pools know this process."""
        if self._process != os.getpid():
            self._process, self._worker = os.getpid(), secrets.token_hex(8)
        return self._worker

    def bucket(self, bucket_id: str, make: Callable[[], LockedBucket]) -> LockedBucket:
        """The bucket of this id; `make` builds it when it is first asked for."""
        found = self._buckets.get(bucket_id)
        if found is None:
            found = self._buckets.setdefault(bucket_id, self._shared(make()))
        return found

    def _shared(self, made: LockedBucket) -> LockedBucket:
        terms = Terms(self.worker, self.weight, self.on_outage)
        return LeasedBucket(made, self._renewer, terms)

    def buckets(self, prefix: str) -> list[LockedBucket]:
        """Those whose id begins with `prefix`, in the order in which they were made."""
        return [bucket for key, bucket in list(self._buckets.items()) if key.startswith(prefix)]
