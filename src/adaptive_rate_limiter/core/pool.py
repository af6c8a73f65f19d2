"""One bucket as many workers see it: what is left under each limit, who holds leases, and whose turn it is.

A worker takes a lease, admits calls from it by itself, and renews it with what it spent. Leases are deducted
when they are granted, so the limits are never passed, whatever becomes of a worker. `pool.lua` in
`backends/redis` does the same, number for number; a test compares them step by step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive_rate_limiter.core.inferred import InferredRate
from adaptive_rate_limiter.core.renewal import Fact, Grant, Granted, Learned, Lesson, Renewal, Use
from adaptive_rate_limiter.core.share import SharedLimit

__all__ = ["Fact", "Grant", "Granted", "Pool", "Renewal", "Use"]

LEASE = 1.0  # seconds for which a worker takes what it will need, and after which it renews at the latest
LIVES = 3  # lease times without a renewal, after which a lease is taken back
FORGET = 60.0  # seconds without a word, after which a worker is forgotten
BATCH = 0.1  # seconds of its share that a busy worker takes at the least, where no single call needs more
UP_GAIN = 0.1  # share of a told surplus that is believed at once, as in `core/told.py`
EPSILON = 1e-9


@dataclass(slots=True)
class Worker:
    """What the pool knows of one worker."""

    name: str
    number: int
    weight: float
    finish: float
    renewed: float = 0.0
    leased: dict[str, float] = field(default_factory=dict)
    flying: dict[str, float] = field(default_factory=dict)
    pace: dict[str, float] = field(default_factory=dict)
    unmet: dict[str, float] = field(default_factory=dict)
    last: dict[str, tuple[float, float]] = field(default_factory=dict)  # granted last, and due of it
    retry_in: float = 0.0


class Pool:
    """The limits of one bucket, and its workers. `now` never goes back."""

    def __init__(self) -> None:
        self.limits: list[SharedLimit] = []
        self.workers: list[Worker] = []
        self.at = 0.0
        self.virtual = 0.0
        self.pause_until = 0.0
        self.reason = ""
        self.refused = 0
        self.learned: list[Learned] = []
        self.inferred = InferredRate()

    def renew(self, renewal: Renewal, now: float) -> Grant:
        """Take what a worker reports, and grant it what it may have."""
        self.at = now = max(now, self.at)
        self._reclaim(now)
        for limit in self.limits:
            limit.advance(now, self._leased(limit.key))
        worker = self._worker(renewal)
        if renewal.number > worker.number:
            worker.number = renewal.number
            worker.weight = renewal.weight
            self.refused += renewal.refused
            self._find(renewal, now)
            self._report(worker, renewal, now)
            worker.renewed = now
            self._learn(worker, renewal, now)
            self.learned = self._taught(renewal.lessons, now)
            self._infer(renewal, now)
            self._serve(worker, renewal, now)
        return self._answer(worker, renewal.number, now)

    # Workers

    def _worker(self, renewal: Renewal) -> Worker:
        for worker in self.workers:
            if worker.name == renewal.worker:
                return worker
        worker = Worker(renewal.worker, -1, renewal.weight, self.virtual)
        self.workers.append(worker)
        return worker

    def _reclaim(self, now: float) -> None:
        """Leases that were not renewed come back, but for what was probably sent meanwhile."""
        kept = []
        for worker in self.workers:
            silence = now - worker.renewed
            if silence > LIVES * LEASE:
                for limit in self.limits:
                    leased = worker.leased.get(limit.key, 0.0)
                    probably = min(leased, worker.pace.get(limit.key, 0.0))
                    limit.take(probably - leased, now, worker.renewed)
                    worker.leased[limit.key] = probably
                worker.unmet = {}
            if silence <= FORGET:
                kept.append(worker)
        self.workers = kept

    def _leased(self, key: str) -> float:
        total = 0.0
        for worker in self.workers:
            total += worker.leased.get(key, 0.0)
        return total

    def _flying(self, key: str) -> float:
        total = 0.0
        for worker in self.workers:
            total += worker.flying.get(key, 0.0)
        return total

    # What a worker says

    def _find(self, renewal: Renewal, now: float) -> None:
        """Limits that nobody has told of before."""
        for fact in renewal.facts:
            if self._limit(fact.key) is None:
                limit = SharedLimit(fact.key, fact.unit, fact.limit, fact.window, fact.burst, now)
                self.limits.append(limit)
                limit.shape(fact.algorithms, fact.evidence, now)
                if fact.remaining >= 0:
                    limit.correct(min(limit.available(), fact.remaining), now)
                    limit.newest = now - fact.age

    def _report(self, worker: Worker, renewal: Renewal, now: float) -> None:
        for use in renewal.uses:
            limit = self._limit(use.key)
            if limit is None:
                continue
            leased = worker.leased.get(use.key, 0.0)
            limit.exchange(leased, use.spent + use.kept, now, worker.renewed)
            worker.leased[use.key] = use.kept
            worker.flying[use.key] = use.flying
            worker.pace[use.key] = use.pace

    def _limit(self, key: str) -> SharedLimit | None:
        for limit in self.limits:
            if limit.key == key:
                return limit
        return None

    def _learn(self, worker: Worker, renewal: Renewal, now: float) -> None:
        for fact in renewal.facts:
            limit = self._limit(fact.key)
            if limit is None:
                continue
            if fact.evidence >= limit.evidence:
                limit.resize(fact.limit, fact.window, fact.burst, now)
                limit.shape(fact.algorithms, fact.evidence, now)
            if fact.remaining >= 0 and now - fact.age > limit.newest:
                limit.newest = now - fact.age
                self._correct(limit, worker, fact, now)
            if fact.ends_in > 0:
                limit.end_at(now + fact.ends_in)
        if now + renewal.pause > self.pause_until and renewal.pause > 0:
            self.pause_until, self.reason = now + renewal.pause, renewal.reason

    def _alive(self, now: float) -> list[Worker]:
        return [worker for worker in self.workers if now - worker.renewed <= LIVES * LEASE]

    def _infer(self, renewal: Renewal, now: float) -> None:
        workers = len(self._alive(now))
        found = self.inferred.follow(renewal.sent, renewal.limited, self.limits, workers, now)
        if found is not None:
            self.limits.append(found)

    def _taught(self, lessons: tuple[Lesson, ...], now: float) -> list[Learned]:
        """A quantile moves by the mean of the steps that workers made since they were told: their sum would overshoot."""
        known = {learned.name: learned for learned in self.learned}
        for lesson in lessons:
            old = known.get(lesson.name, Learned(lesson.name, lesson.value, 0))
            count = old.count + lesson.seen
            if lesson.base > 0:
                value = old.value + (lesson.value - lesson.base) / len(self._alive(now))
            else:
                value = (old.value * old.count + lesson.value * lesson.seen) / max(1, count)
            known[lesson.name] = Learned(lesson.name, max(value, old.value / 2), count)
        return list(known.values())

    def _correct(self, limit: SharedLimit, worker: Worker, fact: Fact, now: float) -> None:
        """Down at once to the most that is possible, and up slowly to what is sure.

        The header counts at least what had been sent for sure when its request went out, and nothing that is
        still leased to its worker.
        """
        left = limit.available()
        most = fact.remaining + limit.refilled - fact.refilled - worker.leased.get(limit.key, 0.0)
        least = fact.remaining + fact.sent - limit.taken
        if left > most:
            limit.correct(most, now)
        elif least > left:
            limit.correct(left + UP_GAIN * (least - left), now)

    # What it gets

    def _serve(self, worker: Worker, renewal: Renewal, now: float) -> None:
        """All of `need` or nothing; then what is of use, as far as nobody is before it."""
        worker.last, worker.unmet = {}, {}
        busy, weights = self._busy(worker)
        pays, asked = True, []
        for limit in self.limits:
            unit, capacity = limit.unit, limit.capacity
            held = worker.leased.get(limit.key, 0.0)
            need = max(0.0, min(renewal.need.get(unit, 0.0), capacity) - held)
            due = max(0.0, renewal.due.get(unit, 0.0) - held)
            want = max(0.0, renewal.want.get(unit, 0.0) - held)
            rate = limit.limit / limit.window * worker.weight / weights
            left = limit.available() - limit.guard
            quantum = max(need, left / busy, rate * LEASE)
            want = min(max(need, due, want), quantum, capacity)
            before = self._before(worker, limit.key)
            if need > 0 and left - before < min(need, capacity - limit.guard) * (1 - EPSILON):
                pays = False
            asked.append((limit, need, due, want, before, rate, left))
        share = retry = 0.0
        for limit, need, due, want, before, rate, left in asked:
            amount = max(need, min(want, left - before)) if pays else 0.0
            amount = max(0.0, amount)
            at_once = min(amount, due)
            limit.take(amount, now, now)
            worker.leased[limit.key] = worker.leased.get(limit.key, 0.0) + amount - at_once
            worker.last[limit.key] = (amount, at_once)
            share = max(share, amount / limit.limit)
            missing = due - at_once
            if missing > EPSILON * limit.limit:
                worker.unmet[limit.key] = min(missing, max(need, rate * LEASE))
                batch = min(missing, rate * BATCH)
                wanted = batch if pays else need
                ready = limit.ready_at(before + wanted + limit.guard, now) - now
                retry = max(retry, batch / rate, ready)
        if share > 0:
            self.virtual = max(self.virtual, worker.finish)
            worker.finish = self.virtual + share / worker.weight
        worker.retry_in = min(retry, LEASE) if worker.unmet else 0.0
        if not any(other.unmet for other in self.workers):  # what was free is held against nobody
            self.virtual = 0.0
            for other in self.workers:
                other.finish = 0.0

    def _busy(self, worker: Worker) -> tuple[int, float]:
        """How many share now, the worker included, and the sum of their weights."""
        busy, weights = 1, worker.weight
        for other in self.workers:
            if other is not worker and (other.unmet or self._spends(other)):
                busy += 1
                weights += other.weight
        return busy, weights

    def _spends(self, worker: Worker) -> bool:
        if self.at - worker.renewed > LIVES * LEASE:
            return False
        return any(pace > 0 for pace in worker.pace.values())

    def _before(self, worker: Worker, key: str) -> float:
        """What those wait for whose turn comes first: start-time fair queueing on the largest share."""
        total = 0.0
        for other in self.workers:
            if other is worker or not other.unmet or self.at - other.renewed > LEASE:
                continue
            if (other.finish, other.name) < (worker.finish, worker.name):
                total += other.unmet.get(key, 0.0)
        return total

    def _answer(self, worker: Worker, number: int, now: float) -> Grant:
        fresh = number == worker.number
        _, weights = self._busy(worker)
        limits = []
        for limit in self.limits:
            amount, due = worker.last.get(limit.key, (0.0, 0.0)) if fresh else (0.0, 0.0)
            sent = limit.taken - self._leased(limit.key) - self._flying(limit.key)
            limits.append(
                Granted(
                    limit.key, limit.unit, limit.limit, limit.window, limit.burst, limit.algorithms,
                    limit.evidence, amount, due, limit.available(),
                    limit.limit / limit.window * worker.weight / weights, sent, limit.refilled,
                )
            )  # fmt: skip
        alive = self._alive(now)
        hungry = any(other is not worker and other.unmet for other in alive)
        return Grant(
            worker.number, max(0.0, worker.renewed + LIVES * LEASE - now), worker.retry_in, hungry, len(alive),
            max(0.0, self.pause_until - now), self.reason if self.pause_until > now else "", tuple(limits),
            tuple(self.learned),
        )  # fmt: skip
