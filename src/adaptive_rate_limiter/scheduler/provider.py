"""A user's provider: what it knows is used, what it does wrong is logged and goes no further."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import BucketNotFoundError
from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.providers.headers import pairs_of, text_of
from adaptive_rate_limiter.scheduler.line import NOT_KNOWN_YET, Place
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from adaptive_rate_limiter.protocols import DiscoveredBucket, ProviderInterface, RequestMetadata
    from adaptive_rate_limiter.scheduler.run import Run

__all__ = ["Provider", "readings_of"]

logger = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds, the default timeout of `discover_limits`; what takes longer has failed
LOOKUP_PATIENCE = 1.0  # seconds to wait for a bucket's name; the mode's own bucket serves from then on
MOST_BUCKETS = 10_000  # of the models whose bucket is kept in mind
MINUTE = 60.0
FIRST_ERROR = 400
FIRST_INSTANT, FIRST_MILLISECOND = (
    1e9,
    1e11,
)  # a reset from there on is a Unix time, in seconds or milliseconds


@dataclass(slots=True)
class Asked:
    """A question for a bucket that is not answered yet, since `at` in the time of its event loop."""

    task: asyncio.Task[str | BucketNotFoundError]
    at: float
    is_reported: bool = False


class Provider:
    """`provider`, asked and believed with care."""

    def __init__(self, provider: ProviderInterface) -> None:
        self._provider = provider
        self._reported: set[str] = set()
        self._buckets: dict[tuple[str, str], str] = {}
        self._asked: dict[tuple[str, str], Asked] = {}

    def parse(
        self, headers: Any, body: Any, status_code: int, *, url: Any = None, model: str | None = None
    ) -> RateLimitInfo:
        """`Limiter(parse=…)`: the provider's reading. What kind of refusal it is, our own rules say better."""
        named = {text_of(name).lower(): text_of(value) for name, value in pairs_of(headers)}
        ours = partial(parse_response, headers, body, status_code, url=url, model=model)
        try:
            told = self._provider.parse_rate_limit_response(
                named, body if isinstance(body, dict) else None, status_code
            )
            return replace(told, quotas=readings_of(told), refusal=_refusal_of(told, status_code, ours))
        except Exception:  # noqa: BLE001 - somebody else's code
            self._report("parse_rate_limit_response")
            return ours()

    async def discover(self, tell: Callable[[str, Iterable[QuotaReading]], object]) -> None:
        """Ask for the limits, and `tell` those of each bucket."""
        try:
            found = await asyncio.wait_for(self._provider.discover_limits(), PATIENCE)
            for bucket_id, bucket in found.items():
                tell(bucket_id, _readings_of_bucket(bucket))
        except Exception:  # noqa: BLE001 - somebody else's code
            self._report("discover_limits")

    async def bucket_for(self, metadata: RequestMetadata, instead: str, run: Run, patience: float) -> str:
        """The bucket of a request; `instead`, where the provider fails or takes too long to say.

        Raises BucketNotFoundError if the provider does.
        """
        key = (metadata.model_id, metadata.resource_type)
        known = self._buckets.get(key)
        if known is not None:
            return known
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = Asked(asyncio.create_task(self._ask(key, instead)), run.loop.time())
            run.keep(asked.task)
        left = asked.at + LOOKUP_PATIENCE - run.loop.time()  # who comes later waits no longer than the first
        if left > 0:
            with Place(run.line, NOT_KNOWN_YET):
                await asyncio.wait({asked.task}, timeout=min(left, patience))
        if not asked.task.done() or asked.task.cancelled():
            self._report_slow(key, asked, instead)
            return instead
        answer = asked.task.result()
        if isinstance(answer, BucketNotFoundError):
            raise BucketNotFoundError(answer.bucket_id) from answer
        return answer

    async def _ask(self, key: tuple[str, str], instead: str) -> str | BucketNotFoundError:
        try:
            bucket_id = await asyncio.wait_for(self._provider.get_bucket_for_model(*key), PATIENCE)
            if not isinstance(bucket_id, str) or not bucket_id:
                raise TypeError(f"a bucket must be a name, got {bucket_id!r}")  # noqa: TRY301 - reported below
        except BucketNotFoundError as unknown:
            return unknown
        except Exception:  # noqa: BLE001 - somebody else's code
            self._report("get_bucket_for_model")
            return instead
        finally:
            del self._asked[key]
        if len(self._buckets) >= MOST_BUCKETS:
            self._buckets.clear()
        self._buckets[key] = bucket_id
        return bucket_id

    def _report_slow(self, key: tuple[str, str], asked: Asked, instead: str) -> None:
        level = logging.DEBUG if asked.is_reported else logging.WARNING
        asked.is_reported = True
        logger.log(
            level, "get_bucket_for_model(%r, %r) takes long; %s serves until it is done", *key, instead
        )

    def _report(self, method: str) -> None:
        """The first failure of each method aloud; it may come with every request."""
        level = logging.DEBUG if method in self._reported else logging.WARNING
        self._reported.add(method)
        logger.log(level, "%s of provider %r failed", method, self._provider, exc_info=True)


def readings_of(info: RateLimitInfo) -> tuple[QuotaReading, ...]:
    """The limits of an info that was filled by hand: `rpm_*` and `tpm_*` are per minute."""
    if info.quotas:
        return tuple(map(_checked, info.quotas))
    both = (
        _reading("requests", info.rpm_limit, info.rpm_remaining, info.rpm_reset),
        _reading("tokens", info.tpm_limit, info.tpm_remaining, info.tpm_reset),
    )
    return tuple(reading for reading in both if reading is not None)


def _checked(reading: QuotaReading) -> QuotaReading:
    """A reading that somebody else made: what is no sound number in it was not told."""
    if not isinstance(reading, QuotaReading) or not isinstance(reading.unit, str):
        raise TypeError(f"quotas must be of QuotaReading, got {reading!r}")
    limit, remaining, reset_after, window = map(_number, reading[1:5])
    scope = reading.scope if isinstance(reading.scope, str) else None
    return QuotaReading(reading.unit, limit, remaining, reset_after, window, scope)


def _refusal_of(told: RateLimitInfo, status_code: int, ours: Callable[[], RateLimitInfo]) -> Refusal | None:
    """The refusal that an info tells, of a kind that our own reading knows better."""
    refusal, after = told.refusal, _number(told.retry_after)
    if refusal is not None:
        if not isinstance(refusal, Refusal):
            raise TypeError(f"refusal must be a Refusal, got {refusal!r}")
        return replace(refusal, kind=RefusalKind(refusal.kind), retry_after=_number(refusal.retry_after))
    if told.is_rate_limited or status_code >= FIRST_ERROR:
        refusal = ours().refusal
    if refusal is None and told.is_rate_limited:
        refusal = Refusal(RefusalKind.RATE_LIMIT)
    return replace(refusal, retry_after=after) if refusal is not None and after else refusal


def _readings_of_bucket(bucket: DiscoveredBucket) -> tuple[QuotaReading, ...]:
    both = (
        _reading("requests", bucket.rpm_limit, bucket.rpm_remaining, None),
        _reading("tokens", bucket.tpm_limit, bucket.tpm_remaining, None),
    )
    return tuple(reading for reading in both if reading is not None)


def _reading(unit: str, limit: Any, remaining: Any, reset: Any) -> QuotaReading | None:
    """None if nothing was told; 0 of 0 is what `headers.get(name, 0)` makes of nothing."""
    limit, remaining = _number(limit) or None, _number(remaining)
    if limit is None and not remaining:
        return None
    return QuotaReading(unit, limit, remaining, _seconds_until(_number(reset)), MINUTE)


def _seconds_until(reset: float | None) -> float | None:
    if not reset or reset < FIRST_INSTANT:
        return reset or None
    return max(0.0, (reset / 1000 if reset >= FIRST_MILLISECOND else reset) - time.time())


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        return None
    return float(value)
