"""One bucket as many workers see it: what is left under each limit, who holds leases, and whose turn it is.

A worker takes a lease, admits calls from it by itself, and renews it with what it spent. Leases are deducted
when they are granted, so the limits are never passed, whatever becomes of a worker. `pool.lua` in
`backends/redis` does the same, number for number; a test compares them step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from adaptive_rate_limiter.core.inferred import InferredRate
from adaptive_rate_limiter.core.renewal import Fact, Grant, Granted, Learned, Lesson, Renewal, Use
from adaptive_rate_limiter.core.roster import EPSILON, FORGET, FRONT, LEASE, LIVES, Roster, Worker
from adaptive_rate_limiter.core.share import SharedLimit

__all__ = ["FORGET", "LEASE", "LIVES", "Fact", "Grant", "Granted", "Pool", "Renewal", "Use"]

BATCH = 0.1  # seconds of its share that a busy worker takes at the least, where no single call needs more
PATIENCE = 5.0  # seconds until a worker far back in the line comes again, at the most
EARLY = 0.8  # of the time until its turn: it may come sooner than it seems


class Pool:
    """The limits of one bucket, and its workers. `now` never goes back."""

    def __init__(self) -> None:
        self.limits: list[SharedLimit] = []
        self.roster = Roster()
        self.at = 0.0
        self.born = 0.0  # its first step, which tells it from one that was lost
        self.absence = Absence()
        self.virtual = 0.0
        self.epoch = 0
        self.pause_until = 0.0
        self.reason = ""
        self.invites = False  # one call goes when the pause ends, whatever is believed: the provider said so
        self.refused = 0
        self.learned: list[Learned] = []
        self.inferred = InferredRate()

    def renew(self, renewal: Renewal, now: float) -> Grant:
        """Take what a worker reports, and grant it what it may have."""
        before = self.at
        self.at = now = max(now, before)
        self.born = self.born or now
        self.roster.reclaim(self.limits, now)
        for limit in self.limits:
            limit.advance(now, limit.leased)
        worker = self._worker(renewal)
        if renewal.pool not in (0.0, self.born):  # its marks are those of a pool that was lost
            renewal = replace(renewal, facts=(), away=max(renewal.away, LEASE))
        self._miss(worker, renewal, before)
        if renewal.number > worker.number:
            worker.number = renewal.number
            worker.weight = renewal.weight
            self.refused += renewal.refused
            self._find(renewal, now)
            self._report(worker, renewal, now)
            worker.renewed, worker.dead = now, False
            self._learn(worker, renewal, now)
            self.learned = self._taught(renewal.lessons)
            self._infer(renewal, now)
            self._serve(worker, renewal, now)
            worker.free = self._free(renewal)
            worker.ends_at = now + worker.retry_in + LIVES * LEASE
        weights = self.roster.weights + worker.weight
        self.roster.enter(worker, self.limits)
        return self._answer(worker, renewal.number, weights, now)

    def _worker(self, renewal: Renewal) -> Worker:
        """It has left the roster, until the step is done."""
        worker = self.roster.workers.get(renewal.worker)
        if worker is None:
            return Worker(renewal.worker, -1, renewal.weight, self.virtual, self.epoch)
        self.roster.leave(worker, self.limits)
        return worker

    def _miss(self, worker: Worker, renewal: Renewal, before: float) -> None:
        """After an outage, or where all was lost, others may have sent what nobody has told of yet."""
        now, away = self.at, renewal.away
        if away > 0:
            if before <= now - away and now >= self.absence.ends_at:
                self.absence = Absence(now - away, now + LIVES * LEASE, renewal.workers, renewal.workers)
            worker.away = now < self.absence.ends_at
        elif worker.away:
            worker.away = False
            self.absence.missing -= 1

    # What a worker says

    def _find(self, renewal: Renewal, now: float) -> None:
        """Limits that nobody has told of before: the first header may count nothing of what others were let go."""
        for fact in renewal.facts:
            if self._limit(fact.key) is None:
                limit = SharedLimit(fact.key, fact.unit, fact.limit, fact.window, fact.burst, now)
                self.limits.append(limit)
                limit.shape(fact.algorithms, fact.evidence, now)
                if fact.remaining >= 0:
                    left = fact.remaining + _answered(renewal, fact.key) - self.roster.unheard(fact.unit)
                    limit.correct(min(limit.available(), left), now)
                    limit.told(fact.remaining, fact.sent, now - fact.age)

    def _report(self, worker: Worker, renewal: Renewal, now: float) -> None:
        for use in renewal.uses:
            limit = self._limit(use.key)
            if limit is None:
                continue
            leased = worker.leased.get(use.key, 0.0)
            limit.exchange(leased, use.spent + use.kept, now, worker.renewed)
            limit.postpone(use.late, now - use.admitted, now - use.sent)
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
            if fact.remaining >= 0 and limit.told(fact.remaining, fact.sent, now - fact.age):
                self._correct(limit, worker, fact, now)
            if fact.ends_in:
                limit.end_at(now + fact.ends_in)
        if now + renewal.pause > self.pause_until and renewal.pause > 0:
            self.pause_until, self.reason = now + renewal.pause, renewal.reason
            self.invites = True

    def _infer(self, renewal: Renewal, now: float) -> None:
        workers = self.roster.alive + 1
        found = self.inferred.follow(renewal.sent, renewal.limited, self.limits, workers, now)
        if found is not None:
            self.limits.append(found)

    def _taught(self, lessons: tuple[Lesson, ...]) -> list[Learned]:
        """A quantile moves by the mean of the steps that workers made since they were told: their sum would overshoot."""
        known = {learned.name: learned for learned in self.learned}
        for lesson in lessons:
            old = known.get(lesson.name, Learned(lesson.name, lesson.value, 0))
            count = old.count + lesson.seen
            if lesson.base > 0:
                value = old.value + (lesson.value - lesson.base) / (self.roster.alive + 1)
            else:
                value = (old.value * old.count + lesson.value * lesson.seen) / max(1, count)
            known[lesson.name] = Learned(lesson.name, max(value, old.value / 2), count)
        return list(known.values())

    def _correct(self, limit: SharedLimit, worker: Worker, fact: Fact, now: float) -> None:
        """Down at once to the most that is possible, and up to what is sure.

        The header counts at least what had been sent for sure when its request went out, and nothing that is
        still leased to its worker. After calls, all is never left.
        """
        left = limit.available()
        most = fact.remaining + limit.refilled - fact.refilled - worker.leased.get(limit.key, 0.0)
        least = fact.remaining + fact.sent - limit.taken - self.roster.unheard(limit.unit)
        if left > most:
            limit.correct(most, now)
        elif least > left and fact.remaining < limit.limit:
            limit.lift(least)

    # What it gets

    def _free(self, renewal: Renewal) -> dict[str, float]:
        """What goes, or is under way, though nobody told a limit on it, or the worker has not heard of it."""
        told = {use.key for use in renewal.uses}
        counted = {limit.unit for limit in self.limits if limit.key in told}
        free = {unit: amount for unit, amount in renewal.flying.items() if unit not in counted}
        for unit in renewal.need.keys() - {limit.unit for limit in self.limits}:
            free[unit] = free.get(unit, 0.0) + renewal.need[unit]
        return free

    def _serve(self, worker: Worker, renewal: Renewal, now: float) -> None:
        """All of `need` or nothing; then what is of use, as far as nobody is before it."""
        if worker.epoch != self.epoch:
            worker.finish, worker.epoch = 0.0, self.epoch
        worker.last, worker.unmet = {}, {}
        asked = [self._asked(limit, worker, renewal, now) for limit in self.limits]
        room = [ask.room for ask in asked]
        before = [0.0] * len(asked)
        if any(ask.want > 0 for ask in asked):
            before = self.roster.before(worker, self.limits, room, now)
        pays = all(total <= most for total, most in zip(before, room, strict=True))
        share = 0.0
        for ask, total in zip(asked, before, strict=True):
            if pays:
                ask.pay(worker, max(0.0, ask.need, min(ask.want, ask.left - total)), now)
                share = max(share, worker.last[ask.limit.key][0] / ask.limit.limit)
        if share > 0:
            self.invites = self.invites and now < self.pause_until
            self.virtual = max(self.virtual, worker.finish)
            worker.finish = self.virtual + share / worker.weight
            before = self.roster.about_before(worker, self.limits)
        turn = 0.0
        for ask, total in zip(asked, before, strict=True):
            turn = max(turn, ask.turn(worker, total, pays=pays, now=now))
        worker.retry_in = self._patience(worker, turn) if worker.unmet else 0.0
        if not worker.unmet and not len(self.roster.line):  # what was free is held against nobody
            self.virtual = 0.0
            self.epoch += 1

    def _asked(self, limit: SharedLimit, worker: Worker, renewal: Renewal, now: float) -> Ask:
        held = worker.leased.get(limit.key, 0.0)
        need = max(0.0, min(renewal.need.get(limit.unit, 0.0), limit.capacity) - held)
        due = max(0.0, renewal.due.get(limit.unit, 0.0) - held)
        want = max(0.0, renewal.want.get(limit.unit, 0.0) - held)
        rate = limit.limit / limit.window * worker.weight / (self.roster.weights + worker.weight)
        left = limit.available(limit.guard)
        if held + worker.flying.get(limit.key, 0.0) <= 0:
            left = max(left, limit.sure(need))
        if self.invites and now >= self.pause_until and limit.leased + limit.flying < 1.0:
            left = max(left, need)
        kept = self.absence.kept(limit, left, now)
        left -= kept
        quantum = max(need, left / (self.roster.busy + 1), rate * LEASE)
        want = min(max(need, due, want), quantum, limit.capacity)
        least = min(need, limit.capacity - limit.guard) * (1 - EPSILON)
        return Ask(
            limit, need, due, want, rate, kept + limit.guard, left, left - least if need > 0 else math.inf
        )

    def _patience(self, worker: Worker, turn: float) -> float:
        """Seconds until it asks again. Who is at the front is there when something comes back early."""
        if turn <= LEASE or self.roster.rank(worker) < FRONT:
            return min(turn, LEASE)
        return min(PATIENCE, max(LEASE, EARLY * turn))

    def _answer(self, worker: Worker, number: int, weights: float, now: float) -> Grant:
        fresh = number == worker.number
        limits = []
        for limit in self.limits:
            amount, due = worker.last.get(limit.key, (0.0, 0.0)) if fresh else (0.0, 0.0)
            limits.append(
                Granted(
                    limit.key, limit.unit, limit.limit, limit.window, limit.burst, limit.algorithms,
                    limit.evidence, amount, due, limit.available(),
                    limit.limit / limit.window * worker.weight / weights,
                    limit.taken - limit.leased - limit.flying, limit.refilled,
                )
            )  # fmt: skip
        hungry = len(self.roster.line) > bool(worker.unmet)
        expires_in = 0.0 if worker.dead else max(0.0, worker.ends_at - now)
        return Grant(
            worker.number, expires_in, worker.retry_in, hungry, self.roster.alive,
            max(0.0, self.pause_until - now), self.reason if self.pause_until > now else "", tuple(limits),
            tuple(self.learned), self.born,
        )  # fmt: skip


def _answered(renewal: Renewal, key: str) -> float:
    """What it spent that its header counts; it is taken as well."""
    return sum(max(0.0, use.spent - use.flying) for use in renewal.uses if use.key == key)


@dataclass(slots=True)
class Absence:
    """Workers that have been sending without a pool since `since`, and the `missing` ones of them, of which nothing is
    known until `ends_at`: who is not back by then is taken to be dead.
    """

    since: float = 0.0
    ends_at: float = 0.0
    workers: int = 1
    missing: int = 0

    def kept(self, limit: SharedLimit, left: float, now: float) -> float:
        """What those that are missing may have sent of what is `left`: each its part of what flowed in.

        One unit goes where none is under way: its header tells more.
        """
        if now >= self.ends_at or self.missing <= 0:
            return 0.0
        sent = self.missing / self.workers * limit.limit / limit.window * (now - self.since)
        one = 1.0 if limit.leased + limit.flying < 1.0 else 0.0
        return max(0.0, min(sent, left - one))


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker asks of one limit, of which something is `kept` back.

    `room`: what others may wait for before it, so that its need can be paid.
    """

    limit: SharedLimit
    need: float
    due: float
    want: float
    rate: float
    kept: float
    left: float
    room: float

    def pay(self, worker: Worker, amount: float, now: float) -> None:
        key, at_once = self.limit.key, min(amount, self.due)
        self.limit.take(amount, now, now)
        worker.leased[key] = worker.leased.get(key, 0.0) + amount - at_once
        worker.flying[key] = worker.flying.get(key, 0.0) + at_once  # no header counts it yet
        worker.last[key] = (amount, at_once)

    def turn(self, worker: Worker, before: float, *, pays: bool, now: float) -> float:
        """Seconds until more can be paid; 0 where nothing is missing."""
        limit = self.limit
        missing = self.due - worker.last.get(limit.key, (0.0, 0.0))[1]
        if missing <= EPSILON * limit.limit:
            return 0.0
        worker.unmet[limit.key] = min(missing, max(self.need, self.rate * LEASE))
        batch = min(missing, self.rate * BATCH)
        ready = limit.ready_at(before + (batch if pays else self.need) + self.kept, now) - now
        return max(batch / self.rate, ready)
