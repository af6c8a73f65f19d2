"""A limit that workers share, as one of them sees it: a gauge that pays from a lease."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.contest import LETTERS, Contest
from adaptive_rate_limiter.core.evidence import grain_of
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.pool import LEASE, Fact, Granted, Use
from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.core.renewal import NO_HEADER
from adaptive_rate_limiter.core.share import CERTAIN, on_the_way
from adaptive_rate_limiter.core.told import ToldGauge
from adaptive_rate_limiter.core.votes import WindowVote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.lease import Lease
    from adaptive_rate_limiter.types import QuotaReading

SPARE = 0.1  # of a lease's life: it ends here before it ends there, whatever the way took
DOUBTFUL = 0.1  # of a reading: one that speaks for no bucket
SURER = 2.0  # times the evidence that the pool has: worth telling, though it is for the same
MARKS = 256  # grants remembered, for headers of requests that were sent after them
HUGE = 1e12  # more than any amount
SLACK = 0.5  # of the time that the pool reckons with; the rest is the way to the provider


def slack(window: float) -> float:
    """Seconds from an admission to its send: what takes longer is told, since the window would give it back too early."""
    return SLACK * on_the_way(window)


class LeaseGauge(Gauge):
    """One shared limit, as far as this worker holds a lease on it.

    `shape` follows what headers tell of it, or what was stated. Until the pool has heard of the limit, nobody goes:
    others may hold all that a header told.
    """

    __slots__ = (
        "debt", "fallback", "flying", "key", "known", "lease", "low", "marks", "most", "paid", "pending_spent", "reading", "shape", "spending",
        "spending_at", "spent", "taught", "there",
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
        self.flying = 0.0  # sent and not answered, as the pool was told
        self.pending_spent = 0.0  # told in the renewal that is under way
        self.spending = 0.0  # of late: with a steady pace, what a lease time takes
        self.spending_at = 0.0
        self.low = 0.0
        self.there = 0.0  # left in the pool
        self.taught = 0  # readings that the shape had when the pool last knew better
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
        told = self.shape if isinstance(self.shape, ToldGauge) else None
        left = self.paid if now < lease.expires_at else min(0.0, self.paid)
        if lease.outage and lease.on_outage == "open":
            left = math.inf
        elif self.fallback is not None:
            share = self.fallback.available(now)
            # A whole share pays for any call, and leaves debt.
            left = self.most if share >= self.fallback.burst * (1 - SPARE) else max(0.0, left) + share
            if told is not None:
                left = min(left, self._part(told.available(now)))
        elif lease.outage and told is not None:  # found since it began
            left = self._part(told.available(now))
        invitation = self._invitation
        if invitation is not None and now >= invitation[0]:
            left = max(left, invitation[1])
        self.left = left
        return left

    @property
    def _invitation(self) -> tuple[float, float] | None:
        """When the provider said to come again: one that is alone does. Of many the pool sends one."""
        return self.shape.invitation if self.lease.workers == 1 else None

    def _part(self, told: float) -> float:
        """What each of those that are out of reach may take of what a header told; a whole limit pays for any call."""
        return told if told >= self.most * (1 - SPARE) else told / self.lease.workers

    def catch_up(self, last_sent_at: float, now: float) -> None:
        """What the provider promised to this worker holds for one call of it, unless others were promised the same."""
        if self.lease.workers == 1:
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
            ready = self.fallback.ready_at(min(amount, self.fallback.burst), now)
            if isinstance(self.shape, ToldGauge):
                whole = min(amount * self.lease.workers, self.shape.capacity)
                ready = max(ready, self.shape.ready_at(whole, now))
            return ready
        lease = self.lease
        if lease.pending is not None:  # as long again as it has taken so far
            return now + max(lease.round_trip, now - lease.asked_at)
        ready = max(now, lease.retry_at) + lease.round_trip
        if self.known is not None and missing > self.there and self.algorithm == "token_bucket":
            ready = max(ready, lease.answered_at + (missing - self.there) / self.rate)
        invitation = self._invitation
        return ready if invitation is None or amount > invitation[1] else max(now, min(ready, invitation[0]))

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """The provider says that nothing is left: so it is for all."""
        self.shape.refused(amount, retry_after, now)
        self.paid = min(0.0, self.paid)
        if self.marks:
            self.reading = (self.lease.ledger.seq, now, 0.0, *self.marks[-1][1:])

    # To and from the pool

    @property
    def is_news(self) -> bool:
        """A header told of more than a lease time's share that the pool did not have: all may be waiting for it."""
        return self.reading is not None and self.reading[2] - self.there > self.rate * LEASE

    def note(self, reading: QuotaReading, hold: Hold) -> None:
        """A header told what remains: the pool is to hear of it, with what was known when the request was sent."""
        if reading.remaining is None or (self.reading is not None and self.reading[0] > hold.seq):
            return
        place = bisect_right(self.marks, hold.at, key=lambda mark: mark[0])
        sent, refilled = -HUGE if self.known is None else 0.0, 0.0  # before the first grant
        if place:
            _, sent, refilled = self.marks[place - 1]
        self.reading = (hold.seq, hold.sent_at, reading.remaining, sent - grain_of(reading), refilled)

    def use(self, keep: float, now: float, late: Sequence[Hold] = (), *, steady: bool = False) -> Use:
        """What is told of it: everything that was spent, and at most `keep` of what is left is kept.

        Only who is `steady` has a pace, for which others leave a part: who has come to rest has none. `late`: what was
        sent some time after its admission.
        """
        if now >= self.lease.expires_at and self.fallback is None:
            self.paid = min(0.0, self.paid)
        self.debt = min(0.0, self.paid)
        self.paid = min(self.paid, max(0.0, keep))
        self.pending_spent = self.spent
        self.flying = self.lease.ledger.in_flight()[self.unit]
        pace = self.decayed(now) if steady else 0.0
        return Use(self.key, self.spent, max(0.0, self.paid), self.flying, pace, *self._late(late, now))

    def _late(self, sent: Sequence[Hold], now: float) -> tuple[float, float, float]:
        """How much of this went later than the pool reckons with, when it was admitted, and when it was sent."""
        most = slack(self.window)
        late = [hold for hold in sent if self.unit in hold.cost and hold.sent_at - hold.at > most]
        if not late:
            return 0.0, 0.0, 0.0
        return (
            sum(hold.cost[self.unit] for hold in late),
            max(0.0, now - min(hold.at for hold in late)),
            max(0.0, now - max(hold.sent_at for hold in late)),
        )

    def fact(self, now: float) -> Fact | None:
        """What the pool does not know, or knows otherwise; None if there is nothing."""
        shape, known, evidence = self.shape, self.known, self.evidence()
        burst = shape.bucket.burst if isinstance(shape, ToldGauge) else shape.capacity
        if known is not None and not evidence and self.reading is None:
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
            ends_in = shape.window_end[1] - now
        return Fact(
            self.key, self.unit, shape.limit, shape.window, burst, self.letters(), evidence, remaining, sent,
            refilled, age, ends_in,
        )  # fmt: skip

    def tell_anew(self, now: float) -> None:
        """The pool is another, which was told nothing: it is to hear what is left at the most, as far as is known here.

        What was spent comes on top, since it is told as well: of a stated limit, all that was spent here.
        """
        shape, self.reading = self.shape, None
        if isinstance(shape, ToldGauge):
            most = max(0.0, self._remembered(shape, now)) + max(0.0, self.spent)
            self.reading = (self.lease.ledger.seq, now, most, NO_HEADER, 0.0)
        elif shape.source == "stated":
            self.spent = max(self.spent, shape.capacity - shape.available(now))
        self.marks.clear()

    def _remembered(self, shape: ToldGauge, now: float) -> float:
        """What headers told; or what the lost pool had and what has flown in since, if that is less.

        At the turn of a window all came back, whatever it had. Of a bucket one unit goes in any case: its header tells
        more.
        """
        left = min(level.available(now) for level in shape.active)
        if not self.marks or shape.fixed.turned_at >= self.marks[-1][0]:
            return left
        there = self.there
        if shape.bucket in shape.active:
            there = max(1.0, there + self.rate * (now - self.marks[-1][0]))
        return min(left, there + max(0.0, self.paid))

    def evidence(self) -> float:
        """How much is known of the limit here; nothing, where it was learned from the pool.

        Two resets that fit a bucket fit by chance hardly ever. All that fits no bucket looks like a window.
        """
        shape = self.shape
        if isinstance(shape, ToldGauge):
            own = shape.readings - self.taught
            return own if own > 1 and shape.active == (shape.bucket,) else DOUBTFUL * own
        return CERTAIN if shape.source == "stated" else 0.0

    def letters(self) -> str:
        """The plausible ways of counting."""
        shape = self.shape
        if not isinstance(shape, ToldGauge):
            return LETTERS[shape.algorithm]
        return "".join(
            letter
            for letter, level in zip(LETTERS.values(), shape.models, strict=True)
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
        shape.window_vote = WindowVote(guessed=shape.guessed and grant.window == shape.window)
        shape.limit, shape.window = grant.limit, grant.window
        self.taught = shape.readings
        shape.follow(shape.models)
        shape.contest = Contest.decided(grant.algorithms)
        shape.active = tuple(
            level
            for letter, level in zip(LETTERS.values(), shape.models, strict=True)
            if letter in grant.algorithms
        )

    def granted(self, grant: Granted, now: float) -> None:
        self.known = grant
        self._adopt(grant, now)
        self.limit, self.window = grant.limit, grant.window
        self.most = grant.burst if "b" in grant.algorithms else grant.limit
        self.spent -= self.pending_spent + grant.due
        self.flying += grant.due
        self.pending_spent = 0.0
        self.paid += grant.amount - self.debt
        self.debt = 0.0
        self.there = self.shape.left = grant.left
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
