"""What a provider's response says about its limits, as plain values."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

__all__ = ["QuotaReading", "RateLimitInfo", "Refusal", "RefusalKind"]


class RefusalKind(str, Enum):
    """Why a provider refused, told apart because each kind asks for another behaviour."""

    RATE_LIMIT = "rate_limit"  # too fast: pace
    CONCURRENCY = "concurrency"  # too many at once: cured by finishing calls, not by time
    OVERLOAD = "overload"  # the provider's trouble: back off, learn nothing of one's own limit
    QUOTA_EXHAUSTED = "quota_exhausted"  # a day's, month's or billing quota is spent
    REQUEST_TOO_LARGE = "request_too_large"  # this request alone is above the whole limit
    NOT_ENTITLED = "not_entitled"  # this key may not do this at all


class QuotaReading(NamedTuple):
    """One limit as one response tells it. What was not told is None.

    `unit` is one of requests, tokens, input_tokens, output_tokens, images, audio_seconds, characters,
    pages, or the provider's own word. `window` and `reset_after` are seconds; `reset_after` counts from the
    moment of the response and is never negative. `scope` tells apart several limits on one unit
    (``"project"``, say).
    """

    unit: str
    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None
    window: float | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal, its kind, and the seconds after which to try again (None: not told).

    `retryable` means that the same request can pass later without anyone doing anything.
    `unit` is the unit of the limit that was hit, where the response names it; `limit` and `window` (seconds) are
    its figures, where words name them beyond doubt.
    """

    kind: RefusalKind
    retry_after: float | None = None
    retryable: bool = True
    unit: str | None = None
    limit: float | None = None
    window: float | None = None


@dataclass(slots=True)
class RateLimitInfo:
    """A response's limits: `quotas` and `refusal` in full, and the common four figures by name.

    `rpm_*` are the requests and `tpm_*` the tokens figures of the shortest window told; resets are absolute
    Unix seconds, `retry_after` is seconds. `processing`: seconds that the provider worked on the call. None means
    that the response did not say.
    """

    rpm_remaining: int | None = None
    rpm_limit: int | None = None
    rpm_reset: float | None = None
    tpm_remaining: int | None = None
    tpm_limit: int | None = None
    tpm_reset: float | None = None
    retry_after: float | None = None
    is_rate_limited: bool = False
    timestamp: float = field(default_factory=time.time)
    quotas: tuple[QuotaReading, ...] = ()
    refusal: Refusal | None = None
    processing: float | None = None
