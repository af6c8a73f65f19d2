"""Which limit each reading of a header speaks of; one that was never told before gets a gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import least_window, opened_window
from adaptive_rate_limiter.core.hold import Hold, HoldState
from adaptive_rate_limiter.core.quota import CONCURRENT_REQUESTS
from adaptive_rate_limiter.core.shots import overtaking
from adaptive_rate_limiter.core.told import ToldGauge

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.types import QuotaReading

TINY, HUGE = 1e-3, 1e12  # limits beyond are no limits
MINUTE = 60.0  # what a limit counts in where no header says so, until arithmetic does
MOST_TOLD = 32  # limits: a peer that tells a new one with each reply must not fill the memory


def matched(
    ledger: Ledger, readings: tuple[QuotaReading, ...], hold: Hold, now: float
) -> list[tuple[ToldGauge, QuotaReading]]:
    """Each reading with its gauge, a new one where there is none; without those that make no sense."""
    told = ledger.told
    if len(told) == len(readings):  # the same set as ever, in the same order
        for gauge, reading in zip(told, readings, strict=True):
            if not (gauge.tells(reading) and _plausible(reading)):
                break
        else:
            return list(zip(told, readings, strict=True))
    readings = tuple(reading for reading in readings if _plausible(reading))
    found = []
    for reading in readings:
        its = _gauge_for(ledger, reading, readings) or _new_gauge(ledger, reading, hold, now)
        if its is not None:
            found.append((its, reading))
    return found


def _gauge_for(ledger: Ledger, reading: QuotaReading, together: tuple[QuotaReading, ...]) -> ToldGauge | None:
    told = [gauge for gauge in ledger.told if gauge.unit == reading.unit and gauge.scope == reading.scope]
    siblings = sum(other.unit == reading.unit and other.scope == reading.scope for other in together)
    if siblings > 1 or len(told) > 1:  # several windows on one unit: the window tells them apart
        told = [gauge for gauge in told if gauge.window == (reading.window or MINUTE)]
    return told[0] if told else None


def _new_gauge(ledger: Ledger, reading: QuotaReading, hold: Hold, now: float) -> ToldGauge | None:
    limit = reading.limit or reading.remaining or 0.0
    if limit < TINY or reading.unit == CONCURRENT_REQUESTS or len(ledger.told) >= MOST_TOLD:
        return None
    sent_since = ledger.reserved_after(hold, reading.unit)
    opened = opened_window(reading, ledger.spent[reading.unit] - sent_since)
    window = reading.window or opened or least_window(reading, MINUTE)
    lately = [past for past in ledger.remembered() if past.at > now - window and reading.unit in past.cost]
    since = lately[0].at if lately else now
    gauge = ToldGauge(reading, limit, window, since, len(ledger.told))
    gauge.in_flight = ledger.in_flight()[reading.unit]
    for past in lately:
        if past.state not in {HoldState.CANCELLED, HoldState.REFUSED}:
            gauge.take(past.cost[reading.unit], past.at)
            if ledger.sends_told and not past.sent and past.state is HoldState.RESERVED:
                if not past.on_the_way:
                    past.on_the_way = True
                    ledger.on_the_way.append(past)
                gauge.depart(past.cost[reading.unit])
    if reading.remaining is not None:
        if limit - reading.remaining <= gauge.fixed.taken:  # no more than our own: nobody else was here
            sent_since -= overtaking(ledger, hold, reading.unit)
        sure = reading.remaining - min(sent_since, gauge.in_flight)
        for level in gauge.models:
            level.correct(min(level.available(now), sure), now)
    ledger.gauges.append(gauge)
    ledger.told.append(gauge)
    return gauge


def _plausible(reading: QuotaReading) -> bool:
    """Whether arithmetic with it can be trusted: a limit near zero makes waits endless."""
    limit, window, remaining, reset = reading.limit, reading.window, reading.remaining, reading.reset_after
    return (
        (limit is None or TINY <= limit <= HUGE)
        and (window is None or TINY <= window <= HUGE)
        and (remaining is None or 0 <= remaining <= HUGE)
        and (reset is None or 0 <= reset <= HUGE)
    )
