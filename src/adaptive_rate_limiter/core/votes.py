"""What headers leave to arithmetic: the window of a limit and the depth of its bucket, once readings agree on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.evidence import betrayed_window, windows_of_bucket

if TYPE_CHECKING:
    from adaptive_rate_limiter.types import QuotaReading

SHALLOW = 0.9  # of its limit: a bucket that holds less
PRECISION = 0.02  # of a depth that is told again


class WindowVote:
    """Another window, once readings at different levels agree on it: one may come out so by chance.

    The arithmetic holds for buckets: where this is none it finds a window in time by chance. `guessed`: no reset
    has betrayed the window that is in force.
    """

    __slots__ = ("_last", "guessed")

    def __init__(self, *, guessed: bool = True) -> None:
        self.guessed = guessed
        self._last: tuple[float, float | None] | None = None  # another window, and what remained then

    def window(self, reading: QuotaReading, limit: float, window: float, *, may_be_bucket: bool) -> float:
        """The one to believe in, where `window` was believed in before."""
        betrayed = betrayed_window(reading) if may_be_bucket else None
        told = betrayed or reading.window
        if betrayed is None and may_be_bucket and not self.guessed and window in windows_of_bucket(reading):
            return window  # it fits, too blurred to betray it
        if told is None or told == window:
            self.guessed = self.guessed and betrayed is None
            self._last = None
            return window
        if self._last is None or self._last[0] != told:
            self._last = (told, reading.remaining)
        elif _far_apart(limit, self._last[1], reading.remaining):
            self._last, self.guessed = None, betrayed is None
            return told
        return window


def _far_apart(limit: float, before: float | None, after: float | None) -> bool:
    """A bucket betrays the same window however much is used; any other reset only for a moment."""
    if before is None or after is None:
        return before is after
    low, high = sorted((limit - before, limit - after))
    return high >= 1.5 * low and high - low >= 2  # noqa: PLR2004 - beyond what rounding does


class DepthVote:
    """Another depth of a bucket, which is full after `reset`: it holds what is there and what flows in until then.

    Where that is less than the limit, and the same at different levels, the bucket is less deep. One that holds
    a unit is never seen at different levels: it tells the same again later, when a window would end sooner.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[float, float, float] | None = None  # a depth, what remained then, and when

    def depth(
        self, reading: QuotaReading, limit: float, rate: float, burst: float, now: float
    ) -> float | None:
        """The one that readings agree on; None while they do not, or where it is `burst` as before."""
        remaining, reset_after = reading.remaining, reading.reset_after
        if remaining is None or not reset_after:
            return None
        depth, last = remaining + reset_after * rate, self._last
        close = PRECISION * depth
        blur = 1 + close  # remaining is cut to a whole number
        if depth > SHALLOW * limit or abs(depth - burst) <= blur:
            self._last = None
        elif last is None or abs(last[0] - depth) > (close if last[1] == remaining else blur):
            self._last = (depth, remaining, now)
        elif abs(last[1] - remaining) > 0.1 * depth or (now - last[2]) * rate > 2 * blur:
            self._last = None
            return last[0]
        return None
