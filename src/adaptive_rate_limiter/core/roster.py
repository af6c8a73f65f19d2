"""The workers of one pool: what they hold and wait for in sum, whose silence ends first, and whose turn it is.

Sums and orders are kept and never made anew, so a step costs as much with ten workers as with ten thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.order import Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.share import SharedLimit

LEASE = 1.0  # seconds for which a worker takes what it will need, and after which it renews at the latest
LIVES = 3  # lease times without a renewal that was due, after which a lease is taken back
FORGET = 60.0  # seconds without a word, after which a worker is forgotten
FRONT = 10  # workers at the front of the line: counted one by one, and never asked to wait for long
RECLAIMED = 10  # workers whose silence ends something, in one step; the others in the next
EPSILON = 1e-9


@dataclass(slots=True)
class Worker:
    """What the pool knows of one worker."""

    name: str
    number: int
    weight: float
    finish: float
    epoch: int
    renewed: float = 0.0
    ends_at: float = 0.0  # its life, if it does not renew; once it is dead, what is remembered of it
    dead: bool = False
    away: bool = False  # what it sent without a pool, it has still to tell
    leased: dict[str, float] = field(default_factory=dict)
    flying: dict[str, float] = field(default_factory=dict)
    pace: dict[str, float] = field(default_factory=dict)
    unmet: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)  # units: let go, since nobody told a limit
    last: dict[str, tuple[float, float]] = field(default_factory=dict)  # granted last, and due of it
    retry_in: float = 0.0

    @property
    def busy(self) -> bool:
        return not self.dead and (bool(self.unmet) or any(pace > 0 for pace in self.pace.values()))

    def stale(self, now: float) -> bool:
        """It has not come back when it was asked to: what it waits for is kept for it no longer."""
        return self.renewed + self.retry_in + LEASE < now


class Roster:
    """Who leaves it to change comes back by `enter`: meanwhile the sums are those of the others."""

    __slots__ = ("alive", "busy", "free", "line", "lives", "weights", "workers")

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.lives = Order()  # by `ends_at`
        self.line = Order()  # those who wait, by `finish`
        self.free: dict[str, float] = {}
        self.alive = 0
        self.busy = 0
        self.weights = 0.0  # of those that are busy

    def enter(self, worker: Worker, limits: Sequence[SharedLimit]) -> None:
        self.workers[worker.name] = worker
        self.lives.put(worker.name, worker.ends_at)
        if worker.unmet:
            self.line.put(worker.name, worker.finish)
        self._count(worker, limits, 1)

    def leave(self, worker: Worker, limits: Sequence[SharedLimit]) -> None:
        self.line.drop(worker.name)
        self._count(worker, limits, -1)

    def _count(self, worker: Worker, limits: Sequence[SharedLimit], sign: int) -> None:
        for limit in limits:
            least = EPSILON * limit.limit  # below is rounding
            limit.leased = _above(limit.leased + sign * worker.leased.get(limit.key, 0.0), least)
            limit.flying = _above(limit.flying + sign * worker.flying.get(limit.key, 0.0), least)
            limit.waiting = _above(limit.waiting + sign * worker.unmet.get(limit.key, 0.0), least)
        for unit, amount in worker.free.items():
            self.free[unit] = self.free.get(unit, 0.0) + sign * amount
        self.alive += 0 if worker.dead else sign
        if worker.busy:
            self.busy += sign
            self.weights = self.weights + sign * worker.weight if self.busy else 0.0

    def reclaim(self, limits: Sequence[SharedLimit], now: float) -> None:
        """Leases that were not renewed come back, but for what was probably sent meanwhile."""
        for ends_at, name in self.lives.first(RECLAIMED):
            if ends_at >= now:
                break
            worker = self.workers[name]
            self.leave(worker, limits)
            if worker.dead:
                self.lives.drop(name)
                del self.workers[name]
            else:
                self._bury(worker, limits, now)

    def _bury(self, worker: Worker, limits: Sequence[SharedLimit], now: float) -> None:
        for limit in limits:
            leased = worker.leased.get(limit.key, 0.0)
            probably = min(leased, worker.pace.get(limit.key, 0.0))
            limit.take(probably - leased, now, worker.renewed)
            worker.leased[limit.key] = probably
        worker.unmet, worker.dead, worker.ends_at = {}, True, worker.renewed + FORGET
        self.enter(worker, limits)

    def before(
        self, worker: Worker, limits: Sequence[SharedLimit], room: Sequence[float], now: float
    ) -> list[float]:
        """What those wait for whose turn comes first, of each limit.

        It is exact at the front, until that is more than `room`; the rest is taken to be like the mean of those who wait.
        """
        totals = [0.0] * len(limits)
        rank, seen = self.rank(worker), 0
        for _, name in self.line.first(min(rank, FRONT)):
            if any(total > most for total, most in zip(totals, room, strict=True)):
                break
            other = self.workers[name]
            if other.stale(now):
                self.leave(other, limits)
                other.unmet = {}
                self.enter(other, limits)
                rank -= 1
            else:
                seen += 1
                for place, limit in enumerate(limits):
                    totals[place] += other.unmet.get(limit.key, 0.0)
        if rank > seen:
            part = (rank - seen) / (len(self.line) - seen)
            for place, limit in enumerate(limits):
                totals[place] += part * max(0.0, limit.waiting - totals[place])
        return totals

    def unheard(self, unit: str) -> float:
        """What others let go of which no limit has heard."""
        return max(0.0, self.free.get(unit, 0.0))

    def rank(self, worker: Worker) -> int:
        """How many go before it: start-time fair queueing on the largest share."""
        return self.line.rank(worker.name, worker.finish)

    def about_before(self, worker: Worker, limits: Sequence[SharedLimit]) -> list[float]:
        """What those wait for that go before it now, by the mean alone."""
        part = self.rank(worker) / max(1, len(self.line))
        return [part * limit.waiting for limit in limits]


def _above(number: float, least: float) -> float:
    return number if number > least else 0.0
