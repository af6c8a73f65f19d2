"""A limit that headers tell: followed in three ways at once, until a header tells them apart.

Every header speaks for or against a token bucket, a fixed window and a sliding window, and a call is admitted
only by all that are still plausible. That costs a little time at first, and never a refusal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.contest import Contest
from adaptive_rate_limiter.core.evidence import (
    ARRIVAL,
    WHOLE,
    Shot,
    fit_of_level,
    fit_of_reset,
    least_window,
    still_a_bucket,
    unforeseen,
    windows_of_bucket,
)
from adaptive_rate_limiter.core.gauge import HALF, NAMES, Gauge
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.core.votes import SHALLOW, DepthVote, WindowVote
from adaptive_rate_limiter.core.windows import SlidingLevel, WindowLevel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adaptive_rate_limiter.core.hold import Mark
    from adaptive_rate_limiter.core.quota import Cost
    from adaptive_rate_limiter.types import QuotaReading

UP_GAIN = 0.1  # share of a told surplus that is believed at once; measured in a simulation of stale headers
JITTER = 0.3  # seconds by which one send may overtake the one before it on its way
LEAST_FLOOR = 0.1  # of a unit: less is no protection, and would keep the last whole one of a small limit
FLOOR_MAX = 0.05  # share of the limit kept for strangers on the key; from the same simulation
SURE_AFTER = 64  # readings: from then on not all are weighed where only a bucket is plausible, nor any read
LATE = 0.5  # of a window: by how much a retry-after must contradict a way of counting to speak against it
WHOLE_MAX = 0.1  # of a window: a limit per second would wait for three otherwise
LOOK_AGAIN = 8  # of those that find nothing near, one in so many is weighed, since providers change
FIRST_READINGS = 10  # in which a wrong guess of the window may be what speaks against a bucket


class ToldGauge(Gauge):
    """One limit on one unit, as one header of each reply tells it."""

    __slots__ = (
        "bucket", "contest", "depth_vote", "fixed", "floor_at", "floor_share", "guard", "in_flight", "lows", "newest", "place", "promise",
        "readings", "scope", "sliding", "told_by", "unread", "window_end", "window_vote",
    )  # fmt: skip

    def __init__(
        self, reading: QuotaReading, limit: float, window: float, now: float, place: int = 0
    ) -> None:
        self.bucket = BucketLevel(limit, window, now)
        self.fixed = WindowLevel(limit, window, now)
        self.sliding = SlidingLevel(limit, window, now)
        super().__init__(reading.unit, limit, window, (self.bucket, self.fixed, self.sliding), "told")
        self.scope = reading.scope
        self.place = place  # among those that headers tell
        self.contest = Contest()
        self.window_vote, self.depth_vote = WindowVote(), DepthVote()
        self.newest = -1  # sequence number of the latest send whose header was taken
        self.told_by = -1  # of the send whose header is being taken
        self.lows = [math.inf] * 3  # per model: least remaining told, less its refill
        self.in_flight = 0.0  # reserved, and maybe in no header yet
        self.unread = 0.0  # of calls that came to their end without one
        self.readings = 0
        self.guard = _guard(limit, window)
        self.floor_share = 0.0
        self.floor_at = 0.0
        self.window_end: tuple[float, float] | None = None  # earliest and latest instant told for it
        self.promise: tuple[float, float] | None = (
            None  # when its reset has passed, and what is there at the least
        )

    @property
    def algorithm(self) -> str:
        return NAMES[type(self.models[self.contest.likeliest])]

    def floor(self, now: float) -> float:
        """What is kept back: for a bucket, what flows in within the jitter of sends; and for strangers on the
        key what was seen of them, halved with every window without a sign.
        """
        least = self.guard if self.active[0] is self.bucket else 0.0
        return least + self.limit * self._kept(now) if self.floor_share else least

    def _kept(self, now: float) -> float:
        """The share that is kept for strangers."""
        if self.floor_share < 1e-4:  # noqa: PLR2004 - a ten-thousandth of the limit is nothing
            return 0.0
        return self.floor_share * math.pow(0.5, (now - self.floor_at) / self.window)

    def repay(self, surplus: float, now: float, taken_at: float, *, counted: bool) -> None:
        """Give back what a call did not use; where a header `counted` the call, it is in there already."""
        if counted and surplus > 0:
            for level in self.followed:
                level.recount(surplus)
        else:
            self.give(surplus, now, taken_at)

    def counts(self, reading: QuotaReading) -> bool:
        """Whether it says what is left; after calls, all is never left."""
        return reading.remaining is not None and (reading.remaining < self.limit or self.readings == 1)

    def mark(self, cost: Cost, spent: Mapping[str, float]) -> Mark:
        """Where it stands as a call of `cost` goes, which is in what was `spent`."""
        ahead, unit = self.in_flight, self.unit
        self.in_flight = ahead + cost.get(unit, 0.0)
        return spent[unit], ahead, self.sliding.refilled, self.unread

    def answered(self, amount: float, seq: int, *, counted: bool) -> None:
        """A call came to its end. Without a header on this limit it may have been `counted` after the last one."""
        self.in_flight -= amount
        if counted and seq != self.told_by:
            self.unread += amount
            lows = self.lows
            lows[0] -= amount
            lows[1] -= amount
            lows[2] -= amount

    # What a header says

    def tells(self, reading: QuotaReading) -> bool:
        """Whether it surely speaks of this limit."""
        return (
            reading.unit == self.unit
            and reading.scope == self.scope
            and (reading.window == self.window or reading.window is None)
        )

    def is_at_ease(self, reading: QuotaReading) -> bool:
        """Many headers were read, and nothing is near the limit."""
        return (
            self.readings > SURE_AFTER
            and reading.limit == self.limit
            and self.left > HALF * self.limit
            and (reading.remaining is None or reading.remaining > HALF * self.limit)
        )

    def returned(self, now: float) -> float:
        """What has come back to a sliding window until `now`, in all."""
        self.sliding.available(now)
        return self.sliding.refilled

    def read(self, shot: Shot) -> None:
        """Take in a header."""
        reading, now = shot.reading, shot.now
        if shot.newest:
            doubtful = (
                self.readings <= SURE_AFTER
                or self.readings % LOOK_AGAIN == 0
                or (reading.limit is not None and reading.limit != self.limit)
                or self.active != (self.bucket,)
            )
            self._resize(reading, now, doubtful=doubtful)
            if doubtful:
                self._fit_depth(reading, now)
                if reading.remaining is not None:
                    self._weigh(shot, self._changes(shot))
        if reading.remaining is not None:
            self._correct(reading.remaining, shot)
            if reading.reset_after is not None and shot.newest:
                self._set_window_end(reading.reset_after, reading.remaining, shot.sent_at, now)

    def _resize(self, reading: QuotaReading, now: float, *, doubtful: bool) -> None:
        limit = reading.limit or self.limit
        if reading.limit is None and reading.remaining is not None:
            limit = max(limit, reading.remaining)
        window = self.window
        if doubtful:
            may_be_bucket = self.bucket in self.active or self.readings <= FIRST_READINGS
            window = self.window_vote.window(reading, self.limit, window, may_be_bucket=may_be_bucket)
        window = least_window(reading, window)
        if abs(limit - self.limit) > 0.001 * self.limit or window != self.window:
            for level in self.models:
                level.resize(limit, window, now)
            self.limit, self.window = limit, window
            self.guard = _guard(limit, window)

    def _fit_depth(self, reading: QuotaReading, now: float) -> None:
        if self.guessed and windows_of_bucket(reading) not in ([], [self.window]):
            return  # as deep as its limit, and another window, explain it as well
        depth = self.depth_vote.depth(reading, self.limit, self.rate, self.bucket.burst, now)
        if depth is not None:
            self.bucket.deepen(depth, now)
            self.contest.forgive_bucket()
            self.choose()

    @property
    def guessed(self) -> bool:
        """Its window: no reset has betrayed it yet."""
        return self.window_vote.guessed

    def _changes(self, shot: Shot) -> tuple[float, float, float]:
        """By how much each model has grown from the send until now, as far as we know."""
        since = shot.since
        return (shot.now - shot.sent_at) * self.rate - since, -since, shot.returned - since

    def is_over(self, shot: Shot) -> bool:
        """It speaks of a fixed window that has ended."""
        return self.fixed.opened_at(shot.now) > shot.sent_at + shot.grain

    def _correct(self, remaining: float, shot: Shot) -> None:
        """Down at once to the most that is possible, and up to what is sure.

        Down: the provider stamped the header somewhere between the arrival of the request and its reply. What
        none of the plausible ways of counting foresaw, strangers have taken.

        Up: to the least that any reply told, with its refill, less what is not answered yet. Replies overtake
        each other, but one of them was the last to be stamped, and it told no less than the least. It may have
        been stamped as late as now: a request can be seconds on its way. Strangers may have taken some since:
        where they were seen, the step is small.
        """
        now, kept = shot.now, self._kept(shot.now)
        most, least = remaining + shot.grain, remaining - shot.grain - shot.unread
        overtaking = 0.0 if kept else shot.overtaking
        changes = self._changes(shot)
        over = self.is_over(shot)
        foreign = math.inf
        for index, level in enumerate(self.followed):
            if over and level is self.fixed:
                foreign = 0.0
                continue
            left = level.available(now)
            if shot.newest:
                grown = changes[index] + overtaking
                excess = left - most - grown if grown > 0 else left - most
                if excess < foreign and level in self.active:
                    foreign = excess
                if excess > 0:
                    left -= excess
                    level.correct(left, now)
            # What is about to come back may have done so at the provider, and is in what it told.
            soon = level.returning(now + ARRIVAL) if level is self.sliding else 0.0
            low = min(self.lows[index] + level.refilled, least - soon, self.limit)
            self.lows[index] = low - level.refilled
            surplus = low - shot.in_doubt - left
            if surplus > 0 and (remaining < self.limit or self.readings == 1):
                level.correct(left + surplus * (UP_GAIN if kept else 1.0), now)
        if shot.newest and 1.0 < foreign < math.inf:  # remaining is cut to a whole number
            self._strangers(foreign, now)

    def catch_up(self, last_sent_at: float, now: float) -> None:
        """Nothing is in doubt any more: the least that was told, with its refill, is there.

        The reply that told it may have come while its refill was still to come, and no other may follow. And
        when the reset that was told has passed, one call can go, whatever else is believed, where this may be a
        bucket that holds much less than its limit, which looks like a window that others have used up, or a fixed
        window that began before our first call.
        """
        if self.promise is not None and (self._may_be_shallow() or self._may_have_turned()):
            if self.promise[0] > last_sent_at and self.invitation is None:
                self.invitation = self.promise
            self.promise = None
        if self._kept(now):
            return
        for index, level in enumerate(self.followed):
            low = self.lows[index] + level.refilled
            if level.available(now) < low < math.inf:
                level.correct(min(low, self.limit), now)

    def _may_be_shallow(self) -> bool:
        shallow = self.readings <= FIRST_READINGS or self.bucket.burst < SHALLOW * self.limit
        return shallow and self.bucket in self.active

    def _may_have_turned(self) -> bool:
        return self.fixed in self.active and self.sliding in self.active

    def _strangers(self, amount: float, now: float) -> None:
        """Somebody else took `amount`: keep a floor, as large as what was seen, for the next time."""
        if self.readings > 1:
            kept = self._kept(now)
            self.floor_share = min(FLOOR_MAX, max(kept, amount / self.limit))
            self.floor_at = now

    # Which way of counting it is

    def _weigh(self, shot: Shot, changes: tuple[float, float, float]) -> None:
        if self.followed is not self.models:
            if still_a_bucket(self, shot, changes[0]):
                return
            self.follow(self.models)
        over = self.is_over(shot)
        marks = [
            0.0 if over and level is self.fixed else fit_of_level(level, shot, change)
            for level, change in zip(self.models, changes, strict=True)
        ]
        # Before the resets speak.
        self.contest.look_for_turn(marks, whole=unforeseen(self.sliding, shot) > HALF * self.limit)
        if shot.reading.reset_after is not None:
            resets = fit_of_reset(self, shot, shot.reading.reset_after)
            marks = [mark + reset for mark, reset in zip(marks, resets, strict=True)]
        if self.contest.judge(marks):
            self.choose()

    def choose(self) -> None:
        """From now on those are believed that are plausible by what was told so far."""
        plausible = self.contest.plausible
        self.active = tuple(level for level, take in zip(self.models, plausible, strict=True) if take)
        if self.readings > SURE_AFTER and self.contest.is_bucket:
            self.follow(self.models[:1])
            self.lows[1:] = [math.inf, math.inf]

    def refused(self, amount: float, retry_after: float | None, now: float) -> None:
        """Where all plausible ways of counting saw `amount`, strangers have taken it."""
        self.follow(self.models)
        excess = min(level.available(now) for level in self.active) - amount
        if excess > 0 and self.sliding.available(now) < amount:
            self.contest.jumps = 0.0  # a sliding window foresaw it
            self.choose()
        elif excess > 0:
            self._strangers(excess + amount, now)
        if retry_after:
            self._weigh_retry(amount, now + retry_after, now)
        super().refused(amount, retry_after, now)

    def _weigh_retry(self, amount: float, retry_at: float, now: float) -> None:
        """A way of counting that has nothing until long after the provider says to come again is hardly it."""
        late = [level.ready_at(amount, now) > retry_at + LATE * self.window for level in self.models]
        if any(late) and not all(late):
            self.contest.doubt(late)
            self.choose()

    def _set_window_end(self, reset_after: float, remaining: float, sent_at: float, now: float) -> None:
        # Whole seconds may have been cut, or rounded up: an end that is taken too early costs a burst of refusals.
        whole = min(WHOLE, WHOLE_MAX * self.window) if reset_after == int(reset_after) else 0.0
        earliest, latest = sent_at + reset_after - whole, now + reset_after + whole
        self.promise = (latest, 1.0 if self.unit == REQUESTS else remaining + reset_after * self.rate)
        if self.window_end is None or sent_at > self.window_end[1]:  # the first of a window
            latest = min(latest, now + self.window)
        if self.window_end is not None:
            low, high = self.window_end
            if earliest <= high and latest >= low:
                earliest, latest = max(low, earliest), min(high, latest)
            elif high > now:
                return  # it contradicts; the end that was told first stands until it has passed
        self.window_end = (earliest, latest)
        if latest > now:
            self.fixed.ends_at = latest
            self.fixed.opened_by_take = None


def _guard(limit: float, window: float) -> float:
    """What is kept back of a bucket against sends that overtake each other."""
    least = min(JITTER * limit / window, FLOOR_MAX * limit)
    return least if least >= LEAST_FLOOR else 0.0
