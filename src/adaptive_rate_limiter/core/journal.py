"""Calls that are noted first, and posted to the gauges of their ledger many at once.

Far below all limits nobody has to know what is left to the last token, and to tell every gauge of every step of every
call is most of what a call costs. What matters of a call that has ended meanwhile is only its sum.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.hold import RESERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.ledger import Ledger

MOST = 64  # calls in a journal
LONGEST = 0.05  # seconds from its first to its last: windows give back that much later what is posted in one


def is_full(journal: Sequence[Hold]) -> bool:
    return len(journal) >= MOST or journal[-1].at - journal[0].at > LONGEST


def post(ledger: Ledger) -> None:
    """Have the gauges hear of all that is in the journal, never earlier than it happened."""
    holds, ledger.journal = ledger.journal, []
    ended: list[Hold] = []
    for hold in holds:
        ledger.enter(hold)
        if hold.end is None:
            ledger.take(hold)
            if hold.replied_at is not None:
                ledger.arrived(hold, hold.replied_at)
        elif _overran(hold):
            _replay(ledger, hold)
        else:
            for gauge in ledger.told:
                gauge.in_flight += hold.cost.get(gauge.unit, 0.0)
            ended.append(hold)
    if ended:
        _post_ended(ledger, ended)


def _overran(hold: Hold) -> bool:
    """It used more than it had reserved, which is charged when it is told."""
    assert hold.end is not None
    used, _ = hold.end
    return any(amount > hold.cost.get(unit, 0.0) for unit, amount in used.items())


def _replay(ledger: Ledger, hold: Hold) -> None:
    assert hold.end is not None
    used, at = hold.end
    hold.state, hold.answered, hold.end = RESERVED, False, None
    ledger.take(hold)
    if hold.replied_at is not None:
        ledger.arrived(hold, hold.replied_at)
    ledger.settle(hold, used, at)


def _post_ended(ledger: Ledger, ended: list[Hold]) -> None:
    """As if one large call had done all that they did, when the last of them was admitted."""
    at = counted_by = ended[-1].at
    used: dict[str, float] = defaultdict(float)
    reserved: dict[str, float] = defaultdict(float)
    for hold in ended:
        if hold.replied_at is not None and hold.replied_at > counted_by:
            counted_by = hold.replied_at
        for unit, amount in hold.cost.items():
            reserved[unit] += amount
            used[unit] += hold.end[0].get(unit, amount)  # type: ignore[index]  # they have ended
    for gauge in ledger.gauges:
        amount = used[gauge.unit]
        if amount:
            gauge.take(amount, at)
            gauge.delay(amount, at, counted_by)
    for told in ledger.told:
        if reserved[told.unit]:
            told.answered(reserved[told.unit], ended[-1].seq, counted=True)
    for hold in ended:
        hold.counted_at, hold.end = counted_by, None
