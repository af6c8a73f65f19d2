"""Why a reply refuses, and when to come back: a table of rules, first match wins."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.quota import CONCURRENT_REQUESTS
from adaptive_rate_limiter.providers.phrases import Named, named_limit, plain_words, waits_in
from adaptive_rate_limiter.providers.times import (
    DAY,
    FIRST_INSTANT,
    HOUR,
    Clock,
    duration,
    from_number,
    number,
    seconds_until,
    values,
)
from adaptive_rate_limiter.types import QuotaReading, Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.providers.bodies import Evidence

__all__ = ["Signals", "judge", "read_wait"]

_RATE = RefusalKind.RATE_LIMIT
_CONCURRENCY = RefusalKind.CONCURRENCY
_OVERLOAD = RefusalKind.OVERLOAD
_QUOTA = RefusalKind.QUOTA_EXHAUSTED
_TOO_LARGE = RefusalKind.REQUEST_TOO_LARGE
_NOT_ENTITLED = RefusalKind.NOT_ENTITLED


@dataclass(frozen=True, slots=True)
class Rule:
    """A refusal recognised by the words of its body. `codes` are machine words, `text` sentences; either suffices."""

    kind: RefusalKind
    retryable: bool
    codes: re.Pattern[str] | None
    text: re.Pattern[str] | None
    statuses: frozenset[int]


def _rule(kind: RefusalKind, *, retryable: bool, statuses: set[int], codes: str = "", text: str = "") -> Rule:
    return Rule(
        kind,
        retryable,
        re.compile(codes) if codes else None,
        re.compile(text, re.MULTILINE) if text else None,
        frozenset(statuses),
    )


_REFUSING = {402, 403, 412, 413, 426, 429, 498, 503, 529}
_ANY = _REFUSING | {400, 401, 500, 502, 504, 520, 521, 522, 523, 524}

# Codes are matched in lower case, each on a line of its own; sentences as `plain_words` leaves them.
RULES: tuple[Rule, ...] = (
    # Money: nothing comes back by itself.
    _rule(
        _QUOTA, retryable=False, statuses=_ANY - {413},
        codes=r"(?:insufficient|not_enough)_(?:quota|balance|funds|credits?)|billing|payment_required|exceeded_current_quota|overdue"
        r"|arrear|credits?_?(?:exhausted|depleted|error)|budget_exceeded|service_?quota_?exceeded|^1113$",
        text=r"(?:insufficient|exhausted|not enough) (?:quota|balance|funds?|credits?)"
        r"|balance (?:is )?(?:too low|insufficient|exhausted|depleted|negative|not)"
        r"|(?:out of|no|not enough|insufficient|more|(?:exceeded|exhausted|depleted|used(?: up)?|ran out of|run out of)"
        r"(?: all| any| your| of| the| monthly| included| available| free| prepaid| remaining){0,5}) credits\b"
        r"|credits? (?:is |are |has |have |balance ){0,2}(?:been )?(?:exhausted|depleted|used up|expired|insufficient)"
        r"|(?:spend|spending|billing|budget) (?:hard )?(?:limit|cap)|billing (?:hard limit|not active)"
        r"|budget (?:has been |is |was )?exceeded|key limit exceeded \(total|no payment method"
        r"|have any credits|has any credits|credit limit exceeded|account is not active|payment (?:is )?required|余额不足|欠费|充值",
    ),
    _rule(
        _NOT_ENTITLED, retryable=False, statuses=_REFUSING,
        codes=r"free_?tier_?error|not_entitled|model_not_allowed|permission_(?:denied|error)|access_?denied|^13(?:09|11)$",
        text=r"extra usage is required|not have access|only be (?:used|accessed|called) (?:from|within|in|inside|by|with|through|via)\b"
        r"|not (?:available|supported|allowed|included|enabled|permitted) (?:on|for|in|with|under|by|from) (?:your|this|the)\b"
        r"|(?:plan|tier|subscription) (?:does not|doesn't|do not) (?:include|support|allow)|have a free (?:quota )?tier"
        r"|requires? an? [\w ]{0,30}(?:subscription|plan)\b|subscription [\w ]{0,20}(?:expired|inactive)"
        r"|permission denied|(?:unsupported|unauthori[sz]ed) client|not authori[sz]ed to"
        r"|or newer is required|无权|套餐.{0,10}(?:不支持|未包含|到期|过期)",
    ),
    _rule(
        _TOO_LARGE, retryable=False, statuses={400, 413, 429},
        codes=r"request_too_large|payload_too_large|rate_limit_request_too_large",
        text=r"request (?:is )?too large|payload too large|single request (?:exceeds|is larger)",
    ),
    _rule(
        _CONCURRENCY, retryable=True, statuses={403, 409, 429, 503},
        codes=r"concurren|max_parallel|too_many_connections|in_?flight",
        # LiteLLM names all its limits at once, and what is used of each.
        text=r"concurren|in flight|simultaneous|current max parallel requests: (\d+), max parallel requests: \1\b"
        r"|(?<!/ max )parallel requests?\b(?!: ?\d)|active (?:requests|jobs|connections|sessions|streams)"
        r"|too many (?:open )?connections|running, \d+ pending|in progress batches|并发",
    ),
    _rule(
        _OVERLOAD, retryable=True, statuses=_REFUSING | {500, 502, 504},
        codes=r"overload|system_busy|server_busy|capacity_exceeded|over_capacity|queue_exceeded|engine_busy"
        r"|service_?unavailable|model_?not_?ready|^13(?:05|12)$",
        text=r"overload|(?:server|service|system|engine|model|we) (?:is |are |currently |temporarily |too |still ){0,3}"
        r"(?:busy|unavailable|under heavy|at capacity|experiencing (?:high|heavy))"
        r"|(?:at|over|out of|insufficient|no|not enough|limited|reached(?: its)?) capacity"
        r"|capacity (?:temporarily )?(?:exceeded|constraints?)"
        r"|(?:high|heavy|unusual(?:ly)? high) (?:demand|load|traffic)|rate limited upstream|^ ?provider returned error"
        r"|upstream (?:connect|error|rate)|^ ?resource exhausted[.,] please try again later"
        r"|繁忙|访问量过大|过载|拥挤",
    ),
    # A window of hours, by its code or by name without a length.
    _rule(
        _QUOTA, retryable=True, statuses={400, 401, 403, 429},
        codes=r"usage_?limit|^quota_?exceeded$|^13(?:04|08|10|1[6-9]|2[01])$",
        text=r"(?:hourly usage|session|weekly|monthly|daily|plan) (?:usage )?(?:limit|quota|allowance)|usage limit (?:has been )?reached"
        r"|reached your (?:specified )?(?:api )?usage limits?|regain access|上限。|额度已?用完",
    ),
    _rule(_QUOTA, retryable=True, statuses={403}, codes=r"quota", text=r"\bquotas?\b"),
)  # fmt: skip

# What a status means when the body tells nothing finer.
BY_STATUS: dict[int, tuple[RefusalKind, bool]] = {
    402: (_QUOTA, False),
    403: (_NOT_ENTITLED, False),
    413: (_TOO_LARGE, False),
    429: (_RATE, True),
    498: (_OVERLOAD, True),  # Groq: flex capacity exceeded
    503: (_OVERLOAD, True),
    529: (_OVERLOAD, True),  # Anthropic
}
# Words that make a refusal of pace out of another client or server error.
_PACE = re.compile(r"throttl|rate_?limit|too_?many_?requests|resource_?exhausted|slow_?down")
# OpenAI writes this for spent money, Google for every quota it has.
_OPENAI_QUOTA = re.compile(r"exceeded your current quota, please check your plan and billing")
_GOOGLE = re.compile(r"resource_?exhausted|google|quota exceeded for metric")


@dataclass(slots=True)
class Signals:
    """What the headers tell of a refusal, beside the readings."""

    waits: list[float]
    other_waits: list[float]  # only when nothing better is told
    names: list[str]  # headers that name the limit in words
    codes: list[str]


def read_wait(text: str, scale: float, clock: Clock) -> float | None:
    """Seconds of a retry-after value in any form, or None; `scale` applies to bare numbers."""
    return next(
        (wait for wait in (_wait(piece, scale, clock) for piece in values(text)) if wait is not None), None
    )


def _wait(text: str, scale: float, clock: Clock) -> float | None:
    value = number(text)
    if value is None:
        return seconds_until(text, clock)
    return from_number(value if value >= FIRST_INSTANT else value * scale, clock)


def judge(
    status: int,
    evidence: Evidence,
    signals: Signals,
    readings: Sequence[QuotaReading],
    *,
    clock: Clock,
    zone: float | None,
) -> tuple[Refusal | None, Named]:
    """The refusal that a reply of this status expresses, and the limit it names."""
    # The status's own phrase names no limit.
    sentences = [line for line in evidence.sentences if line.strip(" .").lower() != "too many requests"]
    text = "\n".join([*sentences, *evidence.quotas])[:8_000]
    codes = "\n".join([*evidence.codes, *signals.codes]).lower()
    named = named_limit("\n".join([text, *(f"{name} limit" for name in signals.names)]), evidence.sizes)
    spent = _binding(readings)
    zero = 0 in evidence.sizes or (_limit_of_zero(readings) and not signals.waits)
    verdict = _kind(status, codes, text, named, zero=zero, own=bool(spent or (named.unit and named.window)))
    if verdict is None:
        return None, named
    kind, retryable = verdict
    if kind in (_TOO_LARGE, _NOT_ENTITLED) or not retryable:
        return _refusal(kind, None, named, retryable=False), named
    waits = [*signals.waits, *_body_waits(evidence, clock, zone), *waits_in(text, clock, zone)]
    if evidence.quotas and (named.window or 0) >= DAY:
        waits, spent = [], []  # Google's RetryInfo speaks for the minute; it does not bring the day back
    elif kind not in (_RATE, _QUOTA):
        spent = []
    wait = _finest(waits) or _longest(signals.other_waits, spent, waits)
    if kind is _RATE and _renews_slowly(named, spent, wait):
        kind = _QUOTA
    elif kind is _RATE and {reading.unit for reading in spent} == {CONCURRENT_REQUESTS}:
        kind = _CONCURRENCY
    if named.unit is None and len(spent) == 1:
        named = replace(named, unit=spent[0].unit)
    return _refusal(kind, wait, named, retryable=True), named


def _refusal(kind: RefusalKind, wait: float | None, named: Named, *, retryable: bool) -> Refusal:
    return Refusal(kind, wait, retryable, named.unit, named.limit, named.window)


def _kind(
    status: int, codes: str, text: str, named: Named, *, zero: bool, own: bool
) -> tuple[RefusalKind, bool] | None:
    """The kind, and whether time cures it; `zero`: the limit is none; `own`: a limit of one's own was hit."""
    words = plain_words(text)
    if status == 429 and (zero or named.zero):  # noqa: PLR2004 - HTTP's word for too many requests
        return _NOT_ENTITLED, False
    if named.oversized and status in (400, 413, 429):
        return _TOO_LARGE, False
    lines = codes.splitlines()
    google = _GOOGLE.search(codes) or _GOOGLE.search(text.lower())
    if _OPENAI_QUOTA.search(words) and not google and status in _REFUSING:
        return _QUOTA, False
    for rule in RULES:
        if rule.kind is _QUOTA and rule.retryable and (named.window or HOUR) < HOUR:
            continue  # the word quota over a minute: pace
        said = None if rule.kind is _OVERLOAD and own and status == 429 else rule.text  # noqa: PLR2004 - as above
        if status in rule.statuses and (
            (rule.codes and any(rule.codes.search(line) for line in lines)) or (said and said.search(words))
        ):
            return rule.kind, rule.retryable
    pace = _PACE.search(codes) or "rate limit" in words or (status == 403 and named.unit and named.window)  # noqa: PLR2004
    if pace and status in _ANY - {401, 429, 503, 529}:
        return (_TOO_LARGE, False) if status == 413 else (_RATE, True)  # noqa: PLR2004 - HTTP
    return BY_STATUS.get(status)


def _limit_of_zero(readings: Sequence[QuotaReading]) -> bool:
    return any(reading.limit == 0 for reading in readings)


def _body_waits(evidence: Evidence, clock: Clock, zone: float | None) -> list[float]:
    """The waits of a body's fields; an instant counts only where no length is told, for it needs a common clock."""
    lengths: list[float | None] = []
    instants: list[float | None] = []
    for text, scale in evidence.waits[:16]:
        value = number(text)
        if (value is not None and value < FIRST_INSTANT) or duration(text) is not None:
            lengths.append(read_wait(text, scale, clock))
        else:
            instants.append(seconds_until(text, clock, zone))
    return [wait for wait in lengths if wait is not None] or [wait for wait in instants if wait is not None]


def _binding(readings: Sequence[QuotaReading]) -> list[QuotaReading]:
    """The limits with nothing left. Anthropic's sum of tokens resets with its earlier half: the halves count."""
    halves = any(reading.unit in ("input_tokens", "output_tokens") for reading in readings)
    return [r for r in readings if r.remaining == 0 and not (halves and r.unit == "tokens")]


def _finest(waits: list[float]) -> float | None:
    """The longest wait told, in its finest spelling: 0.174 rather than 1, 48.94 rather than 48; never a zero beside more."""
    longest = max(waits, default=0.0)
    if not longest:
        return None
    finer = [wait for wait in waits if 0 < longest - wait < 1 and wait > 0 and wait != int(wait)]
    return max(finer) if finer and longest == int(longest) else longest


def _longest(others: list[float], spent: list[QuotaReading], told: list[float]) -> float | None:
    resets = [reading.reset_after for reading in spent if reading.reset_after is not None]
    return max([*others, *resets, *told], default=None)


def _renews_slowly(named: Named, spent: list[QuotaReading], wait: float | None) -> bool:
    windows = [named.window or 0.0, wait or 0.0, *(reading.window or 0.0 for reading in spent)]
    return max(windows) > HOUR
