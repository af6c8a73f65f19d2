"""What sentences tell: which limit was hit, and when to come back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from adaptive_rate_limiter.providers.times import (
    ABROAD,
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    SECONDS_PER,
    WEEK,
    Clock,
    duration,
    number,
    seconds_until,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Named", "named_limit", "plain_words", "waits_in"]

_URL = re.compile(r"https?://\S{1,300}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Advice speaks of other limits than the one that was hit: "Add 10 credits to unlock 1000 requests per day".
_ADVICE = re.compile(
    r"(?:^|(?<=[.!?\n]))\s{0,8}(?:to continue|add|upgrade|subscribe|visit|consider|contact|for more|for details|you can|you may"
    r"|please (?:reduce|upgrade|contact|refer|consider|visit|see)|see|learn|reduce|need)\b[^.!?\n]{0,400}",
    re.IGNORECASE,
)

_COUNT = r"~?((?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,9})?)"
_LIMIT = re.compile(rf"\blimit(?: is| of)?\s?[:=]?\s?{_COUNT}\b", re.IGNORECASE)
_OVER_LIMIT = re.compile(rf"\bactual/limit\)?:? ?{_COUNT}/{_COUNT}", re.IGNORECASE)  # xAI
_SHORT_LIMIT = re.compile(rf"\bmax [rti]p[smhd]:? ?{_COUNT}\b", re.IGNORECASE)  # Moonshot
_PER = re.compile(rf"\b{_COUNT}(?: \w{{1,12}}){{0,3}} ?(?:per|/|every|within) ?(?:an? )?\w", re.IGNORECASE)
_REQUESTED = re.compile(rf"\brequested\s?[:=]?\s?(?:about )?{_COUNT}\b", re.IGNORECASE)

_SHORT = re.compile(r"\b(i|o)?(r|q|t|i)p(s|m|h|d)\b")  # RPM, TPD, ITPM ...
_SHORT_UNITS = {"r": "requests", "q": "requests", "t": "tokens", "i": "images"}
_SHORT_SPANS = {"s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
_AFTER_UNIT = r"(?: counts?)?\s?(?:per\b|/|rates?\b|limits?\b|quotas?\b|usage\b|exceeded\b|count\b)"
# First match wins; the words are lower case, without camel case, underscores and hyphens.
_UNITS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\b(?:input|prompt) tokens?{_AFTER_UNIT}"), "input_tokens"),
    (re.compile(rf"\b(?:output|completion|generated) tokens?{_AFTER_UNIT}"), "output_tokens"),
    (
        re.compile(
            rf"\btokens?{_AFTER_UNIT}|(?:too many|number of|request|all|minute|day|hour) tokens?\b|type:? tokens\b"
        ),
        "tokens",
    ),
    (re.compile(r"\bseconds of audio\b|\baudio seconds?\b"), "audio_seconds"),
    (re.compile(rf"\bimages?{_AFTER_UNIT}|(?:too many|number of) images?\b"), "images"),
    (
        re.compile(
            rf"\b(?:requests?|queries|calls?){_AFTER_UNIT}|(?:too many|number of|tier) (?:api )?(?:requests?|queries|calls)\b"
            r"|type:? requests\b|请求(?:频率|次数|数)"
        ),
        "requests",
    ),
    (re.compile(r"\bby (?:minute|hour|day)\b|\bmodels per (?:min|minute|day)\b"), "requests"),
)
_SPANS = "|".join(
    sorted((re.escape(w) for w in SECONDS_PER if len(w) > 1 or not w.isascii()), key=len, reverse=True)
)
_WINDOWS = (
    re.compile(
        rf"(?:\bper|/|\bby|\bevery|\beach|\blast|(?<!wait )\bfor)\s?(\d{{1,6}})?\s?({_SPANS}|s|m|h|d)\b"
    ),
    re.compile(
        rf"\b(\d{{1,6}})\s?({_SPANS}|h|d)(?: (?:usage|rate|session|token|request|rolling))? (?:limit|window|quota)\b"
    ),
    re.compile(r"\b(?:this|current|(?:for|of) the) ()(minute|hour|day|week|month)\b"),
    re.compile(r"每(\d{0,6})\s?(个?小时|分钟|秒|天|日|周|个?月)"),
    re.compile(r"(\d{1,6})\s?(个?小时|分钟|秒|天|日|周|个?月)(?=的?[^\d]{0,6}(?:上限|限额|额度|限制))"),
)
_ADVERBS = {"hourly": HOUR, "daily": DAY, "weekly": WEEK, "monthly": MONTH, "today": DAY}
_ADVERB = re.compile(r"\b(hourly|daily|weekly|monthly|(?:(?<=for )|(?<=limit )|(?<=quota ))today)\b")
_NUMBERS = {" five ": " 5 ", " seven ": " 7 "}

_DURATION = rf"((?:\d{{1,12}}(?:\.\d{{1,12}})?\s?(?:{_SPANS}|s|m|h|d|w)(?![a-z])(?:\s?(?:,|and)?\s?)){{1,6}})"
_CLOCK = r"(\d{1,3}:\d\d:\d\d)(?![\d:])"  # hours, minutes, seconds
_BARE = r"(\d{1,9}(?:\.\d{1,9})?)(?![\d.]*(?:\s?[a-z%/\u4e00-\u9fff]|:\d))"
_ABOUT = r"(?:(?:about|around|approximately|at least|another|for|up to|roughly|~)\s?){0,3}"
_LEAD = (
    r"(?:(?:again|retry|retrying|available|resets?|renews?|resume|refill\w*|replenish\w*|back)(?: \w{1,20}){0,3}?"
    r" (?:in|after|within)|wait(?:ing)?|retry[-_ ]after\W{0,4}|retry[-_ ]delay\W{0,4}|(?<!timed out )after"
    r"|(?:timed|locked) out for|(?:blocked|banned|suspended|limited) for)"
)
_WAIT = re.compile(rf"\b{_LEAD}\s?{_ABOUT}(?:{_DURATION}|{_CLOCK}|{_BARE})")
_WAIT_ABROAD = re.compile(rf"\b(?:dans|en|через|in(?=\s\d{{1,9}}\s?(?:{'|'.join(ABROAD)})))\s{_DURATION}")
_WAIT_EASTERN = re.compile(rf"{_DURATION}(?:之后|以后|后|後|후)")
_WAIT_UNTIL = re.compile(
    r"(?:reset|renew|until|again|access|available|retry|将在|于|恢复|重置)[^\d\n]{0,24}"
    r"(\d{4}[-/]\d\d?[-/]\d\d?(?:t|\s+at\s+|\s+)\d\d?:\d\d(?::\d\d(?:\.\d{1,9})?)?\s*(?:z|utc|gmt|[+-]\d\d:?\d\d)?)"
)


@dataclass(frozen=True, slots=True)
class Named:
    """The limit that a refusal names. `oversized`: the request alone is above the whole limit.

    `limit` is told only where one unit, one window and one count are named.
    """

    unit: str | None = None
    window: float | None = None
    limit: float | None = None
    oversized: bool = False
    zero: bool = False


def plain_words(text: str) -> str:
    """`text` in lower case with camel case and joined words taken apart and addresses taken out."""
    text = _CAMEL.sub(" ", _URL.sub(" ", text))
    text = " " + text.replace("_", " ").replace("-", " ").lower() + " "
    for word, digit in _NUMBERS.items():
        text = text.replace(word, digit)
    return text


def named_limit(text: str, sizes: Sequence[float] = ()) -> Named:
    """The unit and the longest window that `text` names: of several broken limits the longest binds.

    `sizes` are limits that the body tells as numbers.
    """
    text = _ADVICE.sub(" ", text)
    words = plain_words(text)
    limits, requested = _counts(_LIMIT, text), _counts(_REQUESTED, text)
    unit, windows = _unit(words), _windows(words)
    counts = {*sizes, *limits, *_counts(_OVER_LIMIT, text), *_counts(_SHORT_LIMIT, text)} or {
        *_counts(_PER, words)
    }
    plain = unit is not None and len(set(windows)) == 1 and len(counts) == 1
    return Named(
        unit=unit,
        window=max(windows, default=None),
        limit=(max(counts) or None) if plain else None,
        oversized=bool(limits and requested) and max(requested) > max(limits) > 0,
        zero=bool(limits) and min(limits) == 0,
    )


def _counts(pattern: re.Pattern[str], text: str) -> list[float]:
    """The last number of each place where `pattern` is found."""
    found = (match[match.lastindex or 0] for match in islice(pattern.finditer(text), 8))
    return [float(count.replace(",", "")) for count in found]


def _unit(words: str) -> str | None:
    short = _SHORT.search(words)
    if short:
        unit = _SHORT_UNITS[short[2]]
        return {"i": "input_", "o": "output_"}.get(short[1] or "", "") + unit if unit == "tokens" else unit
    words = words.strip(" .\n")
    return next((unit for pattern, unit in _UNITS if pattern.search(words)), None)


def _windows(words: str) -> list[float]:
    spans = [_SHORT_SPANS[found[2]] for found in _SHORT.findall(words)]
    spans += [_ADVERBS[found] for found in _ADVERB.findall(words)]
    for pattern in _WINDOWS:
        for found in pattern.findall(words):
            *counts, span = found
            count = next((int(c) for c in counts if c), 1)
            spans.append(count * SECONDS_PER.get(span, 0.0))
    return [span for span in spans if 0 < span <= 400 * DAY]


def waits_in(text: str, clock: Clock, zone: float | None) -> list[float]:
    """Every wait that `text` tells, in seconds; instants without a zone count only where the zone is known."""
    words = _URL.sub(" ", text).lower()
    waits: list[float | None] = [
        duration(found[1]) if found[1] else _clock(found[2]) if found[2] else number(found[3])
        for found in _WAIT.finditer(words)
    ]
    for pattern in (_WAIT_ABROAD, _WAIT_EASTERN):
        waits += [duration(found[1]) for found in pattern.finditer(words)]
    waits += [seconds_until(found[1].strip(), clock, zone) for found in _WAIT_UNTIL.finditer(words)]
    return [wait for wait in waits if wait is not None and wait <= 400 * DAY][:16]


def _clock(text: str) -> float:
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * HOUR + minutes * MINUTE + seconds
