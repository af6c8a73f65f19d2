"""A bucket that many threads and event loops share: a lock, one timer, and the waking of those who wait."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from weakref import WeakSet

from adaptive_rate_limiter.backends.progress import Progress
from adaptive_rate_limiter.backends.waking import wake
from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.queue import FairQueue
from adaptive_rate_limiter.observability.events import is_wanted, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.backends.waking import Waker
    from adaptive_rate_limiter.clock import Clock, Timer
    from adaptive_rate_limiter.core.charging import Charging, Usage
    from adaptive_rate_limiter.core.queue import Call

__all__ = ["LockedBucket"]

Result = TypeVar("Result")
Seen: TypeAlias = "tuple[bytes, int | None, int]"
"""Host, port and hash of the credential of a request."""

SOONEST = 0.001  # seconds to the next timer at the least


class LockedBucket:
    """Every step on the bucket is one short critical section; whoever may go is woken after it, and what is
    worth a line is said then.

    The garbage collector may end a reservation anywhere, even within a step of the same thread. Hence the
    lock can be taken again by its owner, and what arrives then is put off until the step is done.
    """

    def __init__(self, bucket: Bucket, clock: Clock, model: str | None = None) -> None:
        self.bucket = bucket
        self.clock = clock
        self.model = bucket.model = model
        self.origin: tuple[str, str] | None = None  # host and hashed credential, once a request was seen
        self.last_seen: Seen | None = None  # of a request that went there
        self._lock = threading.RLock()
        self._inside = False
        self._put_off: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._progress = Progress()
        self._events = bucket.tally.events
        with _listing:
            _all.add(self)

    def submit(self, call: Call, waker: Callable[[], Waker]) -> bool:
        """True if the call was admitted at once; else `call.wake` is set, and woken when its wait is over.

        Raises CapacityExceededError if it can never go, or not in time.
        """
        with self._lock:
            if self.bucket.journal.admit(call, self.clock.now()):
                return True
        done: list[Call] | None = None
        try:
            with self._lock:
                self._inside = True
                try:
                    now = self.clock.now()
                    if self._put_off:
                        self._catch_up(now)
                    if not self.bucket.submit(call, now):
                        call.wake = waker()
                        done = self._dispatch(now) if self.bucket.wake_at <= now else []
                        self._report(now)
                finally:
                    self._inside = False
        finally:
            if done:
                self._wake(done)
            if self._events.pending:
                self._publish()
        return done is None

    def step(self, action: Callable[..., Result], *given: Any) -> Result:
        """Do `action(bucket, *given, now)`, and let go whoever may go after it."""
        done: list[Call] | None = None
        try:
            with self._lock:
                if self._inside:
                    self._later(action, given)
                    return cast("Result", True)  # only ends come from there, and it is as good as ended
                self._inside = True
                try:
                    now = self.clock.now()
                    if self._put_off:
                        self._catch_up(now)
                    result = action(self.bucket, *given, now)
                    core = self.bucket
                    # else nobody waits, or nothing has changed for those who do
                    if core.wake_at <= now if core.queue.count else core.wait is not None:
                        done = self._dispatch(now)
                        self._report(now)
                finally:
                    self._inside = False
        finally:
            if done:
                self._wake(done)
            if self._events.pending:
                self._publish()
        return result

    def settle(self, call: Call, usage: Usage) -> bool:
        """`Bucket.settle`, as a step if that is more than a note."""
        if call.noted:
            with self._lock:
                if call.hold is None:
                    return self.bucket.settle(call, usage, self.clock.now())
        return self.step(Bucket.settle, call, usage)

    def look(self, view: Callable[[Bucket, float], Result]) -> Result:
        """Read the bucket without letting anyone go."""
        with self._lock:
            self._inside = True  # nor does the collector change anything meanwhile
            try:
                now = self.clock.now()
                if self._put_off:
                    self._catch_up(now)
                self.bucket.post()
                seen = view(self.bucket, now)
            finally:
                self._inside = False
        if self._events.pending:  # of a step that another thread ended while this one looked
            self._publish()
        return seen

    def belong(self, origin: tuple[str, str], charging: Charging) -> None:
        """The first request decides whose bucket this is."""
        with self._lock:
            if self.origin is None:
                self.origin = self.bucket.origin = origin
                self.bucket.charge_like(charging)

    def lapse(self, call: Call) -> bool:
        """Nobody knows what became of it: it stays charged. False if it had already ended."""
        return self.step(_lapse, call)

    def leave(self, call: Call) -> None:
        """The caller gave up waiting: out of the line, or, if it was just admitted, everything given back."""
        self.step(_withdraw, call)

    def abandon(self, call: Call) -> None:
        """The reservation was garbage-collected: take no lock here, the collector runs anywhere."""
        self._later(_lapse if call.wake is None else _withdraw, (call,))

    def _later(self, action: Callable[..., object], given: tuple[Any, ...]) -> None:
        self._put_off.append((action, given))
        self.clock.call_at(-math.inf, self._tick)

    def _catch_up(self, now: float) -> None:
        while self._put_off:
            action, given = self._put_off.popleft()
            action(self.bucket, *given, now)

    def _tick(self) -> None:
        self.step(self._timer_fired)

    def _timer_fired(self, bucket: Bucket, now: float) -> None:
        if now >= self._timer_at:
            self._timer, self._timer_at = None, math.inf
            bucket.wake_at = now  # it may have been set for an earlier time: the dispatch sets the next

    def _dispatch(self, now: float) -> list[Call]:
        done = self.bucket.dispatch(now)
        wake_at = self.bucket.wake_at = max(self.bucket.wake_at, now + SOONEST)
        if wake_at < self._timer_at or wake_at == math.inf:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.clock.call_at(wake_at, self._tick) if wake_at < math.inf else None
            self._timer_at = wake_at
        return done

    def _report(self, now: float) -> None:
        if is_wanted("waiting"):
            self._progress.report(self.bucket, now)

    def _wake(self, done: list[Call]) -> None:
        for call in wake(done):
            self.leave(call)

    def _publish(self) -> None:
        """Hand out what there is to say. Within a step, or while others are in one, it is left to its end."""
        if self._inside:
            return
        with self._lock:
            self._inside = True
            try:
                events = self._events.take()
            finally:
                self._inside = False
        publish(events)

    # A forked child

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Keep what is known of the limits; threads that wait or hold something exist only in the parent."""
        weights = self.bucket.queue.weights
        self.bucket.queue = FairQueue()
        self.bucket.queue.weights = weights
        ledger = self.bucket.ledger
        for hold in ledger.remembered():
            ledger.lapse(hold)
        self.bucket.tally.forget_calls(self.bucket.concurrency.in_flight)
        self.bucket.concurrency.in_flight = 0
        self._timer, self._timer_at = None, math.inf
        self._put_off.clear()
        self._lock.release()


def _withdraw(bucket: Bucket, call: Call, now: float) -> None:
    bucket.withdraw(call, now)
    bucket.cancel(call, now)


def _lapse(bucket: Bucket, call: Call, now: float) -> bool:
    return bucket.lapse(call, now)


_all: WeakSet[LockedBucket] = WeakSet()
_listing = threading.Lock()
_held: list[LockedBucket] = []


def _before_fork() -> None:
    """No step may be half done in the child."""
    _listing.acquire()
    _held[:] = _all
    for bucket in _held:
        bucket.before_fork()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().after_fork_in_parent()
    _listing.release()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().after_fork_in_child()
    _listing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
