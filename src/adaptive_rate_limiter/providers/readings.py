"""From header values to quota readings: units of bare numbers, windows by arithmetic, sentinels, merging."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from adaptive_rate_limiter.providers.dialects import PLAIN, WINDOWS, Dialect
from adaptive_rate_limiter.providers.headers import Layout, Pairs, text_of
from adaptive_rate_limiter.providers.times import DAY, LONGEST, MINUTE, Clock, number, seconds_until, values
from adaptive_rate_limiter.types import QuotaReading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from adaptive_rate_limiter.providers.names import Meaning

__all__ = ["MAX_COUNT", "Slot", "first_count", "gathered", "merged", "readings_of", "spent_shares"]

MAX_COUNT = 1e14  # more is an int64 standing for "no limit" (routers), never a limit
# Cerebras writes a billion where there is no limit. Months of Mistral are really that large.
_NO_LIMIT = frozenset({1e9, 2**31 - 1, 2**32 - 1})
_WINDOWS = (*WINDOWS, math.inf)  # so that there always is a next one
_PLAIN_COUNT = 15  # a number of fewer digits is a count below MAX_COUNT
_new = tuple.__new__
_BARE_CEILING = 1e8  # a larger bare number is an instant, whose unit is plain


def first_count(text: str) -> float | None:
    """The first count that reads; a sentinel (negative, or int64-sized) is None."""
    pieces = values(text)
    if ", " not in text and len(set(pieces[:-1])) > 1:
        pieces.insert(0, text)  # thousands commas
    for piece in pieces:
        value = number(piece.partition(";")[0])
        if value is not None:
            return value if 0 <= value < MAX_COUNT else None
    return None


class Slot:
    """The figures of one limit while they are being gathered."""

    limit: float | None = None
    remaining: float | None = None
    used: float | None = None
    reset: float | None = None
    share: float | None = None  # of the limit, 0 to 1, where nothing is counted
    bare = False  # the reset is a number without a unit
    refill = False  # the reset is a duration: where it was seen, the time to full, not the end of a window
    void = False  # a count was a sentinel or damaged

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.window = meaning.window
        self.fixed = meaning.fixed

    def put_count(self, field: str, text: str) -> None:
        value = first_count(text)
        if value is None:
            self.void = True
        elif field in ("percent", "share"):
            self.share = value / 100 if field == "percent" else value
        elif field in ("window", "window_minutes"):
            self.window = value * (MINUTE if field == "window_minutes" else 1.0)
            self.fixed = True
        else:
            setattr(self, field, value)

    def put_reset(self, text: str, clock: Clock) -> None:
        for piece in values(text) if "," in text else (text,):
            seconds = seconds_until(piece, clock)
            if seconds is not None:
                self.reset = seconds
                last = piece[-1:]
                self.refill = last == "s"
                self.bare = not last.isalpha() and _is_bare(piece)
                return

    def drop_sentinels(self, *, refused: bool) -> None:
        if self.limit is not None and self.limit in _NO_LIMIT and (self.window or 0) <= DAY:
            self.limit = self.remaining = self.reset = None
        if self.limit == 0 and not refused:
            # Zero on a success is a missing figure; on a refusal it is a limit that lets nothing pass.
            self.limit = None
            if not self.remaining:
                self.remaining = self.reset = None
        if self.remaining is None and self.limit is not None and self.used is not None:
            self.remaining = max(0.0, self.limit - self.used)


def _is_bare(text: str) -> bool:
    value = number(text)
    return value is not None and value < _BARE_CEILING


def gathered(layout: Layout, pairs: Pairs, clock: Clock) -> tuple[list[Slot], list[str]]:
    """What the headers of one reply tell, limit by limit; and the values that hold more than a figure."""
    slots: list[Slot] = []
    rich: list[str] = []
    for meaning, counts, rest in layout.limits:
        slot = Slot(meaning)
        slots.append(slot)
        for field, at in counts:
            value = pairs[at][1]
            if value.isdigit() and len(value) < _PLAIN_COUNT:
                setattr(slot, field, float(value))
            else:
                text = text_of(value)
                slot.put_count(field, text)
                if ";" in text:
                    rich.append(text)
        for field, at in rest:
            text = text_of(pairs[at][1])
            if field == "reset":
                slot.put_reset(text, clock)
            else:
                slot.put_count(field, text)
    return slots, rich


def readings_of(slots: list[Slot], dialect: Dialect, *, refused: bool) -> list[QuotaReading]:
    bare: list[Slot] = []
    windows = dialect.windows
    for slot in slots:
        if windows and not slot.fixed:
            _apply_windows(slot, windows)
        if (
            not slot.limit or slot.remaining is None or slot.limit in _NO_LIMIT
        ):  # else there is nothing to drop
            slot.drop_sentinels(refused=refused)
        if slot.bare:
            bare.append(slot)
    if bare:
        _settle_bare_resets(bare)
    readings = []
    for slot in slots:
        limit, remaining, reset, window = slot.limit, slot.remaining, slot.reset, slot.window
        if limit is None and remaining is None and (reset is None or slot.void):
            continue
        if reset and window is not None and not slot.fixed:
            window = _window_by_arithmetic(limit, remaining, reset, window, refill=slot.refill)
        if window is None or 0 < window <= LONGEST:
            meaning = slot.meaning
            scope = meaning.scope or dialect.scope
            # As `_make`, which costs as much again.
            readings.append(_new(QuotaReading, (meaning.unit, limit, remaining, reset, window, scope)))
    return readings


def spent_shares(slots: Iterable[Slot]) -> list[float]:
    """Resets of the windows whose share is used up."""
    return [s.reset for s in slots if s.reset is not None and s.share is not None and s.share >= 1]


def _apply_windows(slot: Slot, windows: Mapping[str, float]) -> None:
    window = windows.get(slot.meaning.unit, windows.get("*"))
    if window is not None:
        slot.window = window
        slot.fixed = True


def _settle_bare_resets(slots: Sequence[Slot]) -> None:
    """Azure writes bare integers, in milliseconds on some deployments and whole seconds on others.

    One reply speaks one unit. The refill time of what is used, used x window / limit, tells which; a value
    above the whole window cannot be seconds.
    """
    bare = [s for s in slots if s.reset and s.meaning.unit in PLAIN and s.window == MINUTE]
    verdicts = {_unit_of_bare(slot) for slot in bare}
    if "ms" in verdicts and "s" not in verdicts:
        for slot in bare:
            slot.reset = slot.reset / 1000 if slot.reset is not None else None


def _unit_of_bare(slot: Slot) -> str | None:
    value, window = slot.reset or 0.0, slot.window or MINUTE
    if value != int(value):
        return "s"  # nobody writes fractions of a millisecond
    used = _spending(slot.limit, slot.remaining)
    if used is not None and slot.limit:
        refill = used * window / slot.limit
        seconds = abs(value - refill) <= 1 + 0.1 * refill
        milliseconds = abs(value / 1000 - refill) <= 0.002 + 0.1 * refill
        if seconds or milliseconds:
            # A one beside a moment's refill may be either, rounded.
            return None if seconds and milliseconds else "s" if seconds else "ms"
    if value > window and slot.limit is not None:
        # Longer than the window: milliseconds, unless the limit is a day's and refills in these seconds.
        day = used * DAY / slot.limit if used is not None and slot.limit else math.inf
        return None if math.isclose(value, day, rel_tol=0.1) else "ms"
    return "ms" if value > 2 * window and slot.limit is None else None


def _window_by_arithmetic(
    limit: float | None, remaining: float | None, reset: float, assumed: float, *, refill: bool
) -> float | None:
    """The window behind a reset, where the name only suggests a minute.

    A refill time tells it: reset / used = window / limit. A remaining count is rounded down, so what is really
    used lies between used - 1 and used. A reset that is exactly a window long is the end of a flat window
    (OpenAI, autumn 2025). A reset that no window explains leaves the minute only while it does not refute it.
    """
    if not refill and reset <= assumed:
        return assumed
    exact = used = 0.0
    if limit and remaining is not None and remaining < limit:
        used = limit - remaining
        exact = reset * limit / used
        window = _WINDOWS[bisect_left(_WINDOWS, 0.98 * exact)]
        if window <= 1.02 * exact:
            return window
    if reset in WINDOWS:
        return reset
    if used > 1 and limit:
        window = _WINDOWS[bisect_left(_WINDOWS, 0.98 * (reset - 0.001) * limit / used)]
        if window <= 1.02 * (reset + 0.001) * limit / (used - 1):
            return window
    if reset <= 1.05 * assumed or 0 < exact <= 2 * assumed:
        return assumed
    return None if refill else next((window for window in WINDOWS if window >= reset), None)


def _spending(limit: float | None, remaining: float | None) -> float | None:
    """How much of a limit is used, or None if that cannot be known."""
    return None if limit is None or remaining is None or remaining > limit else limit - remaining


def merged(readings: list[QuotaReading]) -> list[QuotaReading]:
    """The same limit told twice becomes one reading; two that disagree stay two."""
    kept: list[QuotaReading] = []
    for reading in readings:
        for i, other in enumerate(kept):
            if reading.unit == other.unit and _same_limit(reading, other):
                kept[i] = QuotaReading(
                    other.unit,
                    _either(other.limit, reading.limit),
                    _either(other.remaining, reading.remaining),
                    _either(other.reset_after, reading.reset_after),
                    _either(other.window, reading.window),
                    other.scope if other.scope == reading.scope else (other.scope or reading.scope),
                )
                break
        else:
            kept.append(reading)
    return kept


def _same_limit(a: QuotaReading, b: QuotaReading) -> bool:
    if a.scope != b.scope and "upstream" not in (a.scope, b.scope):
        return False
    pairs = ((a.limit, b.limit), (a.remaining, b.remaining), (a.window, b.window))
    if any(x is not None and y is not None and x != y for x, y in pairs):
        return False
    return any(x is not None and x == y for x, y in pairs[:2])


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
