"""What the limiter raises. Every error derives from `RateLimiterError`."""

from __future__ import annotations

__all__ = [
    "BackendConnectionError",
    "BackendOperationError",
    "BucketNotFoundError",
    "CapacityExceededError",
    "ConfigurationError",
    "QueueOverflowError",
    "RateLimiterError",
    "RequestTimeoutError",
    "ReservationCapacityError",
    "TooManyFailedRequestsError",
]


class RateLimiterError(Exception):
    """Base of everything that the limiter raises on its own account."""


class CapacityExceededError(RateLimiterError):
    """The call cannot be admitted: never, or not within the time that it may wait.

    `bucket_id` names the bucket; `retry_after` is the number of seconds after which the call could pass,
    or None when no wait cures it.
    """

    def __init__(self, message: str, bucket_id: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.bucket_id = bucket_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (*self.args, self.bucket_id, self.retry_after)


class BucketNotFoundError(RateLimiterError):
    """No bucket of this name is known."""

    def __init__(self, bucket_id: str) -> None:
        super().__init__(f"Rate limit bucket not found: {bucket_id}")
        self.bucket_id = bucket_id

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.bucket_id,)


class ReservationCapacityError(RateLimiterError):
    """The reservation tracker is full."""


class BackendConnectionError(RateLimiterError):
    """The backend cannot be reached."""


class BackendOperationError(RateLimiterError):
    """The backend was reached and failed."""


class ConfigurationError(RateLimiterError, ValueError):
    """An argument is wrong; the message names it and its value."""


class QueueOverflowError(RateLimiterError):
    """The queue named by `queue_key` is full."""

    def __init__(self, message: str, queue_key: str | None = None) -> None:
        super().__init__(message)
        self.queue_key = queue_key

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (*self.args, self.queue_key)


class RequestTimeoutError(RateLimiterError, TimeoutError):
    """The request was sent, and no answer came in time."""


class TooManyFailedRequestsError(RateLimiterError):
    """The circuit breaker is open: `failure_count` failures in `window_seconds`, `threshold` allowed."""

    def __init__(
        self,
        message: str = "Too many failed requests",
        failure_count: int | None = None,
        window_seconds: float | None = None,
        threshold: int | None = None,
    ) -> None:
        super().__init__(message)
        self.failure_count = failure_count
        self.window_seconds = window_seconds
        self.threshold = threshold

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (*self.args, self.failure_count, self.window_seconds, self.threshold)
