"""Prometheus metrics: read from the buckets when somebody asks for them, and never before."""

from __future__ import annotations

import logging
import threading
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from adaptive_rate_limiter.core.reports import BOUNDS
from adaptive_rate_limiter.exceptions import ConfigurationError
from adaptive_rate_limiter.observability.metrics import (
    BUCKET,
    BUCKETS,
    COUNTERS,
    GAUGES,
    PREFIX,
    WAITS,
    Words,
    gauged,
)
from adaptive_rate_limiter.observability.sums import MOST_NAMED, REST, Names, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adaptive_rate_limiter.observability.metrics import Counted
    from adaptive_rate_limiter.observability.sums import Label
    from adaptive_rate_limiter.report import BucketSnapshot

__all__ = ["PrometheusCollector"]

logger = logging.getLogger(__name__)

LES = [*(str(bound) for bound in BOUNDS), "+Inf"]


class Families:
    """All metrics, to be filled by name."""

    def __init__(self) -> None:
        self.counters = {
            metric.name: CounterMetricFamily(PREFIX + metric.name, metric.help, labels=BUCKET + metric.labels)
            for metric in COUNTERS
        }
        self.gauges = {
            metric.name: GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=BUCKET + metric.labels)
            for metric in GAUGES
        }
        self.waits = HistogramMetricFamily(PREFIX + WAITS.name, WAITS.help, labels=BUCKET + WAITS.labels)
        self.buckets = GaugeMetricFamily(PREFIX + BUCKETS.name, BUCKETS.help, labels=())

    def __iter__(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        yield from self.counters.values()
        yield self.waits
        yield from self.gauges.values()
        yield self.buckets

    def count(self, label: Label, numbers: Counted) -> None:
        waits: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for (name, labels), number in numbers.items():
            if name == "wait_seconds":
                waits.setdefault(labels[0], [0.0] * len(LES))[int(labels[1])] = number
            elif name == "wait_seconds_sum":
                seconds[labels[0]] = number
            else:
                self.counters[name].add_metric((*label, *labels), number)
        for reason, counts in waits.items():
            up_to = list(zip(LES, accumulate(counts), strict=True))
            self.waits.add_metric((*label, reason), up_to, seconds[reason])


class PrometheusCollector:
    """The metrics of one or more limiters, for a registry of prometheus_client. It keeps no limiter alive.

    `most_buckets`: so many have labels of their own; those beyond are summed under bucket="other". Limiters of
    one namespace that do not share a backend are summed, too. A limiter is a Limiter, or what has one as
    `.limiter`, such as a scheduler.

    Raises ConfigurationError naming the argument.
    """

    def __init__(self, *limiters: Any, most_buckets: int = MOST_NAMED) -> None:
        if isinstance(most_buckets, bool) or not isinstance(most_buckets, int) or most_buckets < 0:
            raise ConfigurationError(
                f"most_buckets must be a whole number of at least 0, got {most_buckets!r}"
            )
        self._limiters: WeakSet[Any] = WeakSet()
        self._names = Names(most_buckets)
        self._words = Words()
        self._sums = Sums()
        self._lock = threading.Lock()
        for limiter in limiters:
            self.add(limiter)

    def add(self, limiter: Any) -> None:
        """Read this one, too; a second time changes nothing."""
        limiter = getattr(limiter, "limiter", limiter)
        if not callable(getattr(limiter, "snapshot", None)):
            raise ConfigurationError(f"limiter must be a Limiter, or have one as `.limiter`, got {limiter!r}")
        with self._lock:
            self._limiters.add(limiter)

    def describe(self) -> Iterator[Any]:
        """Names only, for the registry to find two of a name."""
        return iter(Families())

    def collect(self) -> Iterator[Any]:
        """What a registry asks for. A limiter that cannot be read is logged, and left out."""
        families = Families()
        with self._lock:
            buckets, complete = self._read()
            groups = self._names.grouped(buckets)
            for label, group in groups.items():
                for bucket in group:
                    self._sums.add(label, bucket, self._words)
                for (name, labels), value in gauged(group, self._words, named=label != REST).items():
                    families.gauges[name].add_metric((*label, *labels), value)
            self._sums.forget_labels(self._names)
            if complete:
                self._sums.forget_others_than(buckets)
            for label, numbers in self._sums.shown.items():
                families.count(label, numbers)
        families.buckets.add_metric((), len(buckets))
        return iter(families)

    def _read(self) -> tuple[list[BucketSnapshot], bool]:
        """All buckets, one that several limiters share once; and whether none is missing."""
        read = [_buckets_of(limiter) for limiter in list(self._limiters)]
        found = {bucket.tally.serial: bucket for buckets in read for bucket in buckets or ()}
        return [found[serial] for serial in sorted(found)], None not in read


def _buckets_of(limiter: Any) -> tuple[BucketSnapshot, ...] | None:
    try:
        buckets: tuple[BucketSnapshot, ...] = limiter.snapshot().buckets
    except Exception:
        logger.exception("a limiter could not be read for its metrics")
        return None
    return buckets
