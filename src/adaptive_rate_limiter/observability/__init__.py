"""What a limiter does, for those who run it: metrics for Prometheus, events for logs and callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.observability.events import Event, subscribe
from adaptive_rate_limiter.observability.export import export_if_installed, export_metrics

if TYPE_CHECKING:
    from adaptive_rate_limiter.observability.prometheus import PrometheusCollector

__all__ = ["Event", "PrometheusCollector", "export_if_installed", "export_metrics", "subscribe"]


def __getattr__(name: str) -> Any:
    """The collector is imported when it is asked for: it needs prometheus-client."""
    if name == "PrometheusCollector":
        from adaptive_rate_limiter.observability.prometheus import PrometheusCollector  # noqa: PLC0415 - see above

        return PrometheusCollector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
