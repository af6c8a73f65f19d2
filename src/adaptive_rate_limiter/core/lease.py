"""One worker's part of a shared bucket: gauges that pay from a lease, and when and how to renew it.

`core/pool.py` is the other side. Nothing here waits: `due_at` says when to renew, `prepare` what to send, and
`apply` or `fail` take what came of it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adaptive_rate_limiter.core.evidence import Shot, fit_of_reset
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.ledger import Hold, Ledger
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.pool import BATCH, LEASE, LIVES, Fact, Grant, Granted, Renewal, Use
from adaptive_rate_limiter.core.quota import REQUESTS, Cost, Quota
from adaptive_rate_limiter.core.share import CERTAIN
from adaptive_rate_limiter.core.told import MEMORY, WORST, ToldGauge

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.types import QuotaReading

OnOutage = Literal["degrade", "open", "closed"]

SPARE = 0.1  # of a lease's life: it ends here before it ends there, whatever the way took
STEADY = 3.0  # calls in a lease time: with fewer, each asks for itself
LOW = 0.3  # of a lease: what is left when the next is asked for
SOONEST = 0.002  # seconds from one renewal to the next at the least
DOUBTFUL = 0.1  # of a reading: one that speaks for no bucket
SURER = 2.0  # times the evidence that the pool has: worth telling, though it is for the same
REPORTING = LIVES * LEASE  # seconds after an outage in which all others come back, and tell what they spent
MARKS = 256  # grants remembered, for headers of requests that were sent after them
TINY, HUGE = 1e-6, 1e12  # amounts: below is rounding
LETTERS = {"token_bucket": "b", "fixed_window": "f", "sliding_window": "s"}


class LeaseGauge(Gauge):
    """One shared limit, as far as this worker holds a lease on it.

    `shape` follows what headers tell of it, or what was stated. Until the pool has heard of the limit, it pays.
    """

    __slots__ = (
        "debt", "fallback", "key", "known", "lease", "low", "marks", "most", "paid", "pending_spent", "reading", "shape", "spending",
        "spending_at", "spent", "there",
    )  # fmt: skip

    def __init__(self, key: str, shape: Gauge, lease: Lease) -> None:
        super().__init__(shape.unit, shape.limit, shape.window, shape.models, shape.source)
        self.key = key
        self.shape = shape
        self.lease = lease
        self.known: Granted | None = None
        self.most = shape.capacity
        self.paid = 0.0
        self.debt = 0.0  # of `paid`, when the pending renewal was made
        self.spent = 0.0  # since the last renewal that was answered
        self.pending_spent = 0.0  # told in the renewal that is under way
        self.spending = 0.0  # of late: with a steady pace, what a lease time takes
        self.spending_at = 0.0
        self.low = 0.0
        self.there = 0.0  # left in the pool
        self.fallback: BucketLevel | None = None  # while the backend cannot be reached
        self.marks: deque[tuple[float, float, float]] = deque(maxlen=MARKS)  # when, sent, refilled
        self.reading: tuple[int, float, float, float, float] | None = None  # seq, sent at, remaining, marks

    @property
    def capacity(self) -> float:
        return self.most

    @property
    def algorithm(self) -> str:
        return self.shape.algorithm

    def available(self, now: float) -> float:
        lease = self.lease
        left = self.paid if now < lease.expires_at else min(0.0, self.paid)
        if self.known is None and isinstance(self.shape, ToldGauge):
            left = self.shape.available(now)
        elif lease.outage and lease.on_outage == "open":
            left = math.inf
        elif self.fallback is not None:
            share = self.fallback.available(now)
            # A whole share pays for any call, and leaves debt.
            left = self.most if share >= self.fallback.burst * (1 - SPARE) else max(0.0, left) + share
        invitation = self.shape.invitation
        if invitation is not None and now >= invitation[0]:
            left = max(left, invitation[1])
        self.left = left
        return left

    def catch_up(self, last_sent_at: float, now: float) -> None:
        """What the provider promised to this worker holds for one call of it, whatever the pool has."""
        self.shape.catch_up(last_sent_at, now)

    def take(self, amount: float, now: float) -> None:
        self.shape.take(amount, now)
        self.spent += amount
        self.spending = self.decayed(now) + amount
        self.spending_at = now
        if self.fallback is not None:
            held = max(0.0, self.paid) if now < self.lease.expires_at else 0.0
            part = min(held, amount)
            self.paid -= part
            self.fallback.take(amount - part, now)
        else:
            self.paid -= amount

    def decayed(self, now: float) -> float:
        return self.spending * math.exp(min(0.0, self.spending_at - now) / LEASE)

    def give(self, amount: float, now: float, taken_at: float) -> None:
        self.shape.give(amount, now, taken_at)
        self._credit(amount)

    def repay(self, surplus: float, now: float, taken_at: float, *, counted: bool) -> None:
        told = isinstance(self.shape, ToldGauge)
        self.shape.repay(surplus, now, taken_at, counted=counted or told)
        self._credit(surplus)

    def _credit(self, amount: float) -> None:
        self.paid += amount
        self.spent -= amount

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:
        self.shape.delay(amount, taken_at, counted_at)

    def ready_at(self, amount: float, now: float) -> float:
        """An estimate: the grant that brings it wakes whoever waits."""
        missing = min(amount, self.most) - self.available(now)
        if missing <= 0:
            return now
        if self.fallback is not None:
            return self.fallback.ready_at(min(amount, self.fallback.burst), now)
        lease = self.lease
        if lease.pending is not None:  # as long again as it has taken so far
            return now + max(lease.round_trip, now - lease.asked_at)
        ready = max(now, lease.retry_at) + lease.round_trip
        if self.known is not None and missing > self.there and self.algorithm == "token_bucket":
            ready = max(ready, lease.answered_at + (missing - self.there) / self.rate)
        invitation = self.shape.invitation
        return ready if invitation is None or amount > invitation[1] else max(now, min(ready, invitation[0]))

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """The provider says that nothing is left: so it is for all."""
        self.shape.refused(amount, retry_after, now)
        self.paid = min(0.0, self.paid)
        if self.marks:
            self.reading = (self.lease.ledger.seq, now, 0.0, *self.marks[-1][1:])

    # To and from the pool

    def note(self, reading: QuotaReading, hold: Hold) -> None:
        """A header told what remains: the pool is to hear of it, with what was known when the request was sent."""
        if reading.remaining is None or (self.reading is not None and self.reading[0] > hold.seq):
            return
        place = bisect_right(self.marks, hold.at, key=lambda mark: mark[0])
        if place:
            self.reading = (hold.seq, hold.sent_at, reading.remaining, *self.marks[place - 1][1:])
        elif self.known is None:
            self.reading = (hold.seq, hold.sent_at, reading.remaining, -HUGE, 0.0)

    def use(self, keep: float, now: float) -> Use:
        """What is told of it: everything that was spent, and at most `keep` of what is left is kept."""
        if now >= self.lease.expires_at and self.fallback is None:
            self.paid = min(0.0, self.paid)
        self.debt = min(0.0, self.paid)
        self.paid = min(self.paid, max(0.0, keep))
        self.pending_spent = self.spent
        flying = max(0.0, self.lease.ledger.unanswered.get(self.unit, 0.0))
        return Use(self.key, self.spent, max(0.0, self.paid), flying, self.decayed(now))

    def fact(self, now: float) -> Fact | None:
        """What the pool does not know, or knows otherwise; None if there is nothing."""
        shape, known, evidence = self.shape, self.known, self.evidence()
        burst = shape.bucket.burst if isinstance(shape, ToldGauge) else shape.capacity
        if known is not None and not evidence:
            return None
        differs = known is None or (
            evidence >= known.evidence
            and (
                (known.limit, known.window, known.algorithms) != (shape.limit, shape.window, self.letters())
                or evidence >= SURER * known.evidence
            )
        )
        if not differs and self.reading is None:
            return None
        remaining, sent, refilled, age = -1.0, 0.0, 0.0, 0.0
        if self.reading is not None:
            _, sent_at, remaining, sent, refilled = self.reading
            age = max(0.0, now - sent_at)
            self.reading = None
        ends_in = 0.0
        if isinstance(shape, ToldGauge) and shape.window_end is not None:
            ends_in = max(0.0, shape.window_end[1] - now)
        return Fact(
            self.key, self.unit, shape.limit, shape.window, burst, self.letters(), evidence, remaining, sent,
            refilled, age, ends_in,
        )  # fmt: skip

    def evidence(self) -> float:
        """How much is known of the limit here; nothing, where it was learned from the pool.

        A reset that fits a bucket fits by chance hardly ever. All that fits no bucket looks like a window.
        """
        shape = self.shape
        if isinstance(shape, ToldGauge):
            return shape.readings * (1.0 if shape.active == (shape.bucket,) else DOUBTFUL)
        return CERTAIN if shape.source == "stated" else 0.0

    def letters(self) -> str:
        """The plausible ways of counting."""
        shape = self.shape
        if not isinstance(shape, ToldGauge):
            return LETTERS[shape.algorithm]
        return "".join(
            letter
            for letter, level in zip("bfs", shape.models, strict=True)
            if any(level is other for other in shape.active)
        )

    def _adopt(self, grant: Granted, now: float) -> None:
        """Somebody else knows more of this limit."""
        shape = self.shape
        if not isinstance(shape, ToldGauge) or grant.evidence <= self.evidence():
            return
        if (grant.limit, grant.window, grant.algorithms) == (shape.limit, shape.window, self.letters()):
            return
        for level in shape.models:
            level.resize(grant.limit, grant.window, now)
        shape.guessed = shape.guessed and grant.window == shape.window
        shape.limit, shape.window, shape.vote = grant.limit, grant.window, None
        shape.follow(shape.models)
        shape.scores = [0.0 if letter in grant.algorithms else WORST for letter in "bfs"]
        shape.active = tuple(
            level for letter, level in zip("bfs", shape.models, strict=True) if letter in grant.algorithms
        )

    def granted(self, grant: Granted, now: float) -> None:
        self.known = grant
        self._adopt(grant, now)
        self.limit, self.window = grant.limit, grant.window
        self.most = grant.burst if "b" in grant.algorithms else grant.limit
        self.spent -= self.pending_spent + grant.due
        self.pending_spent = 0.0
        self.paid += grant.amount - self.debt
        self.debt = 0.0
        self.there = grant.left
        self.marks.append((now, grant.sent, grant.refilled))
        self.models, self.active, self.source = self.shape.models, self.shape.active, self.shape.source


class Gate(Gauge):
    """Holds everybody until the pool has been heard for the first time: it may know the limits."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease, now: float) -> None:
        super().__init__(REQUESTS, 1.0, LEASE, (BucketLevel(1.0, LEASE, now),), "shared")
        self.lease = lease

    @property
    def capacity(self) -> float:
        return math.inf

    def available(self, now: float) -> float:  # noqa: ARG002 - one shape
        return 0.0

    def ready_at(self, amount: float, now: float) -> float:  # noqa: ARG002 - one shape
        return now + max(self.lease.round_trip, now - self.lease.asked_at)


class LeasedLedger(Ledger):
    """A ledger whose limits are shared: what headers tell goes to the pool, which alone lets calls go."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease) -> None:
        super().__init__()
        self.lease = lease

    def read(self, readings: tuple[QuotaReading, ...], hold: Hold, now: float) -> bool:
        judged = [(told, told.scores, told.active, told.jumps, told.followed) for told in self.told]
        at_ease = super().read(readings, hold, now)
        if any(isinstance(gauge, ToldGauge) for gauge in self.gauges):
            self.gauges[:] = [gauge for gauge in map(self.lease.shared, self.gauges) if gauge is not None]
        for told in self.told:
            if told not in hold.told:
                continue
            reading = next((reading for reading in readings if told.tells(reading)), None)
            if reading is not None and self.lease.workers > 1:
                for same, scores, active, jumps, followed in judged:
                    if same is told:
                        told.scores, told.active, told.jumps = scores, active, jumps
                        told.follow(followed)
                _weigh_reset(told, reading, hold, now)
            for gauge in self.gauges:
                if reading is not None and isinstance(gauge, LeaseGauge) and gauge.shape is told:
                    gauge.note(reading, hold)
        return at_ease


def _weigh_reset(told: ToldGauge, reading: QuotaReading, hold: Hold, now: float) -> None:
    """Judge ways of counting by the reset alone: what remains depends on the others, who are many.

    The oldest use of a sliding window may be theirs, so it is never less likely than a fixed one.
    """
    if reading.reset_after is None:
        return
    shot = Shot(
        reading,
        newest=True,
        sent_at=hold.sent_at,
        since=0.0,
        overtaking=0.0,
        returned=0.0,
        in_doubt=0.0,
        now=now,
    )
    bucket, fixed, sliding = fit_of_reset(told, shot, reading.reset_after)
    marks = (bucket, fixed, max(fixed, sliding))
    top = max(marks)
    if top > min(marks):
        told.scores = [
            max(WORST, MEMORY * score + mark - top) for score, mark in zip(told.scores, marks, strict=True)
        ]
        told._choose()  # noqa: SLF001 - the gauge's own rule of what is plausible


@dataclass(frozen=True, slots=True)
class Terms:
    """Who a worker is, its weight among others, and what it does when the backend cannot be reached."""

    worker: str
    weight: float = 1.0
    on_outage: OnOutage = "degrade"


class Lease:
    """What one worker holds of one bucket."""

    def __init__(self, bucket: Bucket, terms: Terms, now: float) -> None:
        self.worker, self.weight, self.on_outage = terms.worker, terms.weight, terms.on_outage
        self.bucket = bucket
        stated = bucket.ledger.gauges
        self.ledger = bucket.ledger = LeasedLedger(self)
        self.ledger.gauges += [LeaseGauge(f"={gauge.unit}/{gauge.window:g}", gauge, self) for gauge in stated]
        self.gate: Gate | None = Gate(self, now)
        self.ledger.gauges.append(self.gate)
        self.number = 0
        self.pending: Renewal | None = None  # sent, and not answered
        self.outage = False
        self.outage_at = now
        self.careful_until = -math.inf  # after an outage: until then on as in it, since the pool has not heard of all
        self.failures = 0
        self.workers = 1
        self.workers_at = now
        self.hungry = False  # others wait
        self.asked_at = now
        self.answered_at = now
        self.expires_at = -math.inf
        self.retry_at = -math.inf  # to ask again for what was not there
        self.asked_for_line = False
        self.round_trip = SOONEST
        self.pause_told = -math.inf
        self.refusals_told = 0

    def gauges(self) -> list[LeaseGauge]:
        return [gauge for gauge in self.ledger.gauges if isinstance(gauge, LeaseGauge)]

    def shared(self, gauge: Gauge) -> Gauge | None:
        """The gauge that takes the place of one that a header told just now; None where there is one."""
        if not isinstance(gauge, ToldGauge):
            return gauge
        key = self._key(gauge)
        for other in self.gauges():
            if other.key == key:
                other.shape, other.source = gauge, gauge.source
                other.models, other.active = gauge.models, gauge.active
                return None
        made = LeaseGauge(key, gauge, self)
        made.spent = self.ledger.unanswered.get(gauge.unit, 0.0)  # sent, and not in what the header told
        return made

    def _key(self, gauge: ToldGauge) -> str:
        key = gauge.unit + (f"@{gauge.scope}" if gauge.scope else "")
        alike = [told for told in self.ledger.told if (told.unit, told.scope) == (gauge.unit, gauge.scope)]
        return key if alike[0] is gauge else f"{key}/{gauge.window:g}"

    # When

    def due_at(self, now: float) -> float:
        """When to renew next; inf where nothing is to be said or asked."""
        if self.pending is not None:
            return self.retry_at if self.failures else math.inf
        if self.gate is not None:
            return now
        if self.bucket.pause.until > max(now, self.pause_told + SOONEST):
            return now
        soonest, active = math.inf, False
        for gauge in self.gauges():
            if gauge.known is None:
                return now
            if gauge.low > 0 and gauge.paid < gauge.low:
                soonest = min(soonest, self.answered_at + BATCH)
            # What comes back, and what headers told, goes with the next question, unless somebody waits for it.
            unheard = gauge.spent < -TINY or gauge.paid > TINY or gauge.reading is not None
            active = active or gauge.spent > TINY or (unheard and self.hungry)
        if self._blocked(now):
            soonest = min(soonest, max(self.careful_until, self.retry_at if self.asked_for_line else now))
        if active:
            soonest = min(soonest, self.asked_at + LEASE)
        return soonest

    def _blocked(self, now: float) -> bool:
        """Somebody waits for this lease and for nothing else."""
        bucket = self.bucket
        if not bucket.queue.count or now < bucket.pause.until or bucket.concurrency.full:
            return False
        short = self.ledger.shortage(self._head(now), now)
        return short is not None and isinstance(short[0], (LeaseGauge, Gate))

    def _head(self, now: float) -> Cost:
        """What the next call takes."""
        call = self.bucket.queue.next(self.bucket._funds, now)  # noqa: SLF001 - the bucket's own rule of who is next
        return {} if call is None else call.cost

    # What

    def prepare(self, now: float) -> Renewal:
        """The renewal to send. One that was not answered is sent again as it was."""
        if self.pending is not None:
            return self.pending
        bucket = self.bucket
        need: dict[str, float] = {}
        due: dict[str, float] = {}
        want: dict[str, float] = {}
        careful = now < self.careful_until
        self.asked_for_line = not careful and self._blocked(now)
        if self.asked_for_line:
            need = _finite(self._head(now))
            due = _finite(bucket.queue.totals)
        gauges = self.gauges()
        steady = max((gauge.decayed(now) for gauge in gauges if gauge.unit == REQUESTS), default=STEADY)
        for gauge in gauges:
            if steady >= STEADY and not careful:
                want[gauge.unit] = max(want.get(gauge.unit, 0.0), gauge.decayed(now))
        uses = tuple(
            gauge.use(
                max(need.get(gauge.unit, 0.0), due.get(gauge.unit, 0.0), want.get(gauge.unit, 0.0)), now
            )
            for gauge in gauges
        )
        facts = tuple(fact for fact in (gauge.fact(now) for gauge in gauges) if fact is not None)
        self.number += 1
        self.asked_at = now
        self.pause_told = max(self.pause_told, bucket.pause.until)
        pause = max(0.0, bucket.pause.until - now)
        refused, self.refusals_told = bucket.tally.refused - self.refusals_told, bucket.tally.refused
        self.pending = Renewal(
            self.worker, self.number, need, due, want, uses, facts, self.weight, min(pause, HUGE),
            bucket.pause.reason if pause else "", refused,
        )  # fmt: skip
        return self.pending

    # What came of it

    def apply(self, bucket: Bucket, grant: Grant, sent_at: float, now: float) -> None:
        """A renewal that was sent at `sent_at` was answered."""
        if self.pending is None or grant.number != self.pending.number:
            return
        self.pending, self.failures = None, 0
        self.round_trip = max(SOONEST, now - sent_at)
        self.answered_at = now
        self.retry_at = now + max(SOONEST, grant.retry_in) if grant.retry_in else now
        self.hungry = grant.hungry
        if grant.workers >= self.workers or now > self.workers_at + REPORTING:  # after an outage few are back at first
            self.workers, self.workers_at = max(1, grant.workers), now
        self._end_outage(now)
        careful = now < self.careful_until
        self.expires_at = -math.inf if careful else sent_at + grant.expires_in * (1 - SPARE)
        gauges = {gauge.key: gauge for gauge in self.gauges()}
        for granted in grant.limits:
            gauge = gauges.pop(granted.key, None) or self._learned(granted, now)
            gauge.granted(granted, now)
            steady = gauge.decayed(now)
            pace = 2 * self.round_trip / LEASE * steady
            gauge.low = max(pace, LOW * max(0.0, gauge.paid)) if steady >= STEADY and not careful else 0.0
            if not careful:
                gauge.fallback = None
        for gauge in gauges.values():
            gauge.known = None  # the pool has lost it: it is told again
        if grant.pause > 0:
            until = now + grant.pause
            if until > bucket.pause.until + SOONEST:
                bucket.pause.extend(until, grant.reason)
            self.pause_told = max(self.pause_told, bucket.pause.until)
        if self.ledger.gauges and not bucket.discovery.found:
            bucket.untold = False
        bucket.wake_at = now

    def _learned(self, granted: Granted, now: float) -> LeaseGauge:
        algorithm = next(name for name, letter in LETTERS.items() if letter in granted.algorithms)
        shape = Gauge.stated(Quota(granted.unit, granted.limit, granted.window, algorithm), now)
        shape.source = "shared"
        gauge = LeaseGauge(granted.key, shape, self)
        gauge.spent = self.ledger.unanswered.get(gauge.unit, 0.0)  # sent before the limit was known here
        self.ledger.gauges.append(gauge)
        return gauge

    def fail(self, bucket: Bucket, delay: float, now: float) -> None:
        """The backend could not be reached: try again after `delay` seconds, and go on as `on_outage` says."""
        self.failures += 1
        self.retry_at = now + delay
        self._open_gate()
        if not self.outage:
            self.outage, self.outage_at = True, now
            bucket.tally.events.add("outage", "", now, on_outage=self.on_outage, workers=float(self.workers))
            for gauge in self.gauges():
                share = gauge.limit / self.workers
                gauge.fallback = BucketLevel(share, gauge.window, now)
                gauge.fallback.value = 0.0
        bucket.wake_at = now

    def _open_gate(self) -> None:
        if self.gate is not None:
            self.ledger.gauges.remove(self.gate)
            self.gate = None

    def _end_outage(self, now: float) -> None:
        self._open_gate()
        if self.outage:
            self.outage = False
            lasted = now - self.outage_at
            self.bucket.tally.events.add("outage_over", "", now, on_outage=self.on_outage, seconds=lasted)
            if self.on_outage == "degrade" and self.workers > 1:
                self.careful_until = now + REPORTING

    def give_up(self, now: float) -> Renewal:
        """The last word: nothing is kept."""
        if self.pending is None:
            self.number += 1
            uses = tuple(gauge.use(0.0, now) for gauge in self.gauges())
            self.pending = Renewal(self.worker, self.number, uses=uses, weight=self.weight)
        return self.pending

    def begin_anew(self, worker: str) -> None:
        """A forked child is another worker, which holds nothing and has spent nothing."""
        self.worker, self.number, self.pending = worker, 0, None
        self.expires_at = self.retry_at = -math.inf
        for gauge in self.gauges():
            gauge.paid = gauge.spent = gauge.pending_spent = gauge.debt = gauge.spending = 0.0


def _finite(amounts: Cost) -> dict[str, float]:
    return {unit: min(amount, HUGE) for unit, amount in amounts.items() if amount > 0}
