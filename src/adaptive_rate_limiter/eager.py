"""Sending as calls come, where no reply tells a limit, until one is refused."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.discovery import Discovery
from adaptive_rate_limiter.core.hypotheses import KEPT

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.discovery import Trial
    from adaptive_rate_limiter.core.quota import Cost

__all__ = ["EagerDiscovery"]


class EagerDiscovery(Discovery):
    """Waits for the first reply, which may tell the limits, and then holds nothing back before the first refusal.

    From there on it knows what has passed, like any other; but the refusals of that burst were more than a
    budget of few would ever allow, so calls are risked one by one whatever they cost, as in a backoff.
    With `eager=False` it is a Discovery. What passes is only noted until a refusal asks what it means: it is half of
    what a call costs.
    """

    __slots__ = ("eager", "noted")

    def __init__(self) -> None:
        super().__init__()
        self.eager = True
        self.noted: deque[Trial] = deque(maxlen=KEPT)  # those that passed and are not learned from yet

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

    def refused(
        self, trial: Trial, now: float, unit: str | None = None, retry_after: float | None = None
    ) -> None:
        super().refused(trial, now, unit, retry_after)
        self._catch_up()

    def _learn(self, trial: Trial) -> None:
        if self.eager and trial.passed and not self.found:
            self.noted.append(trial)
            self.proven += 1
            self.ever_passed = True
            return
        self._catch_up()
        super()._learn(trial)

    def _catch_up(self) -> None:
        while self.noted:
            trial = self.noted.popleft()
            for unit, hypotheses in self.hypotheses.items():
                if unit in trial.cost:
                    hypotheses.learn(trial.cost[unit], trial.sent_at, passed=True, weigh=False)
