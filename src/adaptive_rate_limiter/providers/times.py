"""Readers for every form of time that providers write. All answers are seconds, finite and never negative."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache

__all__ = [
    "DAY",
    "FIRST_INSTANT",
    "HOUR",
    "MINUTE",
    "MONTH",
    "SECONDS_PER",
    "WEEK",
    "Clock",
    "duration",
    "from_number",
    "number",
    "seconds_until",
    "values",
]

MINUTE, HOUR, DAY, WEEK, MONTH = 60.0, 3600.0, 86_400.0, 604_800.0, 2_592_000.0
# No provider's window is longer than a year; a reset beyond that is damage or malice.
LONGEST = 400 * DAY
_TEXT_CAP = 80
FIRST_INSTANT, _LAST_INSTANT = 1e9, 1e10  # a bare number from here on is Unix time: 2001 to 2286

# One word list for Go durations in headers and for sentences in bodies.
SECONDS_PER: dict[str, float] = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "毫秒"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "秒", "秒钟"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "分", "分钟"), MINUTE),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "小时", "个小时"), HOUR),
    **dict.fromkeys(("d", "day", "days", "天", "日"), DAY),
    **dict.fromkeys(("w", "week", "weeks", "周"), WEEK),
    **dict.fromkeys(("month", "months", "月", "个月"), MONTH),
}
_WORDS = "|".join(sorted(map(re.escape, SECONDS_PER), key=len, reverse=True))
_AMOUNT = rf"(\d{{1,12}}(?:\.\d{{0,12}})?|\.\d{{1,12}})\s?({_WORDS})(?![a-z])"
_PART = re.compile(rf"{_AMOUNT}(?:\s?(?:,|and|\s)\s?)?", re.IGNORECASE)
_GO_PART = re.compile(rf"(\d{{1,12}}(?:\.\d{{0,12}})?|\.\d{{1,12}})({_WORDS})(?=[\d.]|$)", re.IGNORECASE)
_INSTANT = re.compile(
    r"(\d{4})[-/](\d\d?)[-/](\d\d?)(?:T|\s+|\s+at\s+)(\d\d?):(\d\d)(?::(\d\d)(\.\d{1,12})?)?"
    r"\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)  # replies come many to a second, and the standard library's reader is slow
def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


class Clock:
    """The moment a reply was sent: its Date header, so that skew cancels, else this machine's time."""

    __slots__ = ("_date", "_sent")

    def __init__(self, date: str | None = None) -> None:
        self._date = date
        self._sent: float | None = None

    @property
    def sent(self) -> float:
        if self._sent is None:
            told = _http_date(self._date[:_TEXT_CAP]) if self._date else None
            self._sent = time.time() if told is None else told
        return self._sent


def number(text: str) -> float | None:
    """A plain finite number, its sign kept; thousands commas are read, all else is None."""
    text = text.strip()
    if "," in text:
        if not re.fullmatch(r"\d{1,3}(?:,\d{3}){1,6}(?:\.\d{1,6})?", text):
            return None
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def values(text: str) -> list[str]:
    """The values of a header that was sent more than once and joined, then the whole: the first that reads counts."""
    return [*text.split(",", 8)[:8], text] if "," in text else [text]


def duration(text: str) -> float | None:
    """Seconds of a Go duration (``1h2m3.4s``) or of words (``1 minute and 30 seconds``)."""
    text = text.strip()[:_TEXT_CAP]
    total, at = 0.0, 0
    while at < len(text):
        part = _GO_PART.match(text, at) or _PART.match(text, at)
        if part is None:
            return None
        total += float(part[1]) * SECONDS_PER[part[2].lower()]
        at = part.end()
    return total if at and total <= LONGEST else None


@lru_cache(maxsize=256)
def instant(text: str, zone: float | None = 0.0) -> float | None:
    """Unix seconds of an RFC 3339 or HTTP date; `zone` is the offset in seconds of a time that tells none.

    With zone None such a time says nothing.
    """
    found = _INSTANT.search(text[:_TEXT_CAP])
    if found is None:
        return _http_date(text[:_TEXT_CAP]) if ":" in text else None
    offset = _offset(found[8], zone)
    if offset is None:
        return None
    try:
        moment = datetime(
            int(found[1]), int(found[2]), int(found[3]), int(found[4]), int(found[5]), int(found[6] or 0),
            tzinfo=timezone.utc,
        )  # fmt: skip
        return (moment - timedelta(seconds=offset)).timestamp() + float(found[7] or 0)
    except (ValueError, OverflowError):
        return None


def _offset(mark: str | None, zone: float | None) -> float | None:
    if mark is None:
        return zone
    if mark[0] not in "+-":
        return 0.0
    seconds = int(mark[1:3]) * HOUR + int(mark[-2:]) * MINUTE
    return -seconds if mark[0] == "-" else seconds


def from_number(value: float, clock: Clock) -> float | None:
    """Seconds from now of a bare number: a delta, or an instant in s, ms, us or ns since 1970.

    The ranges cannot meet: as a delta the smallest instant would be thirty years.
    """
    if value < 0:
        return None
    if value <= LONGEST:
        return value
    for scale in (1.0, 1e3, 1e6, 1e9):
        if FIRST_INSTANT <= value / scale < _LAST_INSTANT:
            return _from_instant(value / scale, clock)
    return None


def _from_instant(moment: float, clock: Clock) -> float | None:
    # An instant in the past is a bucket already full, not a skewed clock: Date is the clock.
    ahead = max(0.0, moment - clock.sent)
    return ahead if ahead <= LONGEST else None


def seconds_until(text: str, clock: Clock, zone: float | None = 0.0) -> float | None:
    """Seconds from the reply's moment to the time that `text` tells in any known form, else None."""
    text = text.strip()
    if not text or len(text) > _TEXT_CAP:
        return None
    if not text[-1].isalpha():
        value = number(text)
        if value is not None:
            return from_number(value, clock)
    length = duration(text)
    if length is not None:
        return length
    moment = instant(text, zone)
    return None if moment is None else _from_instant(moment, clock)
