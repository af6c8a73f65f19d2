"""What there is to show of a limiter, before it is HTML or a terminal's: words and levels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from adaptive_rate_limiter.report import AT_ONCE, duration, figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adaptive_rate_limiter.report import BucketSnapshot, LimiterSnapshot, LimitSnapshot

__all__ = ["Bar", "Card", "cards", "per", "plain"]

ORIGINS = {"stated": "stated by you", "told": "told by headers", "inferred": "inferred from refusals"}
WINDOWS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}
NOTHING = "No call was made yet: there is nothing to show."
UNKNOWN = "no limit is known yet"
MOST_LIMITS, MOST_CARDS, LONGEST = 16, 50, 80  # lines, cards and letters: a view is to be read


class Bar(NamedTuple):
    """One limit: `level` is the part of it that is left, None where nobody knows; `origin`: how it is counted, who told it."""

    unit: str
    left: str
    limit: str
    origin: str
    level: float | None


class Card(NamedTuple):
    """One bucket."""

    title: str
    facts: tuple[str, ...]
    bars: tuple[Bar, ...]
    waits: tuple[str, ...]
    account: str


def cards(snapshot: LimiterSnapshot, waits: Iterable[str] = ()) -> list[Card]:
    """One for each bucket, those with most calls first. `waits`: sentences of `Limiter.explain`."""
    waits = list(waits)
    busiest = sorted(snapshot.buckets, key=lambda bucket: (-bucket.waiting, -bucket.admitted))
    return [_card(bucket, waits) for bucket in busiest[:MOST_CARDS]]


def _card(bucket: BucketSnapshot, waits: list[str]) -> Card:
    mine = f"{bucket.bucket_id}: "
    return Card(
        title=_short(bucket.model or "any model") + (f" at {_short(bucket.host)}" if bucket.host else ""),
        facts=tuple(_facts(bucket)),
        bars=tuple(_bar(limit) for limit in bucket.limits[:MOST_LIMITS]),
        waits=tuple(wait.removeprefix(mine) for wait in waits if wait.startswith(mine)),
        account=str(bucket.account),
    )


def _facts(bucket: BucketSnapshot) -> Iterable[str]:
    yield "1 call let in" if bucket.admitted == 1 else f"{bucket.admitted:,} calls let in"
    at_most = f" of at most {bucket.most_in_flight:,.0f}" if bucket.most_in_flight < math.inf else ""
    yield f"{bucket.in_flight:,} under way{at_most}"
    if bucket.waiting:
        goes = f", the last goes in about {duration(bucket.eta)}" if bucket.eta >= AT_ONCE else ""
        yield f"{bucket.waiting:,} in line{goes}"
    if bucket.paused_for:
        yield f"nothing is sent for {duration(bucket.paused_for)}"
    yield f"{bucket.refused:,} refused{_by_kind(bucket.tally.refused)}"
    if bucket.tally.rejected:
        yield f"{sum(bucket.tally.rejected.values()):,} not let in{_by_kind(bucket.tally.rejected)}"


def _by_kind(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{kind.replace('_', ' ')}: {count:,}" for kind, count in counts.items()) + ")"


def _bar(limit: LimitSnapshot) -> Bar:
    known = math.isfinite(limit.remaining) and math.isfinite(limit.capacity) and limit.capacity > 0
    counted = "" if limit.algorithm == "unknown" else f"{limit.algorithm.replace('_', ' ')}, "
    return Bar(
        unit=_short(limit.unit.replace("_", " ")),
        left=f"{figure(max(0.0, limit.remaining))} left" if known else "",
        limit=f"{figure(limit.limit)} {per(limit.window)}",
        origin=counted + ORIGINS.get(limit.source, limit.source),
        level=min(1.0, max(0.0, limit.remaining / limit.capacity)) if known else None,
    )


def per(window: float) -> str:
    return f"per {WINDOWS[window]}" if window in WINDOWS else f"in {duration(window)}"


def _short(text: str) -> str:
    """Names come from others: no letter that a terminal obeys, and not endless."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def plain(shown: Iterable[Card]) -> str:
    """As text alone."""
    return "\n\n".join("\n".join(_lines(card)) for card in shown) or NOTHING


def _lines(card: Card) -> Iterable[str]:
    yield card.title
    yield "  " + ", ".join(card.facts)
    for bar in card.bars:
        left = f"{bar.left} of " if bar.left else ""
        yield f"  {bar.unit}: {left}{bar.limit} ({bar.origin})"
    if not card.bars:
        yield f"  {UNKNOWN}"
    yield from (f"  {wait}" for wait in card.waits)
    yield f"  {card.account}"
