"""Counters of any number of buckets under a bounded number of labels, none of which ever goes down."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from adaptive_rate_limiter.observability.metrics import OTHER, counted, label_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adaptive_rate_limiter.observability.metrics import Counted, Words
    from adaptive_rate_limiter.report import BucketSnapshot

__all__ = ["MOST_NAMED", "REST", "Label", "Names", "Sums"]

MOST_NAMED = 200
IDLE = 3600.0  # seconds without a call after which a bucket gives its name away, if another wants it

Label = tuple[str, str]  # bucket and model
REST: Label = (OTHER, OTHER)


class Names:
    """Who is shown by name: so many at most. First come, first served; one that is idle makes room for one that is not."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: set[Label] = set()

    def grouped(self, buckets: Iterable[BucketSnapshot]) -> dict[Label, list[BucketSnapshot]]:
        """The buckets by label; those without a name together under `other`."""
        groups: dict[Label, list[BucketSnapshot]] = defaultdict(list)
        for bucket in buckets:
            groups[_label(bucket)].append(bucket)
        idle = sorted((seconds, label) for label in self._named if (seconds := _idle(groups, label)) >= IDLE)
        shown: dict[Label, list[BucketSnapshot]] = defaultdict(list)
        for label, group in groups.items():
            if label not in self._named:
                if len(self._named) >= self._most and idle and _idle(groups, label) < IDLE:
                    self._named.remove(idle.pop()[1])
                if len(self._named) < self._most:
                    self._named.add(label)
            shown[label if label in self._named else REST] += group
        return shown

    def __contains__(self, label: Label) -> bool:
        return label == REST or label in self._named


class Sums:
    """What was counted under each label. A bucket's own numbers say how much came to it since the last look."""

    def __init__(self) -> None:
        self.shown: dict[Label, Counted] = {}
        self._seen: dict[int, Counted] = {}  # serial number of a bucket -> its numbers at the last look

    def add(self, label: Label, bucket: BucketSnapshot, words: Words) -> None:
        """Add what was counted since the last look to `label`, whatever label it had then."""
        numbers = counted(bucket, words)
        seen = self._seen.get(bucket.tally.serial, {})
        shown = self.shown.setdefault(label, defaultdict(float))
        for key, number in numbers.items():
            before = seen.get(key, 0.0)
            shown[key] += max(0.0, number - before)
            numbers[key] = max(number, before)
        self._seen[bucket.tally.serial] = numbers

    def forget_labels(self, names: Names) -> None:
        """Labels that are given up begin at nothing if they come again."""
        self.shown = {label: numbers for label, numbers in self.shown.items() if label in names}

    def forget_others_than(self, buckets: Iterable[BucketSnapshot]) -> None:
        """Buckets that are no more."""
        living = {bucket.tally.serial for bucket in buckets}
        self._seen = {serial: seen for serial, seen in self._seen.items() if serial in living}


def _idle(groups: Mapping[Label, Iterable[BucketSnapshot]], label: Label) -> float:
    """Seconds since the last admission; 0 while anybody waits, inf if there is no such bucket any more."""
    buckets = groups.get(label, ())
    return min((0.0 if bucket.waiting else bucket.tally.idle for bucket in buckets), default=math.inf)


def _label(bucket: BucketSnapshot) -> Label:
    return label_value(bucket.bucket_id), label_value(bucket.model or "*")
