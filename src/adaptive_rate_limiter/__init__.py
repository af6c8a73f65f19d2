"""Client-side rate limiter for LLM APIs: learns the provider's limits and fills them without being refused."""

from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend, RedisBackend
from adaptive_rate_limiter.batch import AsyncBatch, Batch, Outcome
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.exceptions import (
    BackendConnectionError,
    BackendOperationError,
    BucketNotFoundError,
    CapacityExceededError,
    ConfigurationError,
    QueueOverflowError,
    RateLimiterError,
    RequestTimeoutError,
    ReservationCapacityError,
    TooManyFailedRequestsError,
)
from adaptive_rate_limiter.limiter import Limiter
from adaptive_rate_limiter.protocols import (
    AUDIO,
    EMBEDDING,
    GENERIC,
    IMAGE,
    RESOURCE_TYPES,
    TEXT,
    ClassifierProtocol,
    ClientProtocol,
    DiscoveredBucket,
    ProviderInterface,
    RequestMetadata,
    ResourceType,
    StreamingResponseProtocol,
)
from adaptive_rate_limiter.report import BucketSnapshot, Forecast, LimiterSnapshot, LimitSnapshot
from adaptive_rate_limiter.reservation import Reservation
from adaptive_rate_limiter.scheduler import RateLimiterConfig, Scheduler, create_scheduler
from adaptive_rate_limiter.streaming import RateLimitedAsyncIterator, StreamingReservationContext
from adaptive_rate_limiter.tracker import ReservationContext, ReservationTracker
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

__all__ = [
    "AUDIO",
    "EMBEDDING",
    "GENERIC",
    "IMAGE",
    "RESOURCE_TYPES",
    "TEXT",
    "AsyncBatch",
    "BackendConnectionError",
    "BackendOperationError",
    "BaseBackend",
    "Batch",
    "BucketNotFoundError",
    "BucketSnapshot",
    "CapacityExceededError",
    "ClassifierProtocol",
    "ClientProtocol",
    "ConfigurationError",
    "DiscoveredBucket",
    "Forecast",
    "LimitSnapshot",
    "Limiter",
    "LimiterSnapshot",
    "MemoryBackend",
    "Outcome",
    "ProviderInterface",
    "QueueOverflowError",
    "Quota",
    "QuotaReading",
    "RateLimitInfo",
    "RateLimitedAsyncIterator",
    "RateLimiterConfig",
    "RateLimiterError",
    "RedisBackend",
    "Refusal",
    "RefusalKind",
    "RequestMetadata",
    "RequestTimeoutError",
    "Reservation",
    "ReservationCapacityError",
    "ReservationContext",
    "ReservationTracker",
    "ResourceType",
    "Scheduler",
    "StreamingReservationContext",
    "StreamingResponseProtocol",
    "TooManyFailedRequestsError",
    "create_scheduler",
]
