"""A response -> what it says about limits. Never raises, whatever it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from adaptive_rate_limiter.providers.bodies import Evidence, gather, is_error
from adaptive_rate_limiter.providers.dialects import dialect_of
from adaptive_rate_limiter.providers.fields import ietf_readings
from adaptive_rate_limiter.providers.names import Meaning, meaning_of
from adaptive_rate_limiter.providers.readings import Slots, first_count, merged
from adaptive_rate_limiter.providers.refusals import Signals, judge, read_wait
from adaptive_rate_limiter.providers.times import Clock, seconds_until
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

__all__ = ["parse_response"]

_MAX_HEADERS = 256
_MAX_VALUE = 1024
_TOO_MANY_REQUESTS = 429
_FIRST_ERROR = 400
_PACED = frozenset({RefusalKind.RATE_LIMIT, RefusalKind.CONCURRENCY, RefusalKind.QUOTA_EXHAUSTED})


def parse_response(
    headers: Any, body: Any, status_code: int, *, url: Any = None, model: str | None = None
) -> RateLimitInfo:
    """The limits and the refusal that a response of any provider tells.

    `headers` may be a mapping, pairs, or None, of text or bytes; `body` parsed JSON, text, bytes or None. Every
    number that comes out is finite and not negative; times are seconds from the response's Date header. Never
    raises: what cannot be read counts as not told.
    """
    del model  # part of the signature, for a dialect that will need it
    try:
        return read(headers, body, status_code, url)
    except Exception:  # noqa: BLE001 - the promise: hostile input is harmless
        return _unread(_status(status_code))


def _unread(status: int) -> RateLimitInfo:
    limited = status == _TOO_MANY_REQUESTS
    return RateLimitInfo(
        is_rate_limited=limited, refusal=Refusal(RefusalKind.RATE_LIMIT) if limited else None
    )


@dataclass(slots=True)
class _Told:
    """The headers that matter, sorted by what is done with them."""

    quota: list[tuple[Meaning, str]] = field(default_factory=list)
    other: list[tuple[Meaning, str]] = field(default_factory=list)
    markers: set[str] = field(default_factory=set)
    date: str | None = None


def read(headers: Any, body: Any, status_code: Any, url: Any) -> RateLimitInfo:
    """`parse_response` without its safety net."""
    now = time.time()
    told = _sorted(headers)
    evidence, status = _error(body, _status(status_code))
    for quoted in evidence.headers[:2]:
        _sorted(quoted, told)
    if not told.quota and not told.other and status < _FIRST_ERROR:
        return RateLimitInfo(timestamp=now)
    clock = Clock(told.date)
    dialect = dialect_of(str(url) if url is not None else "", told.markers)
    slots = Slots()
    for meaning, text in told.quota:
        slots.put(meaning, text, clock)
    readings = slots.readings(dialect, refused=status == _TOO_MANY_REQUESTS)
    if told.other:
        readings = merged([*readings, *_field_readings(told)])
    info = RateLimitInfo(timestamp=now)
    if status >= _FIRST_ERROR:
        signals = _signals(told, slots, clock)
        info.refusal, named = judge(status, evidence, signals, readings, clock=clock, zone=dialect.zone)
        readings = [_with_window(r, named.unit, named.window) for r in readings]
    _fill(info, readings, status)
    return info


def _error(body: Any, status: int) -> tuple[Evidence, int]:
    """What an error's body tells, and the status it stands for: an error may come inside a success."""
    if status >= _FIRST_ERROR:
        return gather(body), status
    if body is None or not is_error(body):
        return Evidence(), status
    evidence = gather(body)
    words = " ".join(evidence.codes).lower()
    if evidence.status is None and any(
        word in words for word in ("rate_limit", "usage_limit", "resource_exhausted")
    ):
        return evidence, _TOO_MANY_REQUESTS
    if evidence.status is None and "overloaded" in words:
        return evidence, 529
    return evidence, evidence.status or status


def _status(status_code: Any) -> int:
    try:
        status = int(status_code)
    except (TypeError, ValueError, OverflowError):
        return 0
    return status if 0 <= status <= 999 else 0  # noqa: PLR2004 - three digits


def _pairs(headers: Any) -> Iterable[Any]:
    if headers is None:
        return ()
    raw = getattr(headers, "raw", None)  # httpx: pairs of bytes, without the cost of decoding every one
    if isinstance(raw, list):
        return raw
    items = getattr(headers, "items", None)
    pairs = items() if callable(items) else headers
    return pairs if isinstance(pairs, Iterable) else ()


def _sorted(headers: Any, told: _Told | None = None) -> _Told:
    told = told or _Told()
    for pair in islice(_pairs(headers), _MAX_HEADERS):
        try:
            name, value = pair
            meaning = meaning_of(name)
        except (TypeError, ValueError, AttributeError):  # no pair, or a name that is no text
            continue
        if meaning is None:
            continue
        text = _text(value)
        if text is None:
            continue
        if meaning.marks:
            told.markers.add(meaning.name)
        if meaning.role == "quota":
            told.quota.append((meaning, text))
            if ";" in text:
                told.other.append((_OLD_POLICY, text))
        elif meaning.role != "date":
            told.other.append((meaning, text))
        elif told.date is None:
            told.date = text
    return told


# Drafts 2 to 6 put the policy behind the limit itself: "RateLimit-Limit: 100, 100;w=60".
_OLD_POLICY = Meaning("old_policy", "ratelimit-limit")


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value[:_MAX_VALUE]
    if isinstance(value, (list, tuple)):
        texts = [text for text in map(_text, value[:8]) if text is not None]
        return ", ".join(texts)[:_MAX_VALUE] if texts else None
    if isinstance(value, bytes):
        return value[:_MAX_VALUE].decode("latin-1")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)[:_MAX_VALUE] if abs(value) < 1e300 else None  # noqa: PLR2004 - huge ints cannot be printed
    return None


def _of_role(told: _Told, role: str) -> list[tuple[Meaning, str]]:
    return [(meaning, text) for meaning, text in told.other if meaning.role == role]


def _field_readings(told: _Told) -> list[QuotaReading]:
    states = [text for _, text in _of_role(told, "ietf")]
    policies = [text for role in ("policy", "old_policy") for _, text in _of_role(told, role)]
    readings = ietf_readings(states, policies) if states or policies else []
    limits = [first_count(text) for _, text in _of_role(told, "concurrent_limit")]
    if limits and limits[0]:
        used = next((first_count(text) for _, text in _of_role(told, "concurrent_used")), None)
        left = None if used is None else max(0.0, limits[0] - used)
        readings.append(QuotaReading("concurrent_requests", limits[0], left))
    return readings


def _signals(told: _Told, slots: Slots, clock: Clock) -> Signals:
    waits = [read_wait(text, meaning.scale, clock) for meaning, text in _of_role(told, "retry")]
    others = [seconds_until(text, clock) for _, text in _of_role(told, "retry_else")]
    codes = [text.split(":", 1)[0] for _, text in _of_role(told, "code")]
    if any(text == "rejected" for _, text in _of_role(told, "status")):
        codes.append("usage_limit")  # Anthropic: the plan's window is spent
    return Signals(
        waits=[wait for wait in waits if wait is not None],
        other_waits=[wait for wait in (*others, *slots.spent_shares()) if wait is not None],
        names=[text[:80] for _, text in _of_role(told, "named")],
        codes=codes,
    )


def _with_window(reading: QuotaReading, unit: str | None, window: float | None) -> QuotaReading:
    """A spent limit without a window gets the one that the body names (OpenRouter: free-models-per-day)."""
    if (
        window is None
        or reading.window is not None
        or reading.remaining != 0
        or unit not in (None, reading.unit)
    ):
        return reading
    return replace(reading, window=window)


def _fill(info: RateLimitInfo, readings: list[QuotaReading], status: int) -> None:
    info.quotas = tuple(readings)
    requests, tokens = _shortest(readings, "requests"), _shortest(readings, "tokens")
    if requests is not None:
        info.rpm_limit, info.rpm_remaining = _whole(requests.limit), _whole(requests.remaining)
        info.rpm_reset = None if requests.reset_after is None else info.timestamp + requests.reset_after
    if tokens is not None:
        info.tpm_limit, info.tpm_remaining = _whole(tokens.limit), _whole(tokens.remaining)
        info.tpm_reset = None if tokens.reset_after is None else info.timestamp + tokens.reset_after
    refusal = info.refusal
    info.retry_after = refusal.retry_after if refusal else None
    info.is_rate_limited = status == _TOO_MANY_REQUESTS or (refusal is not None and refusal.kind in _PACED)


def _shortest(readings: list[QuotaReading], unit: str) -> QuotaReading | None:
    best: QuotaReading | None = None
    for reading in readings:
        if reading.unit == unit and (best is None or _rank(reading) < _rank(best)):
            best = reading
    return best


def _rank(reading: QuotaReading) -> tuple[float, bool]:
    return (math.inf if reading.window is None else reading.window, reading.scope is not None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
