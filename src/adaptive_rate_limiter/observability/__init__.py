"""What a limiter does, for those who run it: events for logs and callbacks."""

from adaptive_rate_limiter.observability.events import Event, subscribe

__all__ = ["Event", "subscribe"]
