"""Sending as calls come, where no reply tells a limit, until one is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.discovery import Discovery

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.quota import Cost

__all__ = ["EagerDiscovery"]


class EagerDiscovery(Discovery):
    """Waits for the first reply, which may tell the limits, and then holds nothing back before the first refusal.

    From there on it knows what has passed, like any other; but the refusals of that burst were more than a
    budget of few would ever allow, so calls are risked one by one whatever they cost, as in a backoff.
    With `eager=False` it is a Discovery.
    """

    __slots__ = ("eager",)

    def __init__(self) -> None:
        super().__init__()
        self.eager = True

    def ready_at(self, cost: Cost, now: float, waiting: int) -> float:
        if not self.eager:
            return super().ready_at(cost, now, waiting)
        self._settle(now)
        if self.replied and not self.found:
            return now
        if self.in_doubt or self.invited_at == math.inf:
            return super().ready_at(cost, now, waiting)
        # The provider has said when to come again: one call does, and tells whether more may.
        return now if now >= self.invited_at else min(self.invited_at, super().ready_at(cost, now, waiting))

    def _experiment_at(self, cost: Cost, now: float, waiting: int) -> float:
        if not self.eager:
            return super()._experiment_at(cost, now, waiting)
        start = max(now, self.experiment_at)
        doubtful = [trial for trial in self.pending if trial.experiment and trial.passed is None]
        return max(start, self._settles_at(doubtful[-1], now)) if doubtful else start
