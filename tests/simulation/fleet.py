"""A discrete-event run of many workers on one pool: hours of a thousand processes, without one."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from tests.simulation.simulate import Provider

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.lease import Lease, Terms
from adaptive_rate_limiter.core.pool import Grant, Pool, Renewal
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota

SOONEST = 0.001  # seconds to the next timer, as in a process
RETRY = 1.0  # seconds to the next try while the pool cannot be reached
COST = {"requests": 1.0}


@dataclass
class Way:
    """Seconds: of a round trip to the pool, of one step there, of a client's sending, to the provider, and of replies."""

    trip: float = 0.001
    step: float = 0.0
    overhead: float = 0.0015
    jitter: float = 0.005
    latency: tuple[float, float] = (0.1, 0.3)


class Fleet:
    """Workers, their pool, and the provider that judges them; each caller makes one call after the other."""

    def __init__(
        self, provider: Provider, pool: Pool | None = None, way: Way | None = None, seed: int = 0
    ) -> None:
        self.provider, self.pool, self.way = provider, pool or Pool(), way or Way()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.reachable = True
        self.admitted = self.refused = self.renewals = 0
        self.last = 0.0
        self.refusals: list[tuple[float, str]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._pool_free = 0.0

    def at(self, when: float, action: Callable[..., None], *given: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), partial(action, *given) if given else action))

    def run(self, until: float = math.inf) -> None:
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action = heapq.heappop(events)
            action()
        self.now = max(self.now, until) if until < math.inf else self.now

    def answer(self, member: Member, renewal: Renewal, sent_at: float) -> None:
        """One step of the pool, after those that came before it."""
        self.renewals += 1
        if not self.reachable:
            self.at(self.now + self.way.trip / 2, member.failed)
            return
        grant = self.pool.renew(renewal, self.now)
        self._pool_free = max(self._pool_free, self.now) + self.way.step
        self.at(self._pool_free + self.way.trip / 2, member.granted, grant, sent_at)


class Member:
    """One worker: `callers` of it make `calls` in all."""

    def __init__(
        self, fleet: Fleet, name: str, callers: int, calls: float = math.inf, quotas: tuple[Quota, ...] = ()
    ) -> None:
        self.fleet, self.name, self.left = fleet, name, calls
        self.bucket = Bucket("simulated", quotas, fleet.now)
        self.lease = Lease(self.bucket, Terms(name), fleet.now)
        self.kicked = self.dead = False
        self.timer_at = self.renewal_at = math.inf
        self.sending_until = 0.0
        self.done = 0
        for _ in range(callers):
            self._next()

    def end(self, *, killed: bool) -> None:
        """Killed without a word, or closed: then it gives back what it has leased. What is under way arrives."""
        if not killed and not self.kicked:
            self.fleet.pool.renew(self.lease.give_up(self.fleet.now), self.fleet.now)
        self.dead = True

    # Calls

    def _next(self) -> None:
        if self.left > 0:
            self.left -= 1
            self._submit(Call(COST, since=self.fleet.now))

    def _submit(self, call: Call) -> None:
        if self.dead:
            return
        self.bucket.submit(call, self.fleet.now)
        if call.admitted:
            self._send(call)
        self._after()

    def _send(self, call: Call) -> None:
        fleet, way = self.fleet, self.fleet.way
        self.sending_until = max(self.sending_until, fleet.now) + way.overhead
        fleet.at(self.sending_until, self._sent, call)
        fleet.at(self.sending_until + way.jitter * fleet.rng.uniform(0.5, 1.5), self._arrive, call)

    def _sent(self, call: Call) -> None:
        self.bucket.begin(call, self.fleet.now, written=True)

    def stall(self, seconds: float) -> None:
        """It is given no time to send anything for so long; what it has been granted goes after that."""
        self.sending_until = max(self.sending_until, self.fleet.now) + seconds

    def _arrive(self, call: Call) -> None:
        fleet = self.fleet
        passed, info = fleet.provider.arrive(call.cost, fleet.now)
        if passed:
            fleet.admitted, fleet.last = fleet.admitted + 1, fleet.now
        else:
            fleet.refused += 1
            fleet.refusals.append((fleet.now, self.name))
        fleet.at(
            fleet.now + (fleet.rng.uniform(*fleet.way.latency) if passed else 0.03), self._reply, call, info
        )

    def _reply(self, call: Call, info: Any) -> None:
        if self.dead:
            return
        now = self.fleet.now
        if info.quotas or info.refusal is not None:
            self.bucket.observe(call, info, now)
        if info.refusal is None:
            self.done += 1
            self.bucket.settle(call, Usage(), now)
            self._next()
        else:
            self._submit(call.again())
        self._after()

    # The shell: what LockedBucket and LeasedBucket do

    def _after(self) -> None:
        now, bucket = self.fleet.now, self.bucket
        if bucket.wake_at <= now if bucket.queue.count else bucket.wait is not None:
            for call in bucket.dispatch(now):
                self._send(call)
            bucket.wake_at = max(bucket.wake_at, now + SOONEST)
            if bucket.wake_at < self.timer_at:
                self.timer_at = bucket.wake_at
                self.fleet.at(self.timer_at, self._tick, self.timer_at)
        if not self.kicked:
            self._ask()

    def _tick(self, at: float) -> None:
        if at == self.timer_at and not self.dead:
            self.timer_at = math.inf
            self.bucket.wake_at = at
            self._after()

    def _ask(self) -> None:
        now = self.fleet.now
        due = self.lease.due_at(now)
        if due <= now:
            self.kicked = True
            renewal = self.lease.prepare(now)
            self.fleet.at(now + self.fleet.way.trip / 2, self.fleet.answer, self, renewal, now)
        elif due < self.renewal_at or (due > self.renewal_at and self.renewal_at <= now):
            self.renewal_at = due
            self.fleet.at(due, self._due, due)

    def _due(self, at: float) -> None:
        if at == self.renewal_at:
            self.renewal_at = math.inf
            if not self.kicked and not self.dead:
                self._ask()

    def failed(self) -> None:
        self.kicked = False
        if not self.dead:
            self.lease.fail(self.bucket, RETRY * self.fleet.rng.uniform(0.5, 1.5), self.fleet.now)
            self._after()

    def granted(self, grant: Grant, sent_at: float) -> None:
        self.kicked = False
        if not self.dead:
            self.lease.apply(self.bucket, grant, sent_at, self.fleet.now)
            self._after()
