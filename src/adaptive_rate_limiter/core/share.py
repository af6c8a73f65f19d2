"""One limit that workers share: how much of it is left to lease, in each way of counting that is plausible."""

from __future__ import annotations

import math

from adaptive_rate_limiter.core.quota import REQUESTS
from adaptive_rate_limiter.core.renewal import NO_HEADER

BINS = 120  # of a sliding window: what returns is late by one of so many at the most, never early
CERTAIN = 1e9  # evidence: what a user states
JITTER = 0.3  # seconds by which one send may overtake the one before it on its way
JITTER_MOST, JITTER_LEAST = 0.05, 0.1  # of the limit, and of a unit
OVERTOOK = 0.01  # of the limit: so much one worker may send before a reply and have counted after it
ON_THE_WAY = 0.5  # seconds from a grant until the provider counts the call, as reckoned with
NEWS, ANSWERED = 0.1, 1.0  # seconds: for so long after a told reset it is worth asking again, and how soon
ON_THE_WAY_MOST = 0.05  # of a window: a limit per second would wait too long otherwise


def on_the_way(window: float) -> float:
    """Seconds from a grant until the provider counts the call, for which nothing need be told."""
    return min(ON_THE_WAY, ON_THE_WAY_MOST * window)


class SharedLimit:
    """Counts as `core/levels.py` does, in few plain fields, since the same is done in Lua.

    `taken` and `refilled` are running totals: what was taken and not given back, and what has come back.
    """

    __slots__ = (
        "algorithms", "at", "bins", "burst", "ended_at", "ends_at", "ends_told", "evidence", "flying", "key", "leased", "limit",
        "newest", "refilled", "taken", "told_left", "unit", "used", "value", "waiting", "window",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - a plain record
        self, key: str, unit: str, limit: float, window: float, burst: float, now: float
    ) -> None:
        self.key = key
        self.unit = unit
        self.limit = limit
        self.window = window
        self.burst = burst if burst > 0 else limit
        self.algorithms = "bfs"
        self.evidence = 0.0
        self.at = now
        self.value = self.burst
        self.used = 0.0
        self.ends_at = math.inf
        self.ends_told = False
        self.ended_at = -ANSWERED  # that which a header told last
        self.bins: list[list[float]] = []  # [number of the bin, amount], the oldest first
        self.taken = 0.0
        self.refilled = 0.0
        self.newest = 0.0
        self.told_left = 0.0  # by the header of that time
        self.leased = 0.0  # sums over all workers, kept by their roster
        self.flying = 0.0
        self.waiting = 0.0

    @property
    def capacity(self) -> float:
        return self.burst if "b" in self.algorithms else self.limit

    @property
    def guard(self) -> float:
        """What is kept back of a told bucket against sends that overtake each other, as in `core/told.py`."""
        if self.evidence >= CERTAIN or "b" not in self.algorithms:
            return 0.0
        least = min(JITTER * self.limit / self.window, JITTER_MOST * self.limit)
        return least if least >= JITTER_LEAST else 0.0

    @property
    def span(self) -> float:
        """After so long a window has returned what was granted, as far as nobody told better."""
        return self.window + on_the_way(self.window)

    def _slid(self) -> float:
        total = 0.0
        for entry in self.bins:
            total += entry[1]
        return self.limit - total

    def available(self, kept: float = 0.0) -> float:
        """The least that is left in any plausible way of counting; below zero is debt. Of a bucket some is `kept`."""
        least = math.inf
        if "b" in self.algorithms:
            least = min(least, self.value - kept)
        if "f" in self.algorithms:
            least = min(least, self.limit - self.used)
        if "s" in self.algorithms:
            least = min(least, self._slid())
        return least

    def advance(self, now: float, leased: float) -> None:
        """Time has passed. What is out on lease may not be spent yet: a bucket that is full but for it gains nothing.

        At the turn of a fixed window it will be spent in the new one.
        """
        before = self.available()
        if now > self.at:
            full = max(self.value, self.burst - leased)
            self.value = min(full, self.value + (now - self.at) * self.limit / self.window)
            self.at = now
        if now >= self.ends_at:
            if self.ends_told:
                self._reset(now)
            self.used = leased
            self.ends_at = now + self.span if leased > 0 else math.inf
            self.ends_told = False
        width = self.window / BINS
        while self.bins and (self.bins[0][0] + 1) * width + self.span <= now:
            self.bins.pop(0)
        self.refilled += max(0.0, self.available() - before)

    def _reset(self, now: float) -> None:
        """A reset that a header told: where that of a sliding window, its oldest use has left, so that one call can go.

        Its header tells what else is back.
        """
        self.ended_at = now
        if self.unit == REQUESTS:
            self._return_oldest(max(0.0, 1.0 - self._slid()))

    def exchange(self, leased: float, spent: float, now: float, leased_at: float) -> None:
        """A lease is replaced by what was spent or kept of it; what was spent counts from now on."""
        self.taken += spent - leased
        self.value = min(self.burst, self.value + leased - spent)
        self._use(spent - leased, now)
        self._unbin(leased, leased_at)
        self._bin(spent, now)

    def take(self, amount: float, now: float, taken_at: float) -> None:
        """Take `amount`, or give back what was taken at `taken_at` if it is below zero."""
        self.taken += amount
        self.value = min(self.burst, self.value - amount)
        self._use(amount, now)
        if amount < 0:
            self._unbin(-amount, taken_at)
        else:
            self._bin(amount, now)

    def _use(self, amount: float, now: float) -> None:
        self.used = max(0.0, self.used + amount)
        if amount > 0 and self.ends_at == math.inf:
            self.ends_at = now + self.span
            self.ends_told = False

    def _bin(self, amount: float, now: float) -> None:
        if "s" not in self.algorithms:
            return
        number = math.floor(now / (self.window / BINS))
        if amount < 0:
            self._return_oldest(-amount)
        elif amount > 0:
            if not self.bins or self.bins[-1][0] < number:
                self.bins.append([number, 0.0])
            self.bins[-1][1] += amount

    def _unbin(self, amount: float, taken_at: float) -> float:
        """Out of the bin of `taken_at`, then of later ones; what is in none has come back already. Returns what was."""
        number, left = math.floor(taken_at / (self.window / BINS)), amount
        for entry in self.bins:
            if entry[0] >= number and left > 0:
                part = min(left, entry[1])
                entry[1] -= part
                left -= part
        return amount - left

    def postpone(self, amount: float, taken_at: float, counted_at: float) -> None:
        """What was taken from `taken_at` on was sent at `counted_at`: a sliding window returns it that much later."""
        moved = self._unbin(amount, taken_at)
        if moved <= 0:
            return
        number = math.floor(counted_at / (self.window / BINS))
        for entry in self.bins:
            if entry[0] >= number:
                entry[1] += moved
                return
        self.bins.append([number, moved])

    def _return_oldest(self, amount: float) -> None:
        for entry in self.bins:
            part = min(amount, entry[1])
            entry[1] -= part
            amount -= part

    def correct(self, available: float, now: float) -> None:
        """Set what is left, in every way of counting."""
        available = min(available, self.capacity)
        self.value = min(self.burst, available)
        self.used = max(0.0, self.limit - available)
        if self.used > 0 and self.ends_at == math.inf:
            self.ends_at = now + self.span
            self.ends_told = False
        if "s" in self.algorithms:
            missing = self._slid() - available
            if missing > 0:
                self._bin(missing, now)
            else:
                self._return_oldest(-missing)

    def lift(self, available: float) -> None:
        """At least so much is left. A way of counting that has more keeps it: where that is not the right one, the
        others bind.
        """
        available = min(available, self.capacity)
        self.value = max(self.value, min(self.burst, available))
        self.used = min(self.used, max(0.0, self.limit - available))
        self._return_oldest(max(0.0, available - self._slid()))

    def shape(self, algorithms: str, evidence: float, now: float) -> None:
        """What is known of the way of counting; a sliding window that was not followed starts from what is left."""
        left = self.available()
        self.evidence = evidence
        if algorithms != self.algorithms:
            slides = "s" in self.algorithms
            self.algorithms = algorithms
            if "s" not in algorithms:
                self.bins = []
            elif not slides:
                self._bin(max(0.0, self.limit - left), now)

    def resize(self, limit: float, window: float, burst: float, now: float) -> None:
        """Change the limit in either direction; what was used stays used."""
        burst = burst if burst > 0 else limit
        self.value = min(burst, self.value + burst - self.burst)
        self.burst = burst
        if window != self.window:
            used = max(0.0, self.limit - self._slid())
            self.bins = []
            self.window = window
            self._bin(used, now)
            self.ends_at = min(self.ends_at, now + self.span) if self.ends_at < math.inf else math.inf
        self.limit = limit

    def told(self, remaining: float, sent: float, at: float) -> bool:
        """By the header of a request of that time: those of earlier ones are taken no more.

        Of those that may have overtaken each other, what the least told is sure once all were answered.
        """
        if sent <= NO_HEADER:
            return True
        if at <= self.newest - JITTER:
            return False
        close = at < self.newest + JITTER
        self.told_left = min(self.told_left, remaining) if close else remaining
        newer, self.newest = at > self.newest, max(at, self.newest)
        return newer

    def sure(self, amount: float) -> float:
        """What is left for one who has nothing under way, and so hears no more: `amount`, if that is sure, or nothing.

        Which calls the last header counted is not known. They were answered, or are under way; a few overtook it.
        """
        least = self.told_left - self.leased - self.flying - OVERTOOK * self.limit
        return amount if 0 < amount <= least and self.algorithms != "b" else -math.inf

    def end_at(self, when: float) -> None:
        """A header told the reset of a window, which may have passed: the earliest of those that were told stands."""
        if self.algorithms != "b" and when > self.ended_at:
            self.ends_at = min(self.ends_at, when) if self.ends_told else when
            self.ends_told = True

    def ready_at(self, amount: float, now: float) -> float:
        """When `amount` will be there, if nothing else is taken or given back."""
        latest = now
        amount = min(amount, self.capacity)
        if "b" in self.algorithms and self.value < amount:
            latest = max(latest, now + (min(amount, self.burst) - self.value) * self.window / self.limit)
        if "f" in self.algorithms and self.limit - self.used < amount:
            latest = max(latest, self.ends_at if self.ends_at < math.inf else now + self.span)
        if "s" in self.algorithms:
            latest = max(latest, min(self._slides_at(amount, now), self._news_at(now)))
        return latest

    def _slides_at(self, amount: float, now: float) -> float:
        left, at, width = self._slid(), now, self.window / BINS
        for entry in self.bins:
            if left >= amount:
                break
            left += entry[1]
            at = (entry[0] + 1) * width + self.span
        return at

    def _news_at(self, now: float) -> float:
        """When one call can go and its header tells more; or, soon after, when that header may have come."""
        if self.ends_told:
            return self.ends_at
        return now + NEWS if now < self.ended_at + ANSWERED else math.inf
