"""A bucket that shares its limits with other processes: it asks for leases, and never waits for them itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from adaptive_rate_limiter.backends.locked import LockedBucket
from adaptive_rate_limiter.core.lease import Lease, Terms
from adaptive_rate_limiter.exceptions import BackendConnectionError, BackendOperationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.renewer import Renewer
    from adaptive_rate_limiter.backends.waking import Waker
    from adaptive_rate_limiter.clock import Timer
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.pool import Grant, Renewal
    from adaptive_rate_limiter.core.queue import Call
    from adaptive_rate_limiter.exceptions import RateLimiterError

__all__ = ["LeasedBucket"]

Result = TypeVar("Result")


class LeasedBucket(LockedBucket):
    """After each step it looks whether the lease is to be renewed, now or at some time."""

    def __init__(self, made: LockedBucket, renewer: Renewer, terms: Terms) -> None:
        super().__init__(made.bucket, made.clock, made.model)
        self.bucket_id = made.bucket.bucket_id
        self.renewer = renewer
        self.lease = Lease(made.bucket, terms, made.clock.now())
        self._renewal: Timer | None = None
        self._renewal_at = math.inf
        self._kicked = False
        self._failure: Exception | None = None  # of the last renewal that failed

    def submit(self, call: Call, waker: Callable[[], Waker]) -> bool:
        if self.lease.outage and self.lease.on_outage == "closed":
            raise self._out_of_order()
        admitted = super().submit(call, waker)
        self._ask()
        return admitted

    def step(self, action: Callable[..., Result], *given: Any) -> Result:
        result = super().step(action, *given)
        self._ask()
        return result

    def _out_of_order(self) -> RateLimiterError:
        """What to tell the callers while the outage lasts; its cause is what the last renewal ended with."""
        error: RateLimiterError
        if isinstance(self._failure, BackendOperationError):
            error = BackendOperationError(f'{self.bucket_id}: the backend fails, and on_outage is "closed"')
        else:
            error = BackendConnectionError(
                f'{self.bucket_id}: the backend cannot be reached, and on_outage is "closed"'
            )
        error.__cause__ = self._failure
        return error

    # Renewals

    def _ask(self) -> None:
        """Have the lease renewed when it is due."""
        if self._kicked or self._inside:
            return
        with self._lock:
            now = self.clock.now()
            due = self.lease.due_at(now)
            if due <= now:
                self._kicked = True
            elif due < self._renewal_at or (due > self._renewal_at and self._renewal_at <= now):
                if self._renewal is not None:
                    self._renewal.cancel()
                self._renewal, self._renewal_at = self.clock.call_at(due, self._renewal_due), due
        if self._kicked:
            self.renewer.kick(self)

    def _renewal_due(self) -> None:
        self._renewal, self._renewal_at = None, math.inf
        self._ask()

    def prepare(self) -> Renewal:
        """The renewal to send; called by the renewer."""
        with self._lock:
            return self.lease.prepare(self.clock.now())

    def granted(self, grant: Grant, sent_at: float) -> None:
        """It was answered."""
        with self._lock:
            self._kicked = False
        self.step(self._apply, grant, sent_at)

    def _apply(self, bucket: Bucket, grant: Grant, sent_at: float, now: float) -> None:
        self.lease.apply(bucket, grant, sent_at, now)

    def failed(self, delay: float, error: Exception) -> None:
        """The backend was not reached, or failed."""
        with self._lock:
            self._kicked = False
            self._failure = error
        self.step(self._fail, delay)

    def _fail(self, bucket: Bucket, delay: float, now: float) -> None:
        self.lease.fail(bucket, delay, now)

    def give_up(self) -> Renewal:
        """The last renewal: nothing is kept."""
        with self._lock:
            return self.lease.give_up(self.clock.now())

    def _dispatch(self, now: float) -> list[Call]:
        done = super()._dispatch(now)
        if self.lease.outage and self.lease.on_outage == "closed":
            for call in self.bucket.queue.calls():
                self.bucket.queue.remove(call)
                call.error = self._out_of_order()
                done.append(call)
        return done

    def after_fork_in_child(self) -> None:
        """The child is a worker of its own, and holds nothing."""
        self.renewer.after_fork_in_child()
        backend = self.renewer.backend
        self.lease.begin_anew(backend.worker if backend is not None else "")
        self._renewal, self._renewal_at, self._kicked = None, math.inf, False
        super().after_fork_in_child()
