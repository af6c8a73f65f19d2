"""Which dialect a response speaks: the provider it gives away, and the headers that told each limit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.providers.dialects import FAMILIES, dialect_of
from adaptive_rate_limiter.providers.headers import layout_of, pairs_of

if TYPE_CHECKING:
    from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo

    Headers = tuple[tuple[str, str], ...]

__all__ = ["known_dialect", "tellers"]

FIELDS = "RateLimit"  # of the IETF
BODY = "the body"
_STARTS = tuple(re.compile(family.start) for family in FAMILIES)


def known_dialect(headers: Headers, url: str | None) -> str | None:
    """The name of a dialect that needs to be known by its host or by a header of its own; None for all others."""
    dialect = dialect_of(url or "", layout_of(pairs_of(headers)).marked)
    return None if dialect.name == "unknown" else dialect.name


def tellers(info: RateLimitInfo, headers: Headers, status: int, url: str | None) -> list[str]:
    """For each limit of `info` the family of headers that tells it, such as ``x-ratelimit-*``.

    A family tells what is read from its headers alone.
    """
    families: dict[str, list[tuple[str, str]]] = {}
    always = [(name, value) for name, value in headers if name.lower() == "date"]
    for name, value in headers:
        family = _family(name)
        if family is not None:
            families.setdefault(family, []).append((name, value))
    alone = {
        family: parse_response([*always, *told], None, status, url=url).quotas
        for family, told in families.items()
    }
    return [
        ", ".join(family for family, quotas in alone.items() if any(_same(quota, other) for other in quotas))
        or BODY
        for quota in info.quotas
    ]


def _family(name: str) -> str | None:
    name = name.lower().replace("_", "-")
    if name.removeprefix("x-") in {"ratelimit", "ratelimit-policy"}:
        return FIELDS
    found = next((found for start in _STARTS if (found := start.match(name))), None)
    if found:
        return found[0].replace("rate-limit", "ratelimit") + "*"
    return name if name.endswith("-concurrent-requests") else None


def _same(one: QuotaReading, other: QuotaReading) -> bool:
    figures = (
        (one.limit, other.limit),
        (one.remaining, other.remaining),
        (one.reset_after, other.reset_after),
    )
    return one.unit == other.unit and any(a is not None and a == b for a, b in figures)
