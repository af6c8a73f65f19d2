"""Streams whose reservation is settled by what they tell, however they end."""

from adaptive_rate_limiter.streaming.context import StreamingReservationContext
from adaptive_rate_limiter.streaming.iterator import RateLimitedAsyncIterator, is_stream, wrap

__all__ = ["RateLimitedAsyncIterator", "StreamingReservationContext", "is_stream", "wrap"]
