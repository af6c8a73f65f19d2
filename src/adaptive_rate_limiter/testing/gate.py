"""Several limits that admit or refuse a request together, and the least time that admitted work can have taken."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adaptive_rate_limiter.testing.limits import FixedWindow, Limit, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STEPS = 100
"""Strangers act this often per window."""
MEMORY = 100
"""Windows: after a pause longer than this, what strangers took before is back."""


class Strangers:
    """Other clients of the same key, who take `share` of a limit's rate in even steps of a hundredth of its window.

    What finds nothing left waits and goes first as soon as there is something, as those who retry do: over time
    strangers get their share, however eager the client. They begin with the first call of `catch_up`.
    """

    def __init__(self, limit: Limit, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"strangers take a share of at least 0 and below 1, not {share!r}")
        self.limit = limit
        self.share = share
        self._at: float | None = None
        self._waiting = 0.0

    def catch_up(self, now: float) -> None:
        if self._at is None:
            self._at = now
        step = self.limit.window / STEPS
        due = math.floor((now - self._at) / step)
        for n in range(max(1, due - MEMORY * STEPS), due + 1):
            self._take(self.share * self.limit.limit / STEPS, self._at + n * step)
        self._take(0.0, now)  # a window may have opened since the last step
        if due > 0:
            self._at += due * step

    def _take(self, more: float, now: float) -> None:
        self._waiting += more
        if taken := min(self._waiting, self.limit.remaining(now)):
            self.limit.charge(taken, now)
            self._waiting -= taken


@dataclass
class Rule:
    """One limit on one unit. `name` tells two rules on the same unit apart: requests, requests_per_day."""

    name: str
    unit: str
    limit: Limit
    strangers: float = 0.0
    demand: float = 0.0
    """Units charged up to the last admission."""
    _charged: float = 0.0
    _since: float | None = None
    _history: list[tuple[float, float]] = field(default_factory=list)
    _others: Strangers | None = None

    def __post_init__(self) -> None:
        if self.strangers:
            self._others = Strangers(self.limit, self.strangers)

    def advance(self, now: float) -> None:
        """The first call begins the account of `lower_bound`."""
        if self._since is None:
            self._since = now
            first = self.limit.reset_after(now) if isinstance(self.limit, FixedWindow) else 0.0
            self._first_window = first or self.limit.window
            self._depth = self.limit.capacity
            self._history = [(0.0, self.limit.limit)]
        if self._others:
            self._others.catch_up(now)

    def catch_up(self, now: float) -> None:
        """Strangers go on taking between requests."""
        if self._since is not None:
            self.advance(now)

    def charge(self, cost: float, now: float) -> None:
        if cost:
            # What a window is charged beyond its limit is forgotten when it ends; a bucket's debt is paid.
            bound = cost if isinstance(self.limit, TokenBucket) else min(cost, self.limit.remaining(now))
            self._charged += bound
            self.limit.charge(cost, now)

    def closed(self) -> None:
        """An admission has been charged."""
        self.demand = self._charged

    def set_limit(self, limit: float, now: float) -> None:
        self.catch_up(now)
        if self._since is not None:
            self._history.append((now - self._since, limit))
        self.limit.set_limit(limit, now)

    def lower_bound(self) -> float:
        """The least seconds from the first to the last admission that any client needs for `demand`."""
        if not self._history:
            return 0.0
        if isinstance(self.limit, TokenBucket):
            kept = (1 - self.strangers) / self.limit.window
            depth = self._depth + self.strangers * max(limit for _, limit in self._history) / STEPS
            return bucket_bound(self.demand, depth, [(at, limit * kept) for at, limit in self._history])
        window, first = self.limit.window, self._first_window
        return window_bound(self.demand, window, self._history, first=first, strangers=self.strangers)


@dataclass(frozen=True)
class Verdict:
    """Admitted, or refused by `rule`. `refused_by` is its name, or "concurrency", which knows no time."""

    admitted: bool
    refused_by: str | None = None
    retry_after: float | None = None
    rule: Rule | None = None
    cost: float = 0.0

    @property
    def too_large(self) -> bool:
        """No wait makes this request fit."""
        return self.retry_after == math.inf


ADMITTED = Verdict(admitted=True)


class Gate:
    """All rules admit, and then all are charged; or none is."""

    def __init__(
        self, rules: Iterable[Rule], *, max_concurrency: int | None = None, count_refused: bool = False
    ) -> None:
        self.rules = list(rules)
        self.max_concurrency = max_concurrency
        self.count_refused = count_refused
        self.in_flight = 0

    def advance(self, now: float) -> None:
        for rule in self.rules:
            rule.advance(now)

    def admit(self, costs: Mapping[str, float], now: float) -> Verdict:
        """A unit that costs 0 is charged later, by usage: it needs something left. Ends with `release`."""
        self.advance(now)
        verdict = self._refusal(costs, now)
        if verdict is None:
            for rule in self.rules:
                if rule.unit in costs:
                    rule.charge(costs[rule.unit], now)
                rule.closed()
            self.in_flight += 1
            return ADMITTED
        if self.count_refused:
            for rule in self.rules:
                if rule.unit == "requests":
                    rule.limit.charge_refused(costs["requests"], now)
        return verdict

    def _refusal(self, costs: Mapping[str, float], now: float) -> Verdict | None:
        worst: Verdict | None = None
        for rule in self.rules:
            cost = costs.get(rule.unit)
            if cost is None:
                continue
            wait = rule.limit.retry_after(cost or 1.0, now)
            if wait > 0 and (worst is None or wait > (worst.retry_after or 0.0)):
                worst = Verdict(False, rule.name, wait, rule, cost)
        if worst is None and self.max_concurrency is not None and self.in_flight >= self.max_concurrency:
            return Verdict(False, "concurrency")
        return worst

    def produce(self, costs: Mapping[str, float], now: float) -> None:
        """Usage that became known after admission; it may leave a debt."""
        self.advance(now)
        for rule in self.rules:
            rule.charge(costs.get(rule.unit, 0.0), now)

    def release(self) -> None:
        self.in_flight -= 1

    def lower_bound(self) -> float:
        """T*: the rule that needs the longest."""
        return max((rule.lower_bound() for rule in self.rules), default=0.0)


def bucket_bound(total: float, depth: float, rates: Sequence[tuple[float, float]]) -> float:
    """(S - b) / rate, where the rate changes at the given times; `rates` begins at 0."""
    left = total - depth
    if left <= 0:
        return 0.0
    for (start, rate), (end, _) in itertools.pairwise([*rates, (math.inf, 0.0)]):
        if left <= rate * (end - start):
            return start + left / rate
        left -= rate * (end - start)
    return math.inf


def window_bound(
    total: float,
    window: float,
    limits: Sequence[tuple[float, float]],
    *,
    first: float | None = None,
    strangers: float = 0.0,
) -> float:
    """(ceil(S / L) - 1) * W, where each window allows the largest limit in force during it.

    `first` is what was left of the first window if the windows are aligned to a clock. Before a window opens,
    strangers have asked for their share of all windows before it, but for the step that is under way.
    """
    start, end = 0.0, window if first is None else first
    changes = [*limits, (math.inf, 0.0)]
    total -= strangers * max(limit for _, limit in limits) / STEPS
    while True:
        valid = [
            limit for (at, limit), (until, _) in itertools.pairwise(changes) if at < end and until > start
        ]
        total -= max(valid)
        if total <= 0:
            return start
        total += strangers * min(valid) * (end - start) / window
        start, end = end, end + window
