"""A response -> what it says about limits. Never raises, whatever it is given."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.providers.bodies import Evidence, gather, is_error
from adaptive_rate_limiter.providers.dialects import dialect_of
from adaptive_rate_limiter.providers.fields import ietf_readings
from adaptive_rate_limiter.providers.headers import layout_of, pairs_of, text_of
from adaptive_rate_limiter.providers.readings import (
    Slot,
    first_count,
    gathered,
    merged,
    readings_of,
    spent_shares,
)
from adaptive_rate_limiter.providers.refusals import Signals, judge, read_wait
from adaptive_rate_limiter.providers.times import DAY, Clock, seconds_until
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.providers.headers import Layout, Pairs
    from adaptive_rate_limiter.providers.names import Meaning

__all__ = ["parse_response"]

_TOO_MANY_REQUESTS = 429
_FIRST_ERROR = 400
LONGEST_NUMBER = 32  # bytes
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


def read(headers: Any, body: Any, status_code: Any, url: Any) -> RateLimitInfo:
    """`parse_response` without its safety net."""
    now = time.time()
    pairs = pairs_of(headers)
    status = _status(status_code)
    evidence = None
    if status >= _FIRST_ERROR or (body is not None and is_error(body)):
        evidence, status = _error(body, status)
        for quoted in evidence.headers[:2]:
            pairs = pairs + pairs_of(quoted)
    layout = layout_of(pairs)
    if evidence is None and not layout.limits and not layout.other:
        return RateLimitInfo(timestamp=now, processing=_processing(layout, pairs))
    clock = Clock(None if layout.date is None else pairs[layout.date][1])
    dialect = dialect_of(str(url) if url is not None else "", layout.marked)
    slots, rich = gathered(layout, pairs, clock)
    readings = readings_of(slots, dialect, refused=status == _TOO_MANY_REQUESTS)
    other = [(meaning, text_of(pairs[at][1])) for meaning, at in layout.other] if layout.other else []
    if rich or other or not layout.distinct:
        readings = merged([*readings, *_field_readings(other, rich)])
    refusal = None
    if evidence is not None and status >= _FIRST_ERROR:
        signals = _signals(other, slots, clock)
        refusal, named = judge(status, evidence, signals, readings, clock=clock, zone=dialect.zone)
        readings = [_with_window(r, named.unit, named.window) for r in readings]
    return _info(now, readings, refusal, status, _processing(layout, pairs))


def _processing(layout: Layout, pairs: Pairs) -> float | None:
    if layout.processing is None:
        return None
    meaning, at = layout.processing
    try:
        seconds = float(pairs[at][1][:LONGEST_NUMBER]) * meaning.scale
    except ValueError:
        return None
    return seconds if 0 <= seconds <= DAY else None


def _error(body: Any, status: int) -> tuple[Evidence, int]:
    """What an error's body tells, and the status it stands for: an error may come inside a success."""
    evidence = gather(body)
    if status >= _FIRST_ERROR:
        return evidence, status
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


def _of_role(other: list[tuple[Meaning, str]], role: str) -> list[tuple[Meaning, str]]:
    return [(meaning, text) for meaning, text in other if meaning.role == role]


def _field_readings(other: list[tuple[Meaning, str]], rich: list[str]) -> list[QuotaReading]:
    states = [text for _, text in _of_role(other, "ietf")]
    # Drafts 2 to 6 put the policy behind the limit itself: "RateLimit-Limit: 100, 100;w=60".
    policies = [text for _, text in _of_role(other, "policy")] + rich
    readings = ietf_readings(states, policies) if states or policies else []
    limits = [first_count(text) for _, text in _of_role(other, "concurrent_limit")]
    if limits and limits[0]:
        used = next((first_count(text) for _, text in _of_role(other, "concurrent_used")), None)
        left = None if used is None else max(0.0, limits[0] - used)
        readings.append(QuotaReading("concurrent_requests", limits[0], left))
    return readings


def _signals(other: list[tuple[Meaning, str]], slots: Sequence[Slot], clock: Clock) -> Signals:
    waits = [read_wait(text, meaning.scale, clock) for meaning, text in _of_role(other, "retry")]
    others = [seconds_until(text, clock) for _, text in _of_role(other, "retry_else")]
    codes = [text.split(":", 1)[0] for _, text in _of_role(other, "code")]
    if any(text == "rejected" for _, text in _of_role(other, "status")):
        codes.append("usage_limit")  # Anthropic: the plan's window is spent
    return Signals(
        waits=[wait for wait in waits if wait is not None],
        other_waits=[wait for wait in (*others, *spent_shares(slots)) if wait is not None],
        names=[text[:80] for _, text in _of_role(other, "named")],
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
    return reading._replace(window=window)


def _info(
    now: float,
    readings: list[QuotaReading],
    refusal: Refusal | None,
    status: int,
    processing: float | None,
) -> RateLimitInfo:
    requests = tokens = _UNTOLD
    for reading in readings:
        unit = reading.unit
        if unit == "requests":
            requests = reading if requests is _UNTOLD else min(requests, reading, key=_rank)
        elif unit == "tokens":
            tokens = reading if tokens is _UNTOLD else min(tokens, reading, key=_rank)
    _, rpm_limit, rpm_remaining, rpm_reset, _, _ = requests
    _, tpm_limit, tpm_remaining, tpm_reset, _, _ = tokens
    return RateLimitInfo(
        None if rpm_remaining is None else int(rpm_remaining),
        None if rpm_limit is None else int(rpm_limit),
        None if rpm_reset is None else now + rpm_reset,
        None if tpm_remaining is None else int(tpm_remaining),
        None if tpm_limit is None else int(tpm_limit),
        None if tpm_reset is None else now + tpm_reset,
        None if refusal is None else refusal.retry_after,
        status == _TOO_MANY_REQUESTS or (refusal is not None and refusal.kind in _PACED),
        now,
        tuple(readings),
        refusal,
        processing,
    )


_UNTOLD = QuotaReading("")


def _rank(reading: QuotaReading) -> tuple[float, bool]:
    return (math.inf if reading.window is None else reading.window, reading.scope is not None)
