"""The HTTP layer of httpx and httpx2: observed where a reservation is in force, or limited as a transport."""

from adaptive_rate_limiter.http.observe import HttpObservation, observe_http
from adaptive_rate_limiter.http.transport import AdaptiveTransport, AsyncAdaptiveTransport

__all__ = ["AdaptiveTransport", "AsyncAdaptiveTransport", "HttpObservation", "observe_http"]
