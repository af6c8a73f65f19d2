"""Which way of counting a header speaks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from adaptive_rate_limiter.core.windows import SlidingLevel

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.levels import Level
    from adaptive_rate_limiter.core.told import ToldGauge
    from adaptive_rate_limiter.types import QuotaReading

ARRIVAL = 1.0  # seconds from a send to the provider's count of it, at the most, on a busy machine
BLUR = 0.2  # share of the limit by which sends that overtake each other may blur a header
STRANGERS = (
    0.3  # of the limit: the mean of what others take unseen; to take more is less likely, exponentially
)
PRECISION = 0.03  # of a reset that fits
OPENED = 0.005  # of a reset that is told by the call that opened its window
WHOLE = 1.0  # seconds by which a reset may be rounded
ENOUGH = 3.0  # units: with less used, cutting what remains to a whole number leaves several windows possible
WINDOWS = (1.0, 10.0, 60.0, 300.0, 3600.0, 86400.0, 2592000.0)  # what providers count in


class Shot(NamedTuple):
    """A header, like an old photograph: what it tells, and what happened from its send until its reply at `now`.

    `newest`: no later send was heard of. `since` was charged after the send, `overtaking` of it so soon that it
    may be in the picture, and `returned` came back to a sliding window; `ahead` was sent before it and not answered
    by then, and may not be in the picture; `unread` was answered since, and nothing was read of what is left;
    `in_doubt` is all that is sent and not answered yet.
    """

    reading: QuotaReading
    newest: bool
    sent_at: float
    since: float
    overtaking: float
    ahead: float
    returned: float
    unread: float
    in_doubt: float
    now: float

    @property
    def grain(self) -> float:
        return grain_of(self.reading)


def grain_of(reading: QuotaReading) -> float:
    """Half of the step to which a figure is rounded: Anthropic rounds tokens to the nearest 1000."""
    limit, remaining = reading.limit, reading.remaining
    if reading.unit == "requests" or not limit or not remaining:
        return 0.0
    return 500.0 if remaining % 1000 == 0 and limit % 1000 == 0 else 0.0


def fit_of_level(level: Level, shot: Shot, change: float) -> float:
    """How well this way of counting foresaw `remaining`; 0 is best. It grew by `change` since the send."""
    remaining = shot.reading.remaining or 0.0
    left, blur = level.available(shot.now), BLUR * level.limit + shot.grain
    if unforeseen(level, shot) > blur:
        return -1.0
    excess = left - max(remaining + change, remaining)
    return -excess / (STRANGERS * level.limit) if excess > blur else 0.0


def unforeseen(level: Level, shot: Shot) -> float:
    """How much more is told than was there under this way of counting, whatever was counted late."""
    soon = level.returning(shot.now + ARRIVAL) if isinstance(level, SlidingLevel) else 0.0
    return (
        (shot.reading.remaining or 0.0) - level.available(shot.now) - soon - max(shot.since, 0.0) - shot.ahead
    )


def still_a_bucket(gauge: ToldGauge, shot: Shot, change: float) -> bool:
    """Whether nothing in this header speaks against a bucket, which grew by `change` since the send."""
    if fit_of_level(gauge.bucket, shot, change):
        return False
    reset_after = shot.reading.reset_after
    return reset_after is None or not _fit_of_bucket(gauge, shot, reset_after, _blur(reset_after))


def _blur(reset_after: float) -> float:
    return (WHOLE if reset_after == int(reset_after) else 0.1) + 0.02 * reset_after


def fit_of_reset(gauge: ToldGauge, shot: Shot, reset_after: float) -> tuple[float, float, float]:
    """How well bucket, fixed window and sliding window foresaw the reset.

    While the window is a guess, a reset that fits a bucket with another one speaks against none of them.
    """
    if gauge.guessed:
        possible = windows_of_bucket(shot.reading)
        if possible and gauge.window not in possible:
            return 0.0, 0.0, 0.0
    blur = _blur(reset_after)
    earliest, latest = shot.sent_at + reset_after - blur, shot.now + reset_after + blur
    sliding = -2.5  # strangers can move it to anywhere
    if _may_leave(gauge.sliding, earliest, latest + 2 * blur, shot.now) or (
        shot.returned > 0 and earliest <= shot.now
    ):
        sliding = 0.0  # the oldest use leaves then, or has left since
    bucket = _fit_of_bucket(gauge, shot, reset_after, blur)
    fixed = -3.0 if reset_after > gauge.window + blur else _fit_of_window(gauge, earliest, latest)
    if gauge.window_end is None and not bucket and shot.reading.remaining != shot.reading.limit:
        # The end of a window may be anywhere: that it is just where a bucket would be full is unlikely.
        fixed = max(-3.0, math.log(min(1.0, (2 * blur + 1.0 / gauge.rate) / gauge.window)))
    return bucket, fixed, sliding


def _fit_of_bucket(gauge: ToldGauge, shot: Shot, reset_after: float, blur: float) -> float:
    """A bucket is full after used / rate."""
    full_in = (gauge.bucket.capacity - (shot.reading.remaining or 0.0)) / gauge.rate
    slack = blur + shot.grain / gauge.rate
    rounded = 1.0 / gauge.rate  # remaining is cut to a whole number, so up to one unit less was used
    return 0.0 if full_in - rounded - slack <= reset_after <= full_in + slack else -3.0


def _fit_of_window(gauge: ToldGauge, earliest: float, latest: float) -> float:
    """The end of a fixed window stays where it is."""
    if gauge.window_end is None:
        return -1.5  # one never seen before may be anywhere
    low, high = gauge.window_end
    if earliest <= high and latest >= low:
        return 0.0
    return (
        -3.0 if latest < low + gauge.window else -1.5
    )  # neither this window's end nor one of a later window


def _may_leave(level: Level, earliest: float, latest: float, now: float) -> bool:
    """Whether the oldest use of a sliding window may leave it in that time.

    It came up to ARRIVAL later than it was sent, and leaves as much later.
    """
    if isinstance(level, SlidingLevel):
        for key in level.keys:
            leaves = level.returns_at(key)
            if earliest - level.width <= leaves <= latest + ARRIVAL:
                return True
            if leaves > now + ARRIVAL + level.width:
                break
    return False


def betrayed_window(reading: QuotaReading) -> float | None:
    """The window of the bucket that tells this: it is full again after used / limit of it.

    It counts only where it comes out close to one that providers use; or where so much is used that one alone is possible.
    """
    limit, remaining, reset_after = reading.limit, reading.remaining, reading.reset_after
    if not (limit and remaining is not None and reset_after and remaining < limit):
        return None
    implied = reset_after * limit / (limit - remaining)
    nearest = min(WINDOWS, key=lambda window: abs(math.log(window / implied)))
    if reset_after != int(reset_after) and abs(implied / nearest - 1) < PRECISION:
        return nearest
    if limit - remaining >= ENOUGH and reading.window is None:
        possible = windows_of_bucket(reading)
        return possible[0] if len(possible) == 1 else None
    return None


def least_window(reading: QuotaReading, window: float) -> float:
    """`window`, or the shortest in use that is as long as the reset that was told: none takes longer than its window."""
    reset_after = reading.reset_after or 0.0
    if reading.window is not None or reset_after <= window * (1 + PRECISION) + WHOLE:
        return window
    return next((each for each in WINDOWS if reset_after <= each * (1 + PRECISION) + WHOLE), window)


def opened_window(reading: QuotaReading, spent: float) -> float | None:
    """The window, other than a bucket's, that we opened: its first reset tells its length. `spent`: ours until then.

    Where no more is used than that, nobody else was here.
    """
    limit, remaining, reset_after = reading.limit, reading.remaining, reading.reset_after
    if not limit or remaining is None or not reset_after or not 0 < limit - remaining <= spent:
        return None
    if reset_after <= WHOLE or betrayed_window(reading) is not None:  # any may be as short, rounded up
        return None
    return next((each for each in WINDOWS if abs(reset_after / each - 1) < OPENED), None)


def windows_of_bucket(reading: QuotaReading) -> list[float]:
    """Those in use that a bucket may have that tells this. Remaining is cut: up to one unit less was used."""
    limit, remaining, reset_after = reading.limit, reading.remaining, reading.reset_after
    if not limit or remaining is None or not reset_after or reset_after == int(reset_after):
        return []
    used, found = limit - remaining, []
    for window in WINDOWS:
        longest = used * window / limit
        shortest = longest - window / limit - PRECISION * longest
        if shortest <= reset_after <= longest * (1 + PRECISION):
            found.append(window)
    return found
