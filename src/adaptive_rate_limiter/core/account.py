"""Where the time went, against the least that the limits would have allowed."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive_rate_limiter.core.gauge import Gauge


@dataclass(frozen=True, slots=True)
class AccountReport:
    """`elapsed` seconds were taken for work that needed at least `lower_bound`.

    `share` is lower_bound / elapsed, at most 1. `waited` tells how long each reason held the queue back.
    """

    elapsed: float
    lower_bound: float
    share: float
    binding: str | None
    waited: dict[str, float] = field(default_factory=dict)


class Account:
    """Adds up, for one bucket, what was asked of each limit and what the line waited for."""

    __slots__ = ("admitted", "at", "last", "reason", "refused", "started_at", "waited")

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.last = self.at = 0.0
        self.reason: str | None = None
        self.waited: dict[str, float] = {}
        self.admitted = 0
        self.refused = 0

    def admit(self, now: float) -> None:
        if self.started_at is None:
            self.started_at = now
        self.last = now
        self.admitted += 1

    def hold_back(self, reason: str | None, now: float) -> None:
        """From `now` on the line waits for `reason` (None: nobody waits)."""
        if self.reason is not None:
            self.waited[self.reason] = self.waited.get(self.reason, 0.0) + now - self.at
        self.reason, self.at = reason, now

    def report(self, gauges: list[Gauge], spent: dict[str, float], now: float) -> AccountReport:
        """T* = max over limits of (demand - burst) / rate; ALGORITHMS of the design call it the lower bound."""
        self.hold_back(self.reason, now)
        if self.started_at is None:
            return AccountReport(0.0, 0.0, 1.0, None)
        elapsed = (now if self.reason else self.last) - self.started_at
        bound, binding = 0.0, None
        for gauge in gauges:
            needed = lower_bound(gauge, spent.get(gauge.unit, 0.0))
            if needed > bound:
                bound, binding = needed, gauge.unit
        share = min(1.0, bound / elapsed) if elapsed > 0 else 1.0
        return AccountReport(elapsed, bound, share, binding, dict(self.waited))


def lower_bound(gauge: Gauge, demand: float) -> float:
    """The least time in which one limit lets `demand` begin, from a full start."""
    if gauge.algorithm == "token_bucket":
        return max(0.0, (demand - gauge.capacity) / gauge.rate)
    return max(0.0, -(-demand // gauge.limit) - 1) * gauge.window
