"""The way from a limiter to a registry of prometheus_client, which is imported here when it is needed."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from adaptive_rate_limiter.observability.prometheus import PrometheusCollector

__all__ = ["export_if_installed", "export_metrics"]

logger = logging.getLogger(__name__)

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
        collector = _collectors.get(registry) or PrometheusCollector()
        for limiter in limiters:
            collector.add(limiter)
        with suppress(KeyError):  # it is not there: it is new, or somebody took it out
            registry.unregister(collector)
        registry.register(collector)
        _collectors[registry] = collector
    return collector


def export_if_installed(limiter: Any) -> bool:
    """`export_metrics` to the registry of the process, for those that nobody asked to. False if it cannot be done.

    Without prometheus-client nothing is said of it; a registry that has metrics of these names is a warning.
    """
    if find_spec("prometheus_client") is None:
        return False
    try:
        export_metrics(limiter)
    except ValueError as error:
        logger.warning("metrics are not exported: %s", error)
        return False
    return True
