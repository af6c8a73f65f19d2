"""What a provider's response says about its limits."""

from adaptive_rate_limiter.providers.parse import parse_response

__all__ = ["parse_response"]
