"""What it costs to read one response's headers, as a caller with httpx sees it: CPU microseconds.

Every response is built anew outside of the measured time, with its own date, counts and resets, as a network would
give it: nothing that was read before can be looked up. The sets take turns, and the quickest of the repeats counts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx

from adaptive_rate_limiter.providers import parse_response

RESPONSES = 20  # in one measurement: few enough to be in the processor's cache, as what has just come in is
REPEATS = 200
SENT = datetime(2025, 3, 18, 10, 39, 14, tzinfo=timezone.utc)

# What a success brings beside its limits.
COMMON = {
    "content-type": "application/json",
    "transfer-encoding": "chunked",
    "connection": "keep-alive",
    "cf-cache-status": "DYNAMIC",
    "cf-ray": "92241ab2ce5a3b5d-SJC",
    "server": "cloudflare",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "x-request-id": "req_0123456789abcdef",
    "alt-svc": 'h3=":443"; ma=86400',
    "vary": "Accept-Encoding",
}  # fmt: skip


def nothing(number: int) -> dict[str, str]:
    return {"date": format_datetime(SENT + timedelta(seconds=number), usegmt=True), **COMMON}


def openai(number: int) -> dict[str, str]:
    """Buckets that refill within a minute; a reset is the time until they are full."""
    told = nothing(number) | {"openai-version": "2020-10-01", "openai-processing-ms": "533"}
    for unit, limit, used in (("requests", 10_000, 1 + number), ("tokens", 200_000, 33 + 70 * number)):
        told[f"x-ratelimit-limit-{unit}"] = str(limit)
        told[f"x-ratelimit-remaining-{unit}"] = str(limit - used)
        told[f"x-ratelimit-reset-{unit}"] = _go_duration(60 * used / limit)
    return told


def anthropic(number: int) -> dict[str, str]:
    """Four limits; a reset is an instant in whole seconds."""
    told = nothing(number)
    limits = (("requests", 4000), ("tokens", 480_000), ("input-tokens", 400_000), ("output-tokens", 80_000))
    for ahead, (unit, limit) in enumerate(limits):
        told[f"anthropic-ratelimit-{unit}-limit"] = str(limit)
        told[f"anthropic-ratelimit-{unit}-remaining"] = str(limit - 1 - number)
        reset = SENT + timedelta(seconds=number + ahead)
        told[f"anthropic-ratelimit-{unit}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    return told


def _go_duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


SETS = {
    "OpenAI, 20 headers, 6 of limits": (openai, "https://api.openai.com/v1/chat/completions"),
    "Anthropic, 24 headers, 12 of limits": (anthropic, "https://api.anthropic.com/v1/messages"),
    "12 headers, none of limits": (nothing, "https://api.example.com/v1/chat/completions"),
}


def measure() -> dict[str, float]:
    """Microseconds for one response of each set."""
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(REPEATS):
        for name, (made, url) in SETS.items():
            seen[name].append(_microseconds([_as_received(made(n)) for n in range(RESPONSES)], url))
    return {name: min(values) for name, values in seen.items()}


def _as_received(told: dict[str, str]) -> httpx.Headers:
    return httpx.Headers([(name.encode(), value.encode()) for name, value in told.items()])


def _microseconds(responses: list[httpx.Headers], url: str) -> float:
    started = time.process_time()
    for headers in responses:
        parse_response(headers, None, 200, url=url)
    return (time.process_time() - started) / len(responses) * 1e6


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{value:6.1f}  {name}")
