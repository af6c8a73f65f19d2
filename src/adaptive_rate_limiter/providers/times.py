"""Readers for every form of time that providers write. All answers are seconds, finite and never negative."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

__all__ = [
    "ABROAD",
    "DAY",
    "FIRST_INSTANT",
    "HOUR",
    "LONGEST",
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

# French, Spanish, German, Russian, Japanese and Korean, beside the Chinese below.
ABROAD: dict[str, float] = {
    **dict.fromkeys(("seconde", "secondes", "segundo", "segundos", "sekunde", "sekunden", "секунду", "секунды", "секунд",
                     "秒間", "초"), 1.0),
    **dict.fromkeys(("minuto", "minutos", "minuten", "минуту", "минуты", "минут", "分間", "분"), MINUTE),
    **dict.fromkeys(("heure", "heures", "hora", "horas", "stunde", "stunden", "час", "часа", "часов", "時間", "시간"), HOUR),
}  # fmt: skip
# One word list for Go durations in headers and for sentences in bodies.
SECONDS_PER: dict[str, float] = {
    **ABROAD,
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
# An amount and its unit, then what may stand between two of them.
_PART = re.compile(
    r"(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s?([^\W\d_]{1,16})(?:\s?(?:,|\band\b|\s)\s?)?", re.IGNORECASE
)
_INSTANT = re.compile(
    r"(\d{4})[-/](\d\d?)[-/](\d\d?)(?:T|\s+|\s+at\s+)(\d\d?):(\d\d)(?::(\d\d)(\.\d{1,12})?)?"
    r"\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_MONTHS = {
    "Jan": "01", "Feb": "02", "Mar": "03", "Apr": "04", "May": "05", "Jun": "06",
    "Jul": "07", "Aug": "08", "Sep": "09", "Oct": "10", "Nov": "11", "Dec": "12",
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC throughout; without saying so the arithmetic is faster


def _iso(text: str) -> float | None:
    """Unix seconds of an ISO time in UTC that does not say so; the standard library's reader is the fastest."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH).total_seconds()
    except (ValueError, TypeError):  # TypeError: it had an offset
        return None


def _http_date(text: str) -> float | None:
    month = _MONTHS.get(text[8:11])
    if month is not None and text[25:] == " GMT":  # the one form that may still be sent (RFC 9110)
        moment = _iso(f"{text[12:16]}-{month}-{text[5:7]}T{text[17:25]}")
        if moment is not None:
            return moment
    try:
        told = parsedate_to_datetime(text)
        return (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Clock:
    """The moment a reply was sent: its Date header, so that skew cancels, else this machine's time."""

    __slots__ = ("_date", "_sent")

    def __init__(self, date: bytes | None = None) -> None:
        self._date = date
        self._sent: float | None = None

    def until(self, moment: float) -> float | None:
        """Seconds until `moment`, in Unix seconds; 0 once it is past, None where it is beyond all windows."""
        if self._sent is None:
            sent = _http_date(self._date[:_TEXT_CAP].decode("latin-1")) if self._date else None
            self._sent = time.time() if sent is None else sent
        ahead = moment - self._sent
        if ahead < 0:
            return 0.0  # a bucket already full, not a skewed clock: Date is the clock
        return ahead if ahead <= LONGEST else None


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
        part = _PART.match(text, at)
        if part is None:
            return None
        amount, unit = part.groups()
        scale = SECONDS_PER.get(unit) or SECONDS_PER.get(unit.lower())
        if scale is None:
            return None
        total += float(amount) * scale
        at = part.end()
    return total if at and total <= LONGEST else None


def instant(text: str, zone: float | None = 0.0) -> float | None:
    """Unix seconds of an RFC 3339 or HTTP date; `zone` is the offset in seconds of a time that tells none.

    With zone None such a time says nothing.
    """
    text = text[:_TEXT_CAP]
    found = _INSTANT.search(text)
    if found is None:
        return _http_date(text)
    offset = _offset(found[8], zone)
    if offset is None:
        return None
    year, month, day, hour, minute = map(int, found.group(1, 2, 3, 4, 5))
    try:
        told = datetime(year, month, day, hour, minute, int(found[6] or 0))  # noqa: DTZ001 - as _EPOCH
    except ValueError:
        return None
    return (told - _EPOCH).total_seconds() - offset + float(found[7] or 0)


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
            return clock.until(value / scale)
    return None


def seconds_until(text: str, clock: Clock, zone: float | None = 0.0) -> float | None:
    """Seconds from the reply's moment to the time that `text` tells in any known form, else None."""
    last = text[-1:]
    if last == "s":
        unit = text.lstrip(".0123456789")
        if unit in SECONDS_PER:  # one amount, as a duration mostly is
            try:
                length = float(text[: -len(unit)]) * SECONDS_PER[unit]
            except ValueError:
                return None
            return length if length <= LONGEST else None
    elif last == "Z" and ":" in text:
        moment = _iso(text[:-1])
        if moment is not None:
            return clock.until(moment)
    return _in_any_form(text.strip(), clock, zone)


def _in_any_form(text: str, clock: Clock, zone: float | None) -> float | None:
    if not text or len(text) > _TEXT_CAP:
        return None
    if ":" in text:
        moment = instant(text, zone)
        return None if moment is None else clock.until(moment)
    value = None if text[-1].isalpha() else number(text)
    return duration(text) if value is None else from_number(value, clock)
