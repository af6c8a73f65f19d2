"""How each provider tells its limits and words its refusals. The forms are those of recorded responses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adaptive_rate_limiter.testing.admission import Standing
    from adaptive_rate_limiter.testing.gate import Verdict

    Standings = Mapping[str, Standing]
    Headers = dict[str, str]

Provider = Literal["openai", "azure", "anthropic", "groq", "ietf", "headerless"]
PROVIDERS: tuple[str, ...] = get_args(Provider)

ORGANIZATION = "org-emulated"
OPENAI_LIMITS = "https://platform.openai.com/account/rate-limits"
GROQ_LIMITS = "https://console.groq.com/docs/rate-limits"


@dataclass(frozen=True)
class Answer:
    """A response that is not streamed."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Dialect:
    headers: Callable[[Standings, str, float], Headers]
    """Of limits, the model and the wall clock."""
    refusal: Callable[[Verdict, str], Answer]
    """Of a verdict and the model."""
    processing: str | None = None
    """The header that tells for how many milliseconds a call was worked on."""


def go_duration(seconds: float, digits: int = 3) -> str:
    """As Go prints a time.Duration: 8.64s, 1h8m25.745s, 174ms. `digits` below a second are kept, the rest is cut."""
    nanos = int(round(seconds * 1e9, 3)) // 10 ** (9 - digits) * 10 ** (9 - digits)
    if nanos <= 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanos < min(size * 1_000, 1_000_000_000):
            return f"{_decimal(nanos, size)}{unit}"
    minutes, nanos = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    rest = f"{_decimal(nanos, 1_000_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{rest}"
    return f"{minutes}m{rest}" if minutes else rest


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    return f"{whole}.{part:0{len(str(size)) - 1}d}".rstrip("0").rstrip(".") if part else str(whole)


def _whole(seconds: float) -> str:
    return str(math.ceil(round(seconds, 9)))  # 10.000000000000002 s are ten seconds


def _retry_after(verdict: Verdict, *, millis: bool = False) -> Headers:
    wait = verdict.retry_after
    if wait is None or verdict.too_large:
        return {}
    fine = {"retry-after-ms": _whole(wait * 1000)} if millis else {}
    return {"retry-after": _whole(wait), **fine}


def _numbers(verdict: Verdict) -> tuple[int, int, int]:
    """Limit, used, requested."""
    rule = verdict.rule
    assert rule is not None
    limit = rule.limit.capacity if verdict.too_large else rule.limit.limit
    used = int(limit) - int(rule.limit.remaining(-math.inf))  # a part of a unit that came back is not told
    return int(limit), used, int(verdict.cost)


def _error(status: int, message: str, headers: Headers, **fields: str | None) -> Answer:
    return Answer(status, {"error": {"message": message, **fields}}, headers)


# openai and groq


def _six_names(standings: Standings, digits: int) -> Headers:
    headers = {}
    # The daily set takes the place of the one per minute, and nothing in the header says so.
    for unit, name in (("requests", "requests_per_day"), ("requests", "requests"), ("tokens", "tokens")):
        if name in standings and f"x-ratelimit-limit-{unit}" not in headers:
            limit, remaining, reset, _ = standings[name]
            headers[f"x-ratelimit-limit-{unit}"] = str(int(limit))
            headers[f"x-ratelimit-remaining-{unit}"] = str(int(remaining))
            headers[f"x-ratelimit-reset-{unit}"] = go_duration(reset, digits)
    return headers


def _openai_headers(standings: Standings, _model: str, _wall: float) -> Headers:
    return _six_names(standings, 3)


def _groq_headers(standings: Standings, _model: str, _wall: float) -> Headers:
    return _six_names(standings, 9)  # its floats shine through: 21.417999999s


PER_MINUTE = {
    "requests": ("requests", "requests per min (RPM)"),
    "requests_slice": ("requests", "requests per min (RPM)"),
    "requests_per_day": ("requests", "requests per day (RPD)"),
    "tokens": ("tokens", "tokens per min (TPM)"),
    "input_tokens": ("input_tokens", "input tokens per min (ITPM)"),
    "output_tokens": ("output_tokens", "output tokens per min (OTPM)"),
}


def _openai_refusal(verdict: Verdict, model: str) -> Answer:
    code = "rate_limit_exceeded"
    if verdict.rule is None:
        message = f"This request has been rate-limited. Your organization has reached the maximum of active requests for {model}."
        return _error(429, message, {}, type="requests", param=None, code=code)
    kind, per = PER_MINUTE[verdict.rule.name]
    limit, used, requested = _numbers(verdict)
    where = f"for {model} in organization {ORGANIZATION} on {per}: Limit {limit}"
    if verdict.too_large:
        cure = "The input or output tokens must be reduced in order to run successfully."
        message = (
            f"Request too large {where}, Requested {requested}. {cure} Visit {OPENAI_LIMITS} to learn more."
        )
        return _error(429, message, {}, type=kind, param=None, code=code)
    wait = go_duration(math.ceil((verdict.retry_after or 0.0) * 1000) / 1000)
    message = (
        f"Rate limit reached {where}, Used {used}, Requested {requested}. Please try again in {wait}. "
        f"Visit {OPENAI_LIMITS} to learn more."
    )
    return _error(429, message, _retry_after(verdict, millis=True), type=kind, param=None, code=code)


def _groq_refusal(verdict: Verdict, model: str) -> Answer:
    code = "rate_limit_exceeded"
    if verdict.rule is None:
        return _error(
            429, f"Too many concurrent requests for model `{model}`.", {}, type="requests", code=code
        )
    kind, per = PER_MINUTE[verdict.rule.name]
    limit, used, requested = _numbers(verdict)
    per = per.replace(" per min ", " per minute ")
    where = f"for model `{model}` in organization `{ORGANIZATION}` on {per}: Limit {limit}"
    if verdict.too_large:
        message = f"Request too large {where}, Requested {requested}, please reduce your message size and try again."
        return _error(413, f"{message} Visit {GROQ_LIMITS} for more information.", {}, type=kind, code=code)
    wait = go_duration(verdict.retry_after or 0.0, 9)
    message = (
        f"Rate limit reached {where}, Used {used}, Requested {requested}. Please try again in {wait}. "
        f"Visit {GROQ_LIMITS} for more information."
    )
    return _error(429, message, _retry_after(verdict), type=kind, code=code)


# azure


def _azure_headers(standings: Standings, model: str, _wall: float) -> Headers:
    headers = {
        "x-ratelimit-key": model,
        "x-ratelimit-abusepenalty-active": "False",
        "x-ms-is-spilled-over": "false",
    }
    for unit in ("requests", "tokens"):
        if unit in standings:
            limit, remaining, reset, window = standings[unit]
            headers[f"x-ratelimit-limit-{unit}"] = str(int(limit))
            headers[f"x-ratelimit-remaining-{unit}"] = str(int(remaining))
            headers[f"x-ratelimit-reset-{unit}"] = str(int(reset))
            headers[f"x-ratelimit-renewalperiod-{unit}"] = str(int(window))
    return headers


def _azure_refusal(verdict: Verdict, model: str) -> Answer:
    kind = "token" if verdict.rule and verdict.rule.unit != "requests" else "call"
    message = f"Your requests to {model} for {model} in East US have exceeded the {kind} rate limit for your current AIServices S0 pricing tier."
    if verdict.too_large:
        message += " The request is larger than the limit; please reduce it."
    elif verdict.retry_after is not None:
        message += f" Please retry after {_whole(verdict.retry_after)} seconds."
    return _error(429, message, _retry_after(verdict, millis=True), code="429")


# anthropic


def _instant(wall: float) -> str:
    return datetime.fromtimestamp(int(wall), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _anthropic_headers(standings: Standings, _model: str, wall: float) -> Headers:
    told = {name: standing for name, standing in standings.items() if name != "requests_per_day"}
    halves = [told[name] for name in ("input_tokens", "output_tokens") if name in told]
    if halves and "tokens" not in told:
        # The combined set: sums, and the earlier reset of the two.
        total, left, resets, windows = zip(*halves, strict=True)
        told["tokens"] = type(halves[0])(sum(total), sum(left), min(resets), windows[0])
    headers = {}
    for name, (limit, remaining, reset, _) in told.items():
        prefix = f"anthropic-ratelimit-{name.replace('_', '-')}"
        told_remaining = remaining if name == "requests" else min(limit, (remaining + 500) // 1000 * 1000)
        headers[f"{prefix}-limit"] = str(int(limit))
        headers[f"{prefix}-remaining"] = str(int(told_remaining))
        headers[f"{prefix}-reset"] = _instant(wall + reset)
    return headers


def anthropic_error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _anthropic_refusal(verdict: Verdict, _model: str) -> Answer:
    headers = {"x-should-retry": "true", **_retry_after(verdict)}
    details = "For details, refer to: https://docs.claude.com/en/api/rate-limits."
    if verdict.rule is None:
        message = f"Number of concurrent connections has exceeded your rate limit. {details}"
    elif verdict.rule.unit == "requests":
        span = "daily" if verdict.rule.name == "requests_per_day" else "per-minute"
        message = f"Number of requests has exceeded your {span} rate limit. {details}"
    else:
        unit = verdict.rule.unit.replace("_", " ")
        message = (
            f"This request would exceed the rate limit for your organization ({ORGANIZATION}) of "
            f"{int(verdict.rule.limit.limit):,} {unit} per minute. {details} Please reduce the prompt length or "
            "the maximum tokens requested, or try again later."
        )
    return Answer(429, anthropic_error("rate_limit_error", message), headers)


# ietf, and nothing at all


def _ietf_headers(standings: Standings, _model: str, _wall: float) -> Headers:
    if not standings:
        return {}
    policies = [f'"{name}";q={int(s.limit)};w={max(1, round(s.window))}' for name, s in standings.items()]
    states = [f'"{name}";r={int(s.remaining)};t={_whole(s.reset_after)}' for name, s in standings.items()]
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(states)}


def _ietf_refusal(verdict: Verdict, _model: str) -> Answer:
    body: dict[str, Any] = {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "violated-policies": [verdict.refused_by],
    }
    status = 429
    if verdict.too_large:
        status = 413
        body = {
            "type": "about:blank",
            "title": "Content Too Large",
            "violated-policies": [verdict.refused_by],
        }
    return Answer(status, {"status": status, **body}, _retry_after(verdict), "application/problem+json")


def _no_headers(_standings: Standings, _model: str, _wall: float) -> Headers:
    return {}


def _silent_refusal(verdict: Verdict, _model: str) -> Answer:
    if verdict.too_large:
        return _error(413, "Request too large.", {}, type="invalid_request_error", param=None, code=None)
    return _error(429, "Too many requests.", {}, type="rate_limit_error", param=None, code=None)


def _silent_anthropic_refusal(verdict: Verdict, _model: str) -> Answer:
    if verdict.too_large:
        return Answer(413, anthropic_error("request_too_large", "Request too large."), {})
    return Answer(429, anthropic_error("rate_limit_error", "Too many requests."), {})


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(_openai_headers, _openai_refusal, processing="openai-processing-ms"),
    "azure": Dialect(_azure_headers, _azure_refusal, processing="x-envoy-upstream-service-time"),
    "anthropic": Dialect(_anthropic_headers, _anthropic_refusal),
    "groq": Dialect(_groq_headers, _groq_refusal),
    "ietf": Dialect(_ietf_headers, _ietf_refusal),
    "headerless": Dialect(_no_headers, _silent_refusal),
}


def dialect(provider: str, *, headers: bool = True) -> Dialect:
    """Without headers a provider tells neither limit nor time, in its bodies neither."""
    if provider not in DIALECTS:
        raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, not {provider!r}")
    if headers:
        return DIALECTS[provider]
    refusal = _silent_anthropic_refusal if provider == "anthropic" else _silent_refusal
    return Dialect(_no_headers, refusal)
