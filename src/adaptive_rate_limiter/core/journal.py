"""Calls that are noted first, and posted to the gauges of their ledger many at once.

Far below all limits nobody has to know what is left to the last token, and to tell every gauge of every step of every
call is most of what a call costs. What matters of a call that has ended meanwhile is only its sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.core.quota import Cost

MOST = 64  # calls in a journal
LONGEST = 0.05  # seconds from its first to its last: windows give back that much later what is posted in one


def is_full(journal: Sequence[Hold], now: float) -> bool:
    return len(journal) >= MOST or now - journal[0].at > LONGEST


def post(ledger: Ledger) -> None:
    """Have the gauges hear of all that is in the journal, never earlier than it happened."""
    holds, ledger.journal = ledger.journal, []
    ended = Ended(ledger)
    for hold in holds:
        if hold.end is not None:
            ledger.recent.append(hold)
            ended.add(hold, *hold.end)
            continue
        ended.enter()
        ledger.take(hold)
        if hold.replied_at is not None:
            ledger.arrived(hold, hold.replied_at)
    ended.enter()
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

    def add(self, hold: Hold, actual: Cost, told_at: float) -> None:
        hold.posted = True
        self.holds.append(hold)
        at, cost, reserved, used = hold.at, hold.cost, self.reserved, self.used
        for unit, amount in actual.items():
            held = cost.get(unit, 0.0)
            if amount > held:
                at = told_at
            reserved[unit] += held
            used[unit] += amount
        self.at = max(self.at, at)
        if hold.replied_at is not None and hold.replied_at > self.counted_at:
            self.counted_at = hold.replied_at

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
            hold.counted_at, hold.end = self.counted_at, None
