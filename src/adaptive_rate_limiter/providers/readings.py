"""From header values to quota readings: units of bare numbers, windows by arithmetic, sentinels, merging."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.providers.dialects import PLAIN, WINDOWS, Dialect
from adaptive_rate_limiter.providers.times import DAY, MINUTE, Clock, number, seconds_until, values
from adaptive_rate_limiter.types import QuotaReading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adaptive_rate_limiter.providers.names import Meaning

__all__ = ["MAX_COUNT", "Slot", "Slots", "first_count", "merged"]

MAX_COUNT = 1e14  # more is an int64 standing for "no limit" (routers), never a limit
# Cerebras writes a billion where there is no limit. Months of Mistral are really that large.
_NO_LIMIT = frozenset({1e9, 2**31 - 1, 2**32 - 1})
_MAX_SLOTS = 64
_BARE_CEILING = 1e8  # a larger bare number is an instant, whose unit is plain


def first_count(text: str) -> float | None:
    """The first count that reads; a sentinel (negative, or int64-sized) is None."""
    if len(text) < 15 and text.isdecimal():  # noqa: PLR2004 - the plain case, below MAX_COUNT
        return float(text)
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

    __slots__ = (
        "bare",
        "fixed",
        "limit",
        "meaning",
        "refill",
        "remaining",
        "reset",
        "share",
        "used",
        "void",
        "window",
    )

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.window = meaning.window
        self.fixed = meaning.fixed
        self.limit: float | None = None
        self.remaining: float | None = None
        self.used: float | None = None
        self.reset: float | None = None
        self.share: float | None = None  # of the limit, 0 to 1, where nothing is counted
        self.bare = False  # the reset is a number without a unit
        self.refill = (
            False  # the reset is a duration: where it was seen, the time to full, not the end of a window
        )
        self.void = False  # a count was a sentinel or damaged

    def put(self, field: str, text: str, clock: Clock) -> None:
        if field == "reset":
            self._put_reset(text, clock)
            return
        value = first_count(text)
        if value is None:
            self.void = True
        elif field in ("window", "window_minutes"):
            self.window = value * (MINUTE if field == "window_minutes" else 1.0)
            self.fixed = True
        elif field in ("percent", "share"):
            self.share = value / 100 if field == "percent" else value
        elif getattr(self, field) is None:
            setattr(self, field, value)

    def _put_reset(self, text: str, clock: Clock) -> None:
        if self.reset is not None:
            return
        for piece in values(text):
            seconds = seconds_until(piece, clock)
            if seconds is not None:
                self.reset = seconds
                value = None if piece[-1:].isalpha() else number(piece)
                self.bare = value is not None and value < _BARE_CEILING
                self.refill = piece[-1:] == "s"
                return

    @property
    def spending(self) -> float | None:
        """How much of the limit is used, or None if that cannot be known."""
        if self.limit is None or self.remaining is None or self.remaining > self.limit:
            return None
        return self.limit - self.remaining

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

    def reading(self, scope: str | None) -> QuotaReading | None:
        if self.limit is None and self.remaining is None and (self.reset is None or self.void):
            return None
        if self.window is not None and not 0 < self.window <= 400 * DAY:
            return None
        return QuotaReading(
            self.meaning.unit,
            self.limit,
            self.remaining,
            self.reset,
            self.window,
            self.meaning.scope or scope,
        )


class Slots:
    """All limits of one reply."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str, float | None, str | None], Slot] = {}

    def put(self, meaning: Meaning, text: str, clock: Clock) -> None:
        # Codex names its window in a header of its own, so there the key holds no window.
        key = (meaning.family, meaning.unit, meaning.window, meaning.scope)
        slot = self._by_key.get(key)
        if slot is None:
            if len(self._by_key) >= _MAX_SLOTS:
                return
            slot = self._by_key[key] = Slot(meaning)
        slot.put(meaning.field, text, clock)

    def spent_shares(self) -> list[float]:
        """Resets of the windows whose share is used up."""
        return [
            s.reset
            for s in self._by_key.values()
            if s.reset is not None and s.share is not None and s.share >= 1
        ]

    def readings(self, dialect: Dialect, *, refused: bool) -> list[QuotaReading]:
        slots = list(self._by_key.values())
        for slot in slots:
            _apply_dialect(slot, dialect)
            slot.drop_sentinels(refused=refused)
        _settle_bare_resets(slots)
        for slot in slots:
            if not slot.fixed and slot.window is not None and slot.reset:
                slot.window = _window_by_arithmetic(slot)
        return merged(r for r in (slot.reading(dialect.scope) for slot in slots) if r is not None)


def _apply_dialect(slot: Slot, dialect: Dialect) -> None:
    if slot.fixed or not dialect.windows:
        return
    window = dialect.windows.get(slot.meaning.unit, dialect.windows.get("*"))
    if window is not None:
        slot.window = window
        slot.fixed = True


def _settle_bare_resets(slots: Sequence[Slot]) -> None:
    """Azure writes bare integers, in milliseconds on some deployments and whole seconds on others.

    One reply speaks one unit. The refill time of what is used, used x window / limit, tells which; a value
    above the whole window cannot be seconds.
    """
    bare = [s for s in slots if s.bare and s.meaning.unit in PLAIN and s.reset and s.window == MINUTE]
    verdicts = {_unit_of_bare(slot) for slot in bare}
    if "ms" in verdicts and "s" not in verdicts:
        for slot in bare:
            slot.reset = slot.reset / 1000 if slot.reset is not None else None


def _unit_of_bare(slot: Slot) -> str | None:
    value, window = slot.reset or 0.0, slot.window or MINUTE
    if value != int(value):
        return "s"  # nobody writes fractions of a millisecond
    used = slot.spending
    if used is not None and slot.limit:
        refill = used * window / slot.limit
        if abs(value - refill) <= 1 + 0.1 * refill:
            return "s"
        if abs(value / 1000 - refill) <= 0.002 + 0.1 * refill:
            return "ms"
    if value > window and slot.limit is not None:
        # Longer than the window: milliseconds, unless the limit is a day's and refills in these seconds.
        day = used * DAY / slot.limit if used is not None and slot.limit else math.inf
        return None if math.isclose(value, day, rel_tol=0.1) else "ms"
    return "ms" if value > 2 * window and slot.limit is None else None


def _window_by_arithmetic(slot: Slot) -> float | None:
    """The window behind a reset, where the name only suggests a minute.

    A refill time tells it: reset / used = window / limit. A remaining count is rounded down, so what is really
    used lies between used - 1 and used. A reset that is exactly a window long is the end of a flat window
    (OpenAI, autumn 2025). A reset that no window explains leaves the minute only while it does not refute it.
    """
    reset, used, assumed = slot.reset or 0.0, slot.spending, slot.window or MINUTE
    if not slot.refill and reset <= assumed:
        return assumed
    exact = reset * slot.limit / used if used and slot.limit else 0.0
    for window in WINDOWS:
        if math.isclose(exact, window, rel_tol=0.02):
            return window
    if reset in WINDOWS:
        return reset
    if used and slot.limit and used > 1:
        low, high = (reset - 0.001) * slot.limit / used, (reset + 0.001) * slot.limit / (used - 1)
        for window in WINDOWS:
            if 0.98 * low <= window <= 1.02 * high:
                return window
    if reset <= 1.05 * assumed or 0 < exact <= 2 * assumed:
        return assumed
    return None if slot.refill else next((window for window in WINDOWS if window >= reset), None)


def merged(readings: Iterable[QuotaReading]) -> list[QuotaReading]:
    """The same limit told twice becomes one reading; two that disagree stay two."""
    kept: list[QuotaReading] = []
    for reading in readings:
        for i, other in enumerate(kept):
            if _same_limit(reading, other):
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
    if a.unit != b.unit:
        return False
    if a.scope != b.scope and "upstream" not in (a.scope, b.scope):
        return False
    pairs = ((a.limit, b.limit), (a.remaining, b.remaining), (a.window, b.window))
    if any(x is not None and y is not None and x != y for x, y in pairs):
        return False
    return any(x is not None and x == y for x, y in pairs[:2])


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
