"""What is believed of one limit: its size, how much is left, and how the provider counts.

A limit that a user states counts in the one way that was stated. One that headers tell is followed in
three ways at once, as token bucket, fixed window and sliding window; every header speaks for or against
each, and a call is admitted only by all that are still plausible. Until a header tells them apart this
costs a little time, and never a refusal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import Shot, fit_of_level, fit_of_reset, inferred_window, is_over
from adaptive_rate_limiter.core.levels import BucketLevel, Level, SlidingLevel, WindowLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.quota import Quota
    from adaptive_rate_limiter.types import QuotaReading

UP_GAIN = 0.1  # share of a told surplus that is believed at once; measured in a simulation of stale headers
JITTER = 0.3  # seconds by which one send may overtake the one before it on its way
FLOOR_MAX = 0.05  # share of the limit kept for strangers on the key; from the same simulation
MARGIN = 2.4  # score by which a way of counting must fall behind the best to be set aside
TOO_LOW = -1.0  # mark of a way of counting that foresaw far less than was told
JUMPS = 2.5  # such headers of late before a window counts as fixed
SURE_AFTER = 64  # readings: from then on some are weighed and not all, where nothing hangs on it:
LOOK_AGAIN = 8  # one in so many, since providers change,
HALF = 0.5  # and all where more than a bucket is plausible and less than this part of the limit is left
FIRST_READINGS = 10  # in which a wrong guess of the window may be what speaks against a bucket
MEMORY = 0.95  # weight of the past score at each reading
WORST = -12.0


class Gauge:
    """One limit on one unit, and how much of it is left. `source` is "stated" or "told"."""

    __slots__ = (
        "active", "depth_vote", "floor_at", "floor_share", "jumps", "limit", "lows", "models", "newest",
        "place", "readings", "scope", "scores", "source", "told_by", "unit", "vote", "window", "window_end",
    )  # fmt: skip

    def __init__(self, unit: str, limit: float, window: float, models: list[Level], source: str) -> None:
        self.unit = unit
        self.limit = limit
        self.window = window
        self.scope: str | None = None
        self.source = source
        self.models = models
        self.scores = [0.0] * len(models)
        self.active = tuple(models)
        self.newest = -1  # sequence number of the latest send whose header was taken
        self.told_by = -1  # of the send whose header is being taken
        self.place = -1  # among those that headers tell
        self.lows: list[float] = [math.inf] * len(models)  # per model: least remaining told, less its refill
        self.readings = 0
        self.jumps = 0.0  # headers of late with more than a sliding window would have left, as after a turn
        self.floor_share = 0.0
        self.floor_at = 0.0
        self.depth_vote: tuple[float, float] | None = None  # another depth, and remaining when it was told
        self.vote: tuple[float, float | None] | None = None  # another window that the last reading told
        self.window_end: tuple[float, float] | None = None  # earliest and latest instant told for it

    @classmethod
    def stated(cls, quota: Quota, now: float) -> Gauge:
        level: Level
        if quota.algorithm == "fixed_window":
            level = WindowLevel(quota.limit, quota.window, now)
        elif quota.algorithm == "sliding_window":
            level = SlidingLevel(quota.limit, quota.window, now)
        else:
            level = BucketLevel(quota.limit, quota.window, now, quota.burst)
        return cls(quota.unit, quota.limit, quota.window, [level], "stated")

    @classmethod
    def told(cls, unit: str, limit: float, window: float, now: float) -> Gauge:
        models: list[Level] = [
            BucketLevel(limit, window, now),
            WindowLevel(limit, window, now),
            SlidingLevel(limit, window, now),
        ]
        return cls(unit, limit, window, models, "told")

    # How much is left

    @property
    def rate(self) -> float:
        return self.limit / self.window

    @property
    def capacity(self) -> float:
        """The largest amount that can ever be there at once."""
        return self.active[0].capacity

    @property
    def algorithm(self) -> str:
        """The way of counting that the evidence favours."""
        best = max(range(len(self.models)), key=self.scores.__getitem__)
        return _NAMES[type(self.models[best])]

    def floor(self, now: float) -> float:
        """What is kept back: for a bucket, what flows in within the jitter of sends; and for strangers on the
        key what was seen of them, halved with every window without a sign.
        """
        least = 0.0
        if self.source == "told" and self.active[0] is self.models[0]:
            least = min(JITTER * self.limit / self.window, FLOOR_MAX * self.limit)
        return least + self.limit * self._kept(now)

    def _kept(self, now: float) -> float:
        """The share that is kept for strangers."""
        if self.floor_share < 1e-4:  # noqa: PLR2004 - a ten-thousandth of the limit is nothing
            return 0.0
        return self.floor_share * math.pow(0.5, (now - self.floor_at) / self.window)

    def available(self, now: float) -> float:
        least = math.inf
        for level in self.active:
            left = level.available(now)
            if left < least:  # noqa: PLR1730 - min() costs a call, and this runs for every admission
                least = left
        return least - self.floor(now)

    def take(self, amount: float, now: float) -> None:
        for level in self.models:
            level.take(amount, now)

    def give(self, amount: float, now: float, taken_at: float) -> None:
        for level in self.models:
            level.give(amount, now, taken_at)

    def delay(self, amount: float, taken_at: float, counted_at: float) -> None:
        for level in self.models:
            level.delay(amount, taken_at, counted_at)

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be there. More than the limit waits for all that there can be."""
        wanted = min(amount + self.floor(now), self.capacity)
        return max(level.ready_at(wanted, now) for level in self.active)

    def returned(self) -> float:
        """What the sliding window, if this may be one, has given back so far."""
        last = self.models[-1]
        return last.refilled if isinstance(last, SlidingLevel) else 0.0

    def answered(self, amount: float, seq: int) -> None:
        """A call came to its end without a header on this limit: it may have been counted after the last one."""
        if seq != self.told_by:
            self.lows = [low - amount for low in self.lows]

    # What a header says

    def tells(self, reading: QuotaReading) -> bool:
        """Whether it surely speaks of this limit."""
        return (
            reading.unit == self.unit
            and reading.scope == self.scope
            and (reading.window == self.window or reading.window is None)
        )

    def read(self, shot: Shot) -> None:
        """Take in a header."""
        self.readings += 1
        reading, now = shot.reading, shot.now
        doubtful = (
            self.readings < SURE_AFTER
            or self.readings % LOOK_AGAIN == 0
            or (reading.limit is not None and reading.limit != self.limit)
            or (self.active != (self.models[0],) and self.available(now) < HALF * self.limit)
        )
        if shot.newest:
            self._resize(reading, now, doubtful=doubtful)
            if doubtful:
                self._fit_depth(reading, now)
        remaining = reading.remaining
        if remaining is None:
            return
        if shot.newest:
            changes = [self._change(level, shot) for level in self.models]
            if doubtful:
                self._weigh(shot, changes)
            self._lower(remaining + shot.grain, changes, shot)
        for index, level in enumerate(self.models):
            if not is_over(level, shot):
                self._raise(index, level, remaining - shot.grain, shot.in_doubt, now)
        if reading.reset_after is not None and shot.newest:
            self._set_window_end(reading.reset_after, shot.sent_at, now)

    def _resize(self, reading: QuotaReading, now: float, *, doubtful: bool) -> None:
        limit = reading.limit or self.limit
        if reading.limit is None and reading.remaining is not None:
            limit = max(limit, reading.remaining)
        window = self._window_by_vote(reading) if doubtful else self.window
        if abs(limit - self.limit) > 0.001 * self.limit or window != self.window:
            for level in self.models:
                level.resize(limit, window, now)
            self.limit, self.window = limit, window

    def _fit_depth(self, reading: QuotaReading, now: float) -> None:
        """A bucket that is full after `reset` holds what is there and what flows in until then.

        Where that is less than the limit, and the same at different levels, the bucket is less deep.
        """
        bucket, remaining, reset_after = self.models[0], reading.remaining, reading.reset_after
        if not isinstance(bucket, BucketLevel) or remaining is None or not reset_after:
            return
        depth = remaining + reset_after * self.rate
        if depth > 0.9 * self.limit or abs(depth - bucket.burst) <= 1 + 0.02 * depth:
            self.depth_vote = None
        elif self.depth_vote is None or abs(self.depth_vote[0] - depth) > 1 + 0.02 * depth:
            self.depth_vote = (depth, remaining)
        elif abs(self.depth_vote[1] - remaining) > 0.1 * depth:
            bucket.deepen(self.depth_vote[0], now)
            self.scores[0] = max(self.scores)  # it was judged by another depth
            self.depth_vote = None
            self._choose()

    def _window_by_vote(self, reading: QuotaReading) -> float:
        """Another window, once readings at different levels agree on it: one may come out so by chance.

        The arithmetic holds for buckets: where this is none it finds a window in time by chance.
        """
        plausible = self.models[0] in self.active or self.readings <= FIRST_READINGS
        window = inferred_window(reading) if plausible else reading.window
        if window is None or window == self.window:
            self.vote = None
            return self.window
        if self.vote is None or self.vote[0] != window:
            self.vote = (window, reading.remaining)
        elif self._far_apart(self.vote[1], reading.remaining):
            self.vote = None
            return window
        return self.window

    def _far_apart(self, before: float | None, after: float | None) -> bool:
        """A bucket betrays the same window however much is used; any other reset only for a moment."""
        if before is None or after is None:
            return before is after
        low, high = sorted((self.limit - before, self.limit - after))
        return high >= 1.5 * low and high - low >= 2  # noqa: PLR2004 - beyond what rounding does

    def _change(self, level: Level, shot: Shot) -> float:
        """By how much `level` has grown from the send until now, as far as we know."""
        if isinstance(level, BucketLevel):
            return (shot.now - shot.sent_at) * self.rate - shot.since
        return (shot.returned if isinstance(level, SlidingLevel) else 0.0) - shot.since

    def _lower(self, remaining: float, changes: list[float], shot: Shot) -> None:
        """Down at once to the most that is possible.

        The provider stamped the header somewhere between the arrival of the request and its reply. What
        none of the plausible ways of counting foresaw, strangers have taken.
        """
        foreign, now = math.inf, shot.now
        overtaking = 0.0 if self._kept(now) else shot.overtaking
        for level, change in zip(self.models, changes, strict=True):
            if is_over(level, shot):
                foreign = 0.0
                continue
            excess = level.available(now) - max(remaining + change + overtaking, remaining)
            if level in self.active:
                foreign = min(foreign, excess)
            if excess > 0:
                level.correct(level.available(now) - excess, now)
        if 1.0 < foreign < math.inf:  # remaining is cut to a whole number
            self._strangers(foreign, now)

    def _raise(self, index: int, level: Level, remaining: float, in_doubt: float, now: float) -> None:
        """Up to what is sure: the least that any reply told, with its refill, less what is not answered yet.

        Replies overtake each other, but one of them was the last to be stamped, and it told no less than
        the least. It may have been stamped as late as now: a request can be seconds on its way.
        Strangers may have taken some since: where they were seen, the step is small.
        """
        left = level.available(now)
        low = min(self.lows[index] + level.refilled, remaining, self.limit)
        self.lows[index] = low - level.refilled
        surplus = low - in_doubt - left
        if surplus > 0:
            level.correct(left + surplus * (UP_GAIN if self._kept(now) else 1.0), now)

    def _strangers(self, amount: float, now: float) -> None:
        """Somebody else took `amount`: keep a floor, as large as what was seen, for the next time."""
        if self.readings > 1:
            kept = self._kept(now)
            self.floor_share = min(FLOOR_MAX, max(kept, amount / self.limit))
            self.floor_at = now

    # Which way of counting it is

    def _weigh(self, shot: Shot, changes: list[float]) -> None:
        if len(self.models) == 1:
            return
        marks = [
            0.0 if is_over(level, shot) else fit_of_level(level, shot, change)
            for level, change in zip(self.models, changes, strict=True)
        ]
        jumped = marks[1] == 0.0 and marks[2] <= TOO_LOW  # before the resets speak
        self.jumps = self.jumps + 1 if jumped else 0.98 * self.jumps
        if shot.reading.reset_after is not None:
            resets = fit_of_reset(self, shot, shot.reading.reset_after)
            marks = [mark + reset for mark, reset in zip(marks, resets, strict=True)]
        top = max(marks)
        if top == min(marks):
            return  # it speaks for none, and what was learned stands
        self.scores = [
            max(WORST, MEMORY * score + mark - top) for score, mark in zip(self.scores, marks, strict=True)
        ]
        self._choose()

    def _choose(self) -> None:
        """Those that are not far behind; and a sliding window for as long as a fixed one has not shown itself.

        Both tell the same until a window turns. To take a fixed one for sliding costs a moment, the reverse a
        burst of refusals: what tells them apart is that all comes back at once, again and again.
        """
        best = max(self.scores)
        chosen = [score >= best - MARGIN for score in self.scores]
        if len(chosen) > 1 and chosen[1] and self.jumps < JUMPS:
            chosen[2] = True
        self.active = tuple(level for level, take in zip(self.models, chosen, strict=True) if take)

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """A refusal says that `amount` is not there. Where all plausible ways saw it, strangers have taken it.

        A bucket that has it after `retry_after` seconds lacks what flows in until then.
        """
        excess = min(level.available(now) for level in self.active) - amount
        if excess > 0 and len(self.models) > 1 and self.models[-1].available(now) < amount:
            self.jumps = 0.0  # a sliding window foresaw it
            self._choose()
        elif excess > 0:
            self._strangers(excess + amount, now)
        for level in self.models:
            left = 0.7 * amount
            if retry_after is not None and isinstance(level, BucketLevel):
                left = min(left, max(-self.limit, amount - retry_after * self.rate))
            level.correct(min(level.available(now), left), now)

    def _set_window_end(self, reset_after: float, sent_at: float, now: float) -> None:
        earliest, latest = sent_at + reset_after, now + reset_after
        if self.window_end is not None:
            low, high = self.window_end
            if earliest <= high and latest >= low:
                earliest, latest = max(low, earliest), min(high, latest)
            elif high > now:
                return  # it contradicts; the end that was told first stands until it has passed
        self.window_end = (earliest, latest)
        level = self.models[1] if len(self.models) > 1 else None
        if isinstance(level, WindowLevel) and latest > now:
            level.ends_at = latest
            level.opened_by_take = None


_NAMES: dict[type, str] = {
    BucketLevel: "token_bucket",
    WindowLevel: "fixed_window",
    SlidingLevel: "sliding_window",
}
