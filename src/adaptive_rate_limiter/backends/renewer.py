"""The one thread of a backend that goes to the pools, for sync and async callers alike. It sleeps until it is woken."""

from __future__ import annotations

import logging
import random
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from weakref import finalize, ref

from adaptive_rate_limiter.exceptions import RateLimiterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.backends.base import BaseBackend
    from adaptive_rate_limiter.backends.leased import LeasedBucket
    from adaptive_rate_limiter.core.pool import Grant

__all__ = ["Renewer"]

logger = logging.getLogger(__name__)

FIRST, MOST = 0.1, 2.0  # seconds to the next try while the backend cannot be reached, doubled each time


class Renewer:
    """Buckets that are kicked have their lease renewed, all that were kicked together in one round trip."""

    def __init__(self, backend: BaseBackend) -> None:
        self._backend = ref(backend)
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self.failing: set[str] = set()  # ids of buckets
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    @property
    def backend(self) -> BaseBackend | None:
        """None once nobody has it any more: buckets may outlive it."""
        return self._backend()

    def kick(self, bucket: LeasedBucket) -> None:
        """Renew soon. May be called anywhere, and takes no time."""
        with self._lock:
            if self._running is None:
                self._running = _Running(self)
            self._running.kicked.put(bucket)

    def renew(self, buckets: list[LeasedBucket]) -> None:
        """Those that were reached the last time go first: a server that hangs does not hold up the others."""
        reached = [bucket for bucket in buckets if not bucket.lease.failures]
        for batch in (reached, [bucket for bucket in buckets if bucket.lease.failures]):
            if batch:
                self._renew(batch)

    def _renew(self, buckets: list[LeasedBucket]) -> None:
        backend = self.backend
        if backend is None:
            return
        clock = buckets[0].clock
        sent_at = clock.now()
        answers: Sequence[Grant | RateLimiterError | Exception]
        try:
            answers = backend.renew_many([(bucket.bucket_id, bucket.prepare()) for bucket in buckets])
        except RateLimiterError as error:
            answers = [error] * len(buckets)
        except Exception as error:
            logger.exception("the backend failed in a way that it should not")
            answers = [error] * len(buckets)
        self._tell(buckets, answers)
        failures = 1 + max(bucket.lease.failures for bucket in buckets)
        delay = min(MOST, FIRST * 2 ** min(failures - 1, 10)) * (0.5 + self._random.random())
        for bucket, answer in zip(buckets, answers, strict=True):
            if isinstance(answer, Exception):
                bucket.failed(delay, answer)
            else:
                bucket.granted(answer, sent_at)

    def _tell(self, buckets: list[LeasedBucket], answers: Sequence[Grant | Exception]) -> None:
        """Log when the first bucket cannot be renewed, and when the last one can be again."""
        before = bool(self.failing)
        for bucket, answer in zip(buckets, answers, strict=True):
            if not isinstance(answer, Exception):
                self.failing.discard(bucket.bucket_id)
            elif not self.failing:
                self.failing.add(bucket.bucket_id)
                on_outage = bucket.lease.on_outage
                logger.warning(
                    'the backend cannot be reached; on_outage="%s" is in force: %s', on_outage, answer
                )
            else:
                self.failing.add(bucket.bucket_id)
        if before and not self.failing:
            logger.warning("the backend is reached again")

    def close(self, buckets: list[LeasedBucket]) -> None:
        """End the thread; what is leased goes back, if the pools can be reached."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        running.kicked.put(None)
        if running.thread is not threading.current_thread():
            running.thread.join()
        backend = self.backend
        reached = [bucket for bucket in buckets if bucket.bucket_id not in self.failing]
        if reached and backend is not None:
            with suppress(RateLimiterError):
                sent_at = reached[0].clock.now()
                grants = backend.renew_many([(bucket.bucket_id, bucket.give_up()) for bucket in reached])
                for bucket, grant in zip(reached, grants, strict=True):
                    if not isinstance(grant, RateLimiterError):
                        bucket.granted(grant, sent_at)

    def after_fork_in_child(self) -> None:
        """Threads and what they hold exist only in the parent."""
        self._lock, self._running = threading.Lock(), None


class _Running:
    """A thread, and what wakes it: nobody else's, or another's end would be taken for its own."""

    def __init__(self, renewer: Renewer) -> None:
        self.kicked: SimpleQueue[LeasedBucket | None] = SimpleQueue()
        self.thread = threading.Thread(
            target=_run, args=(ref(renewer), self.kicked), name="adaptive-rate-limiter-renewals", daemon=True
        )
        finalize(renewer, self.kicked.put, None)
        self.thread.start()


def _run(renewer: ref[Renewer], kicked: SimpleQueue[LeasedBucket | None]) -> None:
    """Keeps nothing alive while it sleeps, and ends with `close` or with its backend."""
    while True:
        batch: dict[int, LeasedBucket] = {}
        bucket = kicked.get()
        try:
            while bucket is not None:
                batch[id(bucket)] = bucket
                bucket = kicked.get_nowait()
        except Empty:
            pass
        owner = renewer()
        if batch and owner is not None:
            owner.renew(list(batch.values()))
        if bucket is None or owner is None:
            return
        del owner, bucket
        batch.clear()
