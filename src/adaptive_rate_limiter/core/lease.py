"""One worker's part of a shared bucket: when and how to renew its lease, and what comes of it.

`core/pool.py` is the other side. Nothing here waits: `due_at` says when to renew, `prepare` what to send, and
`apply` or `fail` take what came of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from adaptive_rate_limiter.core.balance import funds
from adaptive_rate_limiter.core.contest import LETTERS
from adaptive_rate_limiter.core.due import SOONEST, STEADY, TINY, due_at, is_idle
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.inferred import INFERRED
from adaptive_rate_limiter.core.leased_gauge import HUGE, SPARE, Gate, LeaseGauge
from adaptive_rate_limiter.core.leased_ledger import LeasedLedger
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.pool import LEASE, LIVES
from adaptive_rate_limiter.core.quota import REQUESTS, Cost, Quota
from adaptive_rate_limiter.core.renewal import Grant, Granted, Lesson, Renewal
from adaptive_rate_limiter.core.told import ToldGauge

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.hold import Hold

OnOutage = Literal["degrade", "open", "closed"]

LOW = 0.3  # of a lease: what is left when the next is asked for
REPORTING = LIVES * LEASE  # seconds after an outage in which all others come back


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
        self.ledger = LeasedLedger(self)
        bucket.keep_in(self.ledger)
        self.ledger.gauges.extend(
            LeaseGauge(f"={gauge.unit}/{gauge.window:g}", gauge, self) for gauge in stated
        )
        self.gate: Gate | None = Gate(self, now)
        self.ledger.gauges.append(self.gate)
        self.began_at = now
        self.number = 0
        self.pending: Renewal | None = None  # sent, and not answered
        self.outage = False
        self.outage_at = now
        self.pool = 0.0  # the one that answered last
        self.untold = False  # what was sent without a pool
        self.failures = 0
        self.workers = 1
        self.workers_at = now
        self.hungry = False  # others wait
        self.asked_at = now
        self.answered_at = now
        self.expires_at = -math.inf
        self.retry_at = -math.inf  # to ask again for what was not there
        self.asked_for_line = False
        self.news_at = -math.inf  # told last what all waited for
        self.round_trip = SOONEST
        self.pause_told = -math.inf
        self.refusals_told = 0
        self.sent_told = 0.0
        self.limited_told = 0

    def gauges(self) -> list[LeaseGauge]:
        return [gauge for gauge in self.ledger.gauges if isinstance(gauge, LeaseGauge)]

    def shared(self, gauge: Gauge, hold: Hold) -> Gauge | None:
        """The gauge that takes the place of one that the header for `hold` told just now; None where there is one."""
        if not isinstance(gauge, ToldGauge):
            return gauge
        key = self._key(gauge)
        for other in self.gauges():
            if other.key == key:
                other.shape, other.source = gauge, gauge.source
                other.models, other.active = gauge.models, gauge.active
                return None
        made = LeaseGauge(key, gauge, self)
        # Sent and not in what the header told, and what is: the pool may have heard of the limit from others.
        made.spent = self.ledger.in_flight()[gauge.unit] + hold.cost.get(gauge.unit, 0.0)
        return made

    def _key(self, gauge: ToldGauge) -> str:
        key = gauge.unit + (f"@{gauge.scope}" if gauge.scope else "")
        alike = [told for told in self.ledger.told if (told.unit, told.scope) == (gauge.unit, gauge.scope)]
        return key if alike[0] is gauge else f"{key}/{gauge.window:g}"

    # When

    def due_at(self, now: float) -> float:
        """When to renew next; inf where nothing is to be said or asked."""
        return due_at(self, now)

    def blocked(self, now: float) -> bool:
        """Somebody waits for this lease and for nothing else."""
        bucket = self.bucket
        if not bucket.queue.count or now < bucket.pause.until or bucket.concurrency.full:
            return False
        short = self.ledger.shortage(self._head(now), now)
        return short is not None and isinstance(short[0], (LeaseGauge, Gate))

    def _head(self, now: float) -> Cost:
        """What the next call takes."""
        call = self.bucket.queue.next(partial(funds, self.ledger.gauges), now)
        return {} if call is None else call.cost

    # What

    def prepare(self, now: float) -> Renewal:
        """The renewal to send. One that was not answered is sent again as it was, but for how long that is."""
        if self.pending is not None:
            return replace(self.pending, away=self._away(now))
        self.untold = False
        bucket = self.bucket
        need: dict[str, float] = {}
        due: dict[str, float] = {}
        want: dict[str, float] = {}
        self.asked_for_line = self.blocked(now)
        if self.asked_for_line:
            need = _finite(self._head(now))
            due = _finite(bucket.queue.totals)
        gauges = self.gauges()
        if any(gauge.is_news for gauge in gauges):
            self.news_at = now
        pace = max((gauge.decayed(now) for gauge in gauges if gauge.unit == REQUESTS), default=STEADY)
        steady = pace >= STEADY and not is_idle(self)
        for gauge in gauges:
            if steady:
                want[gauge.unit] = max(want.get(gauge.unit, 0.0), gauge.decayed(now))
        # What is held and does not suffice helps others until the rest is there.
        late = self.ledger.take_late()
        uses = tuple(
            gauge.use(0.0 if self.asked_for_line else want.get(gauge.unit, 0.0), now, late, steady=steady)
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
            bucket.pause.reason if pause else "", refused, self._lessons(), *self._sends(), self.pool, self.workers,
        )  # fmt: skip
        return self.pending

    def _away(self, now: float) -> float:
        """For how long each of many goes on by itself."""
        alone = self.outage and self.on_outage == "degrade" and self.workers > 1
        return max(TINY, now - self.outage_at) if alone else 0.0

    @property
    def open(self) -> bool:
        """Nobody tells or states a limit."""
        return all(gauge.key == INFERRED for gauge in self.gauges())

    def _sends(self) -> tuple[float, int, dict[str, float]]:
        """What was sent and refused since the last renewal, and what is under way, where nobody tells a limit."""
        sent, self.sent_told = self.ledger.sent - self.sent_told, self.ledger.sent
        limited, self.limited_told = self.bucket.limited - self.limited_told, self.bucket.limited
        return (sent, limited, _finite(self.ledger.in_flight())) if self.open else (0.0, 0, {})

    def _lessons(self) -> tuple[Lesson, ...]:
        return tuple(
            Lesson(name, quantile.value, quantile.base, quantile.seen)
            for name, quantile in self.bucket.estimator.quantiles.items()
            if quantile.seen
        )

    # What came of it

    def apply(self, bucket: Bucket, grant: Grant, sent_at: float, now: float) -> None:
        """A renewal that was sent at `sent_at` was answered."""
        if self.pending is None or grant.number != self.pending.number:
            return
        told, self.pending, self.failures = self.pending.lessons, None, 0
        self.round_trip = max(SOONEST, now - sent_at)
        self.answered_at = now
        self.retry_at = now + max(SOONEST, grant.retry_in) if grant.retry_in else now
        self._learn(grant, told)
        self.hungry = grant.hungry
        self._end_outage(now)
        if (
            grant.workers >= self.workers or now > self.workers_at + REPORTING
        ):  # after an outage few are back at first
            self.workers, self.workers_at = max(1, grant.workers), now
            bucket.discovery.workers = self.workers
        self.expires_at = sent_at + grant.expires_in * (1 - SPARE)
        if grant.pool != self.pool != 0.0:
            self._tell_anew(now)
        self.pool = grant.pool
        gauges = {gauge.key: gauge for gauge in self.gauges()}
        alone = self.workers == 1 and bucket.discovery.found
        for granted in grant.limits:
            if granted.key == INFERRED and INFERRED not in gauges and (alone or not self.open):
                continue  # it has found out by itself, or is told
            gauge = gauges.pop(granted.key, None) or self._found(granted, now)
            gauge.granted(granted, now)
            steady = gauge.decayed(now)
            pace = 2 * self.round_trip / LEASE * steady
            gauge.low = max(pace, LOW * max(0.0, gauge.paid)) if steady >= STEADY else 0.0
        for gauge in gauges.values():
            gauge.known = None  # the pool has lost it: it is told again
        if grant.pause > 0:
            until = now + grant.pause
            if until > bucket.pause.until + SOONEST:
                bucket.pause.extend(until, grant.reason)
            self.pause_told = max(self.pause_told, bucket.pause.until)
        self._follow()
        bucket.wake_at = now

    def _tell_anew(self, now: float) -> None:
        """The pool that knew it all was lost."""
        self.untold = True
        for gauge in self.gauges():
            gauge.tell_anew(now)

    def _follow(self) -> None:
        """Who sends what it has leased has nothing to find out."""
        gauges = self.ledger.gauges
        if not self.open:
            gauges[:] = [
                gauge for gauge in gauges if not (isinstance(gauge, LeaseGauge) and gauge.key == INFERRED)
            ]
        bucket = self.bucket
        bucket.led = self.open and bool(gauges)
        if bucket.led or (gauges and not bucket.discovery.found):
            bucket.untold = False

    def _learn(self, grant: Grant, told: tuple[Lesson, ...]) -> None:
        """What others have learned of how much to reserve."""
        before = {lesson.name: lesson for lesson in told}
        quantiles = self.bucket.estimator.quantiles
        for learned in grant.learned:
            quantile, lesson = quantiles.get(learned.name), before.get(learned.name)
            if quantile is None:
                continue
            if lesson is not None:
                quantile.adopt(learned.value, learned.count, lesson.value, lesson.seen)
            else:
                quantile.adopt(learned.value, learned.count, quantile.base or quantile.value, 0)

    def _found(self, granted: Granted, now: float) -> LeaseGauge:
        algorithm = next(name for name, letter in LETTERS.items() if letter in granted.algorithms)
        shape = Gauge.stated(Quota(granted.unit, granted.limit, granted.window, algorithm), now)
        shape.source = "inferred" if granted.key == INFERRED else "shared"
        gauge = LeaseGauge(granted.key, shape, self)
        gauge.spent = self.ledger.in_flight()[gauge.unit]  # sent before the limit was known here
        self.ledger.gauges.append(gauge)
        return gauge

    def fail(self, bucket: Bucket, delay: float, now: float) -> None:
        """The backend could not be reached: try again after `delay` seconds, and go on as `on_outage` says.

        Who has never reached it does not know how many share the limits, and takes itself to be alone only after a while.
        """
        self.failures += 1
        self.retry_at = now + delay
        if self.on_outage != "degrade" or now >= self.began_at + REPORTING:
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
            self.outage, self.untold, self.workers_at = False, True, now
            lasted = now - self.outage_at
            self.bucket.tally.events.add("outage_over", "", now, on_outage=self.on_outage, seconds=lasted)
            for gauge in self.gauges():
                gauge.fallback = None

    def give_up(self, now: float) -> Renewal:
        """The last word: nothing is kept."""
        if self.pending is None:
            self.number += 1
            uses = tuple(gauge.use(0.0, now) for gauge in self.gauges())
            self.pending = Renewal(
                self.worker, self.number, uses=uses, weight=self.weight, lessons=self._lessons()
            )
        return self.pending

    def begin_anew(self, worker: str) -> None:
        """A forked child is another worker, which holds nothing and has spent nothing."""
        self.worker, self.number, self.pending = worker, 0, None
        self.expires_at = self.retry_at = -math.inf
        for gauge in self.gauges():
            gauge.paid = gauge.spent = gauge.pending_spent = gauge.debt = gauge.spending = 0.0
        for quantile in self.bucket.estimator.quantiles.values():  # the parent tells what it has learned
            quantile.base, quantile.adopted = quantile.value, quantile.count


def _finite(amounts: Cost) -> dict[str, float]:
    return {unit: min(amount, HUGE) for unit, amount in amounts.items() if amount > 0}
