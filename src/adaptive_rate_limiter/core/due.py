"""When a lease is to be renewed: at once where somebody waits for that, else as seldom as others can bear."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.pool import BATCH, LEASE
from adaptive_rate_limiter.core.quota import REQUESTS

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.lease import Lease
    from adaptive_rate_limiter.core.leased_gauge import LeaseGauge

STEADY = 3.0  # calls in a lease time: with fewer, each asks for itself
REST = 5.0  # calls that could have come, and did not: who had a pace has come to rest
SHORT = 0.2  # of the limit: with less in the pool, what is leased and not spent goes back
SOONEST = 0.002  # seconds from one renewal to the next at the least
TINY = 1e-6  # amounts: below is rounding


def due_at(lease: Lease, now: float) -> float:
    """When to renew next; inf where nothing is to be said or asked."""
    if lease.pending is not None:
        return lease.retry_at if lease.failures else math.inf
    if lease.gate is not None or lease.untold:
        return now
    if lease.bucket.pause.until > max(now, lease.pause_told + SOONEST):
        return now
    waits = lease.asked_for_line and now < lease.retry_at  # and comes again soon
    idle, soonest = is_idle(lease), math.inf
    if lease.ledger.late:
        soonest = lease.asked_at + LEASE
    for gauge in lease.gauges():
        if gauge.known is None:
            return now
        soonest = min(soonest, _asks_at(lease, gauge, waits=waits, idle=idle))
        if _has_to_tell(lease, gauge, waits=waits):
            soonest = min(soonest, lease.asked_at + LEASE)
    if lease.blocked(now):
        soonest = min(soonest, lease.retry_at if lease.asked_for_line else now)
    return min(soonest, _finds_out_at(lease)) if lease.open else soonest


def is_idle(lease: Lease) -> bool:
    """Nobody waits, and nothing is in flight."""
    return not lease.bucket.queue.count and not lease.ledger.unanswered


def _asks_at(lease: Lease, gauge: LeaseGauge, *, waits: bool, idle: bool) -> float:
    """When more of one limit is asked for, or what others wait for is told."""
    if waits:
        return lease.news_at + BATCH if gauge.is_news else math.inf
    if not idle:
        return lease.answered_at + BATCH if 0 < gauge.low > gauge.paid else math.inf
    # What is held at rest others could have, and what was answered lets the pool know what headers counted.
    many = gauge.unit == REQUESTS and gauge.flying >= STEADY
    if lease.workers > 1 and (many or gauge.paid > TINY):
        return max(lease.answered_at, _rests_at(lease))
    return math.inf


def _has_to_tell(lease: Lease, gauge: LeaseGauge, *, waits: bool) -> bool:
    """What comes back, and what was told and learned, goes with the next question, unless somebody waits for it."""
    unheard = gauge.spent < -TINY or (gauge.reading is not None and not waits)
    if gauge.spent > TINY or (unheard and lease.hungry):
        return True
    return gauge.paid > TINY and (lease.hungry or gauge.there < SHORT * gauge.limit)


def _rests_at(lease: Lease) -> float:
    """When it is sure that no more calls come at the pace of late."""
    last, pace = max(
        ((gauge.spending_at, gauge.spending) for gauge in lease.gauges() if gauge.unit == REQUESTS),
        default=(lease.asked_at, STEADY),
    )
    return last + LEASE * min(1.0, max(BATCH, REST / max(pace, STEADY)))


def _finds_out_at(lease: Lease) -> float:
    """Where nobody tells a limit: what was sent is told in time, and soon while it was sent blindly, or was refused.

    Until its first reply has come, one of many hears of a limit from the pool alone.
    """
    sent = lease.ledger.sent != lease.sent_told
    blind = not lease.bucket.discovery.replied
    if (sent and blind) or lease.bucket.limited > lease.limited_told:
        return lease.asked_at + BATCH
    waits = blind and lease.workers > 1 and bool(lease.ledger.unanswered)
    return lease.asked_at + LEASE if sent or waits else math.inf
