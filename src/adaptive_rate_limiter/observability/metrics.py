"""Which metrics there are, and what a snapshot of a bucket says of each. docs/metrics.md tells what they mean."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.report import BucketSnapshot, LimitSnapshot

__all__ = [
    "BUCKETS",
    "COUNTERS",
    "GAUGES",
    "PREFIX",
    "WAITS",
    "Counted",
    "Metric",
    "Words",
    "counted",
    "gauged",
    "label_value",
]

PREFIX = "adaptive_rate_limiter_"
BUCKET = ("bucket", "model")  # what each has
LIMIT = ("unit", "window", "source")
OTHER = "other"
LONGEST_NAME = 120
MOST_WORDS, LONGEST_WORD = (
    32,
    40,
)  # a unit may be a provider's own word, and whoever writes headers invents some
UNITS = (
    "requests", "tokens", "input_tokens", "output_tokens", "images", "audio_seconds", "characters", "pages", "concurrency",
)  # fmt: skip
WINDOWS = {1.0: "1s", 10.0: "10s", 60.0: "1m", 300.0: "5m", 3600.0: "1h", 86400.0: "1d", 2592000.0: "30d"}
# What the limiter calls a reason in sentences, as a label.
REASONS: dict[str, str | None] = {
    "retry-after": "retry_after",
    "provider overloaded": "overload",
    "quota exhausted": "quota_exhausted",
    "undiscovered limit": "undiscovered_limit",
    "a refusal that no header explains": "unexplained_refusal",
}


class Metric(NamedTuple):
    """One metric, without PREFIX; `labels` beside those that each bucket has."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


BUCKETS = Metric("buckets", "Buckets, with those that have no label of their own.")
WAITS = Metric("wait_seconds", "Time in line of admitted calls, by what they waited for.", ("reason",))

COUNTERS = (
    Metric("calls_admitted_total", "Calls let in, each attempt of its own."),
    Metric("calls_ended_total", "Admitted calls that came to an end.", ("outcome",)),
    Metric("calls_refused_total", "Refusals by the provider.", ("kind",)),
    Metric("calls_rejected_total", "Calls that the limiter itself did not let in.", ("reason",)),
    Metric("calls_withdrawn_total", "Calls whose caller gave up in line."),
    Metric(
        "line_held_back_seconds_total", "Time in which somebody was in line and nobody went.", ("reason",)
    ),
    Metric("pauses_total", "Pauses of all calls.", ("reason",)),
    Metric("limit_changes_total", "Limits learned, and changes of known ones.", ("unit", "change")),
    Metric("units_reserved_total", "What admitted calls were expected to use.", ("unit",)),
    Metric("units_used_by_others_total", "What others on the same key used of a limit.", ("unit", "window")),
    Metric("estimate_error_tokens_total", "Tokens reserved and not used, or used beyond.", ("direction",)),
)

GAUGES = (
    Metric("calls_waiting", "Calls in line."),
    Metric("calls_in_flight", "Calls admitted and not ended."),
    Metric("calls_in_flight_max", "Calls that may be in flight at once, where that is bounded."),
    Metric("oldest_wait_seconds", "Time in line of the call that waits for longest."),
    Metric("line_eta_seconds", "Time until the last call in line goes, as far as limits are known."),
    Metric("pause_remaining_seconds", "Time until calls go again."),
    Metric("limit_units", "Limit, in units per window.", LIMIT),
    Metric("limit_window_seconds", "Window of a limit.", LIMIT),
    Metric("limit_remaining_units", "What is believed to be left of a limit; below 0 is debt.", LIMIT),
    Metric("limit_level_ratio", "What is left of a limit, as a part of the most that can be.", LIMIT),
    Metric(
        "backend_outage",
        "1 while the backend that processes share is out of reach, and on_outage in force.",
        ("on_outage",),
    ),
    Metric("bucket_info", "Where a bucket belongs.", ("namespace", "host", "credential")),
)

Key: TypeAlias = "tuple[str, tuple[str, ...]]"
"""A metric, and the values of its labels beside those of the bucket."""

Counted: TypeAlias = "dict[Key, float]"


def label_value(name: str) -> str:
    """`name`, which may be anything, cut if it is long, and without what UTF-8 cannot say."""
    name = name.encode(errors="replace").decode()
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}~{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


class Words:
    """Label values that others than this library may choose: so many different ones, and then `other`."""

    def __init__(self) -> None:
        self._labels = dict.fromkeys(UNITS) | REASONS
        self._most = len(self._labels) + MOST_WORDS

    def __call__(self, word: str) -> str:
        if word not in self._labels:
            if len(self._labels) >= self._most or not 0 < len(word) <= LONGEST_WORD:
                return OTHER
            self._labels[word] = label_value(word)
        return self._labels[word] or word


def counted(bucket: BucketSnapshot, words: Words) -> Counted:
    """All numbers of a bucket that only grow. Of waits: one for each bound, and their sum."""
    tally = bucket.tally
    found: Counted = defaultdict(float)
    found["calls_admitted_total", ()] = tally.admitted
    found["calls_withdrawn_total", ()] = tally.withdrawn
    found["estimate_error_tokens_total", ("over",)] = tally.overestimated
    found["estimate_error_tokens_total", ("under",)] = tally.underestimated
    for name, numbers in (
        ("calls_ended_total", tally.ended),
        ("calls_refused_total", tally.refused),
        ("calls_rejected_total", tally.rejected),
    ):
        for label, number in numbers.items():
            found[name, (label,)] = number
    for name, amounts in (
        ("line_held_back_seconds_total", tally.held_back),
        ("pauses_total", tally.pauses),
        ("units_reserved_total", tally.reserved),
    ):
        for word, amount in amounts.items():
            found[name, (words(word),)] += amount
    for (unit, change), number in tally.limit_changes.items():
        found["limit_changes_total", (words(unit), change)] += number
    for (unit, seconds), amount in tally.used_by_others.items():
        found["units_used_by_others_total", (words(unit), window_label(seconds))] += amount
    waited = 0
    for reason, waits in tally.waits.items():
        label = words(reason)
        found["wait_seconds_sum", (label,)] += waits.seconds
        for place, number in enumerate(waits.counts):
            found["wait_seconds", (label, str(place))] += number
            waited += number
    found["wait_seconds_sum", ("none",)] += 0.0
    found["wait_seconds", ("none", "0")] += tally.admitted - waited
    return found


def gauged(group: Sequence[BucketSnapshot], words: Words, *, named: bool) -> dict[Key, float]:
    """What the buckets that share one label are at now; limits only of those that have a name of their own."""
    most_in_flight = math.fsum(bucket.most_in_flight for bucket in group)
    found: dict[Key, float] = {
        ("calls_waiting", ()): sum(bucket.waiting for bucket in group),
        ("calls_in_flight", ()): sum(bucket.in_flight for bucket in group),
        ("oldest_wait_seconds", ()): max(bucket.tally.oldest_wait for bucket in group),
        ("line_eta_seconds", ()): max(bucket.eta for bucket in group),
        ("pause_remaining_seconds", ()): max(bucket.paused_for for bucket in group),
    }
    for bucket in group:
        if bucket.on_outage is not None:
            key = ("backend_outage", (bucket.on_outage,))
            found[key] = max(found.get(key, 0.0), float(bucket.outage))
    if most_in_flight < math.inf:
        found["calls_in_flight_max", ()] = most_in_flight
    if named:
        first = group[0]
        where = (unquote(first.bucket_id.partition("/")[0]), first.host or "", first.credential or "")
        found["bucket_info", tuple(map(label_value, where))] = 1.0
        found.update(_limits(group, words))
    return found


def _limits(group: Sequence[BucketSnapshot], words: Words) -> dict[Key, float]:
    """Of limits that share all labels, the one that is nearest to its end."""
    tightest: dict[tuple[str, ...], LimitSnapshot] = {}
    for limit in (limit for bucket in group for limit in bucket.limits):
        labels: tuple[str, ...] = (words(limit.unit), window_label(limit.window), limit.source)
        other = tightest.get(labels)
        if other is None or _level(limit) < _level(other):
            tightest[labels] = limit
    found: dict[Key, float] = {}
    for labels, limit in tightest.items():
        found["limit_units", labels] = limit.limit
        found["limit_window_seconds", labels] = limit.window
        if not math.isnan(limit.remaining):  # that is not known where only refusals tell
            found["limit_remaining_units", labels] = limit.remaining
            found["limit_level_ratio", labels] = _level(limit)
    return found


def _level(limit: LimitSnapshot) -> float:
    return limit.remaining / limit.capacity


def window_label(seconds: float) -> str:
    """One of the windows that providers count in, or `other`."""
    return WINDOWS.get(seconds, OTHER)
