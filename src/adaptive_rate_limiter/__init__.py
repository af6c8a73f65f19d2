"""Client-side rate limiter for LLM APIs: learns the provider's limits and fills them without being refused."""

from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.exceptions import (
    BackendConnectionError,
    BackendOperationError,
    BucketNotFoundError,
    CapacityExceededError,
    ConfigurationError,
    QueueOverflowError,
    RateLimiterError,
    ReservationCapacityError,
    TooManyFailedRequestsError,
)
from adaptive_rate_limiter.limiter import Limiter
from adaptive_rate_limiter.report import BucketSnapshot, Forecast, LimiterSnapshot, LimitSnapshot
from adaptive_rate_limiter.reservation import Reservation
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

__all__ = [
    "BackendConnectionError",
    "BackendOperationError",
    "BaseBackend",
    "BucketNotFoundError",
    "BucketSnapshot",
    "CapacityExceededError",
    "ConfigurationError",
    "Forecast",
    "LimitSnapshot",
    "Limiter",
    "LimiterSnapshot",
    "MemoryBackend",
    "QueueOverflowError",
    "Quota",
    "QuotaReading",
    "RateLimitInfo",
    "RateLimiterError",
    "Refusal",
    "RefusalKind",
    "Reservation",
    "ReservationCapacityError",
    "TooManyFailedRequestsError",
]
