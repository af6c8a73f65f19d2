"""What a limiter did over time: looked at from outside every so often, so that a call costs nothing for it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.options import interval
from adaptive_rate_limiter.report import figure
from adaptive_rate_limiter.views.block import Block
from adaptive_rate_limiter.views.content import ORIGINS, per
from adaptive_rate_limiter.views.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from adaptive_rate_limiter.report import BucketSnapshot, LimiterSnapshot, LimitSnapshot, Reports

__all__ = ["History", "Mark", "Point"]

MOST = 4000  # looks that are kept; then every second one is dropped, and so on: the whole time stays in view
EVERY = 0.25  # seconds between two looks; one takes a fraction of a millisecond


class Point(NamedTuple):
    """One bucket at one look: `at` seconds of the limiter's clock, what it had done until then, and its limits."""

    at: float
    bucket_id: str
    model: str | None
    admitted: int
    waiting: int
    in_flight: int
    units: dict[str, float]
    refused: dict[str, int]
    limits: tuple[LimitSnapshot, ...]


class Look(NamedTuple):
    at: float
    points: tuple[Point, ...]


class Mark(NamedTuple):
    """Something worth a mark: "refused" or "limit", and why, as a sentence."""

    at: float
    bucket_id: str
    kind: str
    text: str


class History(Block):
    """Bounded: `points` of each bucket, oldest first.

    ``with limiter.history:`` records a block, sync or async; `start()` and `stop()` do the same without a block.
    """

    def __init__(self, limiter: Reports) -> None:
        self._limiter = limiter
        self._lock = threading.Lock()
        self._looks: list[Look] = []
        self._stride = 1  # of so many looks one is kept
        self._seen = 0
        self._ticker: Ticker | None = None

    def start(self, every: float = EVERY) -> Self:
        """Look every so many seconds from now on."""
        if self._ticker is None:
            self._ticker = Ticker(self._limiter.clock, interval("every", every), self._look)
            self._ticker.start()
        return self

    def stop(self) -> None:
        """What was recorded stays."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()

    def clear(self) -> None:
        """Forget what was recorded."""
        with self._lock:
            self._looks, self._stride, self._seen = [], 1, 0

    def _look(self) -> None:
        self.add(self._limiter.snapshot())

    def add(self, snapshot: LimiterSnapshot) -> None:
        """Keep what `snapshot` shows, as of now."""
        now = self._limiter.clock.now()
        look = Look(now, tuple(_point(bucket, now) for bucket in snapshot.buckets))
        with self._lock:
            self._seen += 1
            if self._seen % self._stride:
                return
            self._looks.append(look)
            if len(self._looks) > MOST:
                self._looks = self._looks[::2]
                self._stride *= 2

    def points(self, model: str | None = None) -> dict[str, list[Point]]:
        """By bucket; those of one model if it is named. A bucket that came later begins with the look before it."""
        found: dict[str, list[Point]] = {}
        with self._lock:
            looks = list(self._looks)
        for before, look in zip([None, *looks], looks, strict=False):
            for point in look.points:
                if model is None or point.model == model:
                    known = [] if before is None else [_nothing(point, before.at)]
                    found.setdefault(point.bucket_id, known).append(point)
        return found

    def marks(self, model: str | None = None) -> list[Mark]:
        """Refusals by kind, and limits that were learned or changed; as exact in time as the looks are close."""
        marks = [mark for points in self.points(model).values() for mark in marks_of(points)]
        return sorted(marks, key=lambda mark: mark.at)

    def plot(self, model: str | None = None) -> Any:
        """A figure of matplotlib: what was sent against the most that the limits allow, and who waited meanwhile.

        One column for each bucket. Raises ImportError without matplotlib.
        """
        try:
            from adaptive_rate_limiter.views.plot import draw  # noqa: PLC0415 - half a second, and an extra
        except ModuleNotFoundError as error:
            raise ImportError(
                "plots need matplotlib: pip install 'adaptive-rate-limiter[notebook]'"
            ) from error

        with self._lock:
            start = self._looks[0].at if self._looks else 0.0
        return draw(self.points(model), start)

    def __len__(self) -> int:
        return len(self._looks)


def _nothing(first: Point, at: float) -> Point:
    """The bucket before its first call."""
    units = dict.fromkeys(first.units, 0.0)
    return first._replace(at=at, admitted=0, waiting=0, in_flight=0, units=units, refused={}, limits=())


def _point(bucket: BucketSnapshot, now: float) -> Point:
    tally = bucket.tally
    units = dict(tally.reserved)
    if "tokens" in units:
        units["tokens"] += tally.underestimated - tally.overestimated
    units["requests"] = float(bucket.admitted - bucket.refused)
    return Point(
        at=now,
        bucket_id=bucket.bucket_id,
        model=bucket.model,
        admitted=bucket.admitted,
        waiting=bucket.waiting,
        in_flight=bucket.in_flight,
        units=units,
        refused=dict(tally.refused),
        limits=bucket.limits,
    )


def marks_of(points: list[Point]) -> Iterator[Mark]:
    """Of one bucket; what was refused before the first point is no part of it."""
    limits: dict[tuple[str, float, str, int], LimitSnapshot] = {}
    refused = points[0].refused if points else {}
    for point in points:
        for key, limit in _told_apart(point.limits):
            before = limits.get(key)
            if before is None or before.limit != limit.limit:
                yield Mark(point.at, point.bucket_id, "limit", _change(before, limit))
            limits[key] = limit
        for kind, count in point.refused.items():
            more = count - refused.get(kind, 0)
            if more:
                yield Mark(
                    point.at, point.bucket_id, "refused", f"{more:,} refused: {kind.replace('_', ' ')}"
                )
        refused = point.refused


def _told_apart(
    limits: tuple[LimitSnapshot, ...],
) -> Iterator[tuple[tuple[str, float, str, int], LimitSnapshot]]:
    """Two limits may differ in their scope alone: they are told apart by their place."""
    seen: Counter[tuple[str, float, str]] = Counter()
    for limit in limits:
        name = (limit.unit, limit.window, limit.source)
        yield (*name, seen[name]), limit
        seen[name] += 1


def _change(before: LimitSnapshot | None, after: LimitSnapshot) -> str:
    told = (
        f"{figure(after.limit)} {after.unit} {per(after.window)}, {ORIGINS.get(after.source, after.source)}"
    )
    return told if before is None else f"{told}; it was {figure(before.limit)}"
