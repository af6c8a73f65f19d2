"""Calls that are only noted, where there is plenty of every limit, and posted to the ledger later, many at once.

Far below all limits nobody has to know what is left to the last token, and to tell every gauge of every step of every
call is most of what a call costs. What matters of a call that has ended meanwhile is only its sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.hold import SETTLED

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.core.queue import Call
    from adaptive_rate_limiter.core.quota import Cost

MOST = 64  # calls in a journal
LONGEST = 0.1  # seconds that one is open: windows give back that much later what is posted together


class Journal:
    """Open, it admits calls of which as many as it can hold will not use up what is to spare."""

    __slots__ = ("calls", "largest", "shut_until", "until")

    def __init__(self) -> None:
        # With the time of their admission, in that order, after all that the ledger knows.
        self.calls: list[tuple[Call, float]] = []
        self.largest: dict[str, float] = {}  # by unit, the most that one call may take
        self.until = -math.inf  # open until then
        self.shut_until = -math.inf  # too little was to spare: to ask again takes longer than is saved

    def open(self, spare: Cost, now: float) -> None:
        if min(spare.values(), default=0.0) <= 0:
            self.shut_until = now + LONGEST
            return
        self.largest = {unit: amount / MOST for unit, amount in spare.items()}
        self.until = now + LONGEST

    def close(self) -> list[tuple[Call, float]]:
        """Take out all that it has noted."""
        calls, self.calls, self.until = self.calls, [], -math.inf
        return calls

    def admit(self, call: Call, now: float) -> bool:
        """Note the call. False if it has to be asked for: the journal is not open, or the call is too large for it."""
        if now > self.until:
            return False
        cost = call.cost
        for unit, most in self.largest.items():
            if cost.get(unit, 0.0) > most:
                return False
        call.noted = True
        calls = self.calls
        calls.append((call, now))
        if len(calls) >= MOST:
            self.until = -math.inf
        return True


def post(bucket: Bucket, ledger: Ledger) -> None:
    """Have the ledger hear of all that is in the bucket's journal, never earlier than it happened."""
    ended = Ended(ledger)
    for call, at in bucket.journal.close():
        # First of all: what is told of the call from now on, by threads that take no lock, its hold is told.
        hold = call.hold = ledger.hold(call.cost, at)
        bucket.account.admit(at)
        if call.departed is not None:
            ledger.depart(hold, *call.departed)
        if call.end is not None:
            usage, told_at = call.end
            ended.add(hold, bucket.price(call, usage), told_at, call.replied_at)
            continue
        ended.enter()
        ledger.take(hold)
        bucket.concurrency.in_flight += 1
        if call.replied_at is not None:
            ledger.arrived(hold, call.replied_at)
    ended.post()


class Ended:
    """Calls that have ended in the journal: one large call that did all that they did, when the last of them was
    admitted, or when it was told that one had used more than it had reserved.
    """

    __slots__ = ("at", "counted_at", "entered", "holds", "ledger", "reserved", "used")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.holds: list[Hold] = []
        self.reserved: dict[str, float] = defaultdict(float)
        self.entered: dict[str, float] = {}  # of it, what the ledger has heard of
        self.used: dict[str, float] = defaultdict(float)
        self.at = self.counted_at = -math.inf

    def add(self, hold: Hold, actual: Cost, told_at: float, replied_at: float | None) -> None:
        hold.state, hold.answered = SETTLED, True
        self.holds.append(hold)
        self.ledger.recent.append(hold)
        at, cost, reserved, used = hold.at, hold.cost, self.reserved, self.used
        for unit, amount in actual.items():
            held = cost.get(unit, 0.0)
            if amount > held:
                at = told_at
            reserved[unit] += held
            used[unit] += amount
        self.at = max(self.at, at)
        if replied_at is not None and replied_at > self.counted_at:
            self.counted_at = replied_at

    def enter(self) -> None:
        """All so far were admitted before the next, and may not be in a header that answers it."""
        spent, entered = self.ledger.spent, self.entered
        for unit, amount in self.reserved.items():
            spent[unit] += amount - entered.get(unit, 0.0)
        for gauge in self.ledger.told:
            gauge.in_flight += self.reserved.get(gauge.unit, 0.0) - entered.get(gauge.unit, 0.0)
        self.entered = {**self.reserved}

    def post(self) -> None:
        if not self.holds:
            return
        self.enter()
        self.counted_at = max(self.counted_at, self.at)
        for gauge in self.ledger.gauges:
            amount = self.used.get(gauge.unit)
            if amount:
                gauge.take(amount, self.at)
                gauge.delay(amount, self.at, self.counted_at)
        for told in self.ledger.told:
            reserved = self.reserved.get(told.unit)
            if reserved:
                told.answered(reserved, self.holds[-1].seq, counted=True)
        for hold in self.holds:
            hold.counted_at = self.counted_at
