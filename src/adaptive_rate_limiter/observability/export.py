"""The way from a limiter to a registry of prometheus_client, which is imported here when it is needed."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from adaptive_rate_limiter.observability.prometheus import PrometheusCollector

__all__ = ["export_if_installed", "export_metrics"]

_collectors: WeakKeyDictionary[CollectorRegistry, PrometheusCollector] = WeakKeyDictionary()
_exporting = threading.Lock()


def export_metrics(*limiters: Any, registry: CollectorRegistry | None = None) -> PrometheusCollector:
    """Show what `limiters` do in `registry`, which is that of the process unless given.

    They are read when somebody asks the registry, and at no other time. All that are exported to one registry
    share one collector, which is returned. A limiter is a Limiter, or what has one as `.limiter`.

    Raises ImportError without prometheus-client, ConfigurationError for what is no limiter, and ValueError where
    the registry has metrics of these names that are not ours.
    """
    try:
        from prometheus_client import REGISTRY  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "metrics need prometheus-client: pip install 'adaptive-rate-limiter[metrics]'"
        ) from error
    from adaptive_rate_limiter.observability.prometheus import PrometheusCollector  # noqa: PLC0415 - needs it

    if registry is None:
        registry = REGISTRY
    with _exporting:
        known = _collectors.get(registry)
        collector = PrometheusCollector() if known is None else known
        for limiter in limiters:
            collector.add(limiter)
        try:
            registry.register(collector)
        except ValueError:
            if known is None:
                raise
        _collectors[registry] = collector
    return collector


def export_if_installed(limiter: Any) -> bool:
    """`export_metrics` to the registry of the process; False, and nothing else, without prometheus-client."""
    if find_spec("prometheus_client") is None:
        return False
    export_metrics(limiter)
    return True
