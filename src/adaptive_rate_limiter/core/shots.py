"""What a header shows: where the call that it answers stood among all that were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import Shot
from adaptive_rate_limiter.core.told import JITTER

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.core.told import ToldGauge
    from adaptive_rate_limiter.types import QuotaReading

OVERTAKING = 64  # sends, after one, that may have overtaken it


def shot_of(ledger: Ledger, gauge: ToldGauge, reading: QuotaReading, hold: Hold, now: float) -> Shot:
    """`reading`, which the reply to `hold` told of `gauge`, and what had happened by its send and since."""
    unit = gauge.unit
    if gauge.place < len(hold.marks):
        spent, ahead, returned, unread = hold.marks[gauge.place]
        since = ledger.spent[unit] - spent
    else:  # it was told for the first time when the call was under way
        since, ahead, returned, unread = ledger.reserved_after(hold, unit), 0.0, 0.0, 0.0
    return Shot(
        reading,
        hold.seq > gauge.newest,
        hold.sent_at,
        since,
        overtaking(ledger, hold, unit) if since else 0.0,
        ahead,
        gauge.returned(now) - returned,
        gauge.unread - unread,
        gauge.in_flight,
        now,
    )


def overtaking(ledger: Ledger, hold: Hold, unit: str) -> float:
    """What was sent just after `hold`, and may have been counted before it."""
    recent, total = ledger.recent, 0.0
    place = len(recent) - (ledger.seq - hold.seq)  # of the one after it
    if place > 0:
        until = hold.sent_at + JITTER
        for later in range(place, min(len(recent), place + OVERTAKING)):
            if recent[later].at > until:
                break
            total += recent[later].cost.get(unit, 0.0)
    return total
