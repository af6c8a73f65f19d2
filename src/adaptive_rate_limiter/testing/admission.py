"""What an emulated provider knows of its clients: limits per key or per model, their changes, and a record of events."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from adaptive_rate_limiter.testing.gate import Gate, Rule, Strangers, Verdict
from adaptive_rate_limiter.testing.limits import Algorithm, FixedWindow, new_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = 86_400.0

RULES = {
    "requests_per_minute": ("requests", "requests"),
    "requests_per_day": ("requests_per_day", "requests"),
    "tokens_per_minute": ("tokens", "tokens"),
    "input_tokens_per_minute": ("input_tokens", "input_tokens"),
    "output_tokens_per_minute": ("output_tokens", "output_tokens"),
}
"""Argument -> name of the rule, unit."""

SLICE = "requests_slice"


class Standing(NamedTuple):
    """A limit as a provider tells it in its headers."""

    limit: float
    remaining: float
    reset_after: float
    window: float


class Event(NamedTuple):
    t: float
    """Seconds since the first request."""
    kind: str
    """admitted, refused or fault"""
    cost: float
    """Tokens charged at admission, or what they would have been."""


@dataclass(frozen=True)
class EmulatorStats:
    requests: int
    admitted: int
    refused: int
    refused_by: Mapping[str, int]
    """Name of the limit, or "concurrency" -> refusals."""
    faults: int
    in_flight: int
    concurrency_peak: int
    charged: Mapping[str, float]
    """Unit -> units charged to admitted requests, also for units without a limit."""
    first_at: float | None
    """First admission, in seconds since the first request."""
    last_admitted_at: float | None
    lower_bound: float
    """T*: the least time from first to last admission in which any client could have sent what was admitted."""
    remaining: Mapping[str, float]
    """Name of the limit -> what is left now; "model/name" if limits are per model."""
    timeline: tuple[Event, ...]


@dataclass(frozen=True)
class Terms:
    """How limits are enforced; the limits themselves may change."""

    algorithm: Algorithm = "token_bucket"
    window: float = 60.0
    burst: float | None = None
    aligned: bool = False
    slice_seconds: float | None = None
    max_concurrency: int | None = None
    strangers: float = 0.0
    per_model: bool = False
    count_refused: bool = False
    epoch: float = 0.0

    def __post_init__(self) -> None:
        Strangers(new_limit(self.algorithm, 1.0, self.window), self.strangers)  # they check themselves
        if self.burst is not None and not 0 <= self.burst < math.inf:
            raise ValueError(f"burst is seconds of refill, got {self.burst!r}")
        if self.slice_seconds is not None and not 0 < self.slice_seconds <= self.window:
            raise ValueError(f"slice_seconds must be within the window, got {self.slice_seconds!r}")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {self.max_concurrency!r}")


class Admission:
    """Safe to share between threads. `now` is seconds on any monotonic clock."""

    def __init__(self, terms: Terms, limits: Mapping[str, float | None]) -> None:
        self.terms = terms
        self._limits: dict[str, float] = {}
        self._gates: dict[str, Gate] = {}
        self._scheduled: list[tuple[float, dict[str, float]]] = []
        self._lock = Lock()
        self._first: float | None = None
        self._requests = self._in_flight = self._peak = 0
        self._refused_by: Counter[str] = Counter()
        self._charged: Counter[str] = Counter()
        self._timeline: list[Event] = []
        self.set_limits(limits, 0.0)
        self._gate("")  # a key without requests has its limits too

    def arrive(self, now: float) -> tuple[int, float]:
        """Count a request: its index and the seconds since the first one."""
        with self._lock:
            if self._first is None:
                self._first = now
            self._requests += 1
            return self._requests - 1, now - self._first

    def admit(self, model: str, costs: Mapping[str, float], now: float) -> Verdict:
        """After an arrival. An admitted request ends with `release`."""
        with self._lock:
            self._change_limits(now)
            verdict = self._gate(model).admit(costs, now)
            if verdict.admitted:
                self._in_flight += 1
                self._peak = max(self._peak, self._in_flight)
                self._charged.update(costs)
            else:
                self._refused_by[str(verdict.refused_by)] += 1
            self._record("admitted" if verdict.admitted else "refused", costs["tokens"], now)
            return verdict

    def produce(self, model: str, costs: Mapping[str, float], now: float) -> None:
        with self._lock:
            self._change_limits(now)
            self._gate(model).produce(costs, now)
            self._charged.update(costs)

    def release(self, model: str) -> None:
        with self._lock:
            self._gate(model).release()
            self._in_flight -= 1

    def fault(self, cost: float, now: float) -> None:
        with self._lock:
            self._record("fault", cost, now)

    def standings(self, model: str, now: float) -> dict[str, Standing]:
        """Name of each limit that a provider would tell -> how it stands. Slices are never told."""
        with self._lock:
            self._change_limits(now)
            gate = self._gate(model)
            gate.advance(now)
            return {
                rule.name: Standing(limit.limit, limit.remaining(now), limit.reset_after(now), limit.window)
                for rule in gate.rules
                if rule.name != SLICE and (limit := rule.limit)
            }

    def set_limits(self, limits: Mapping[str, float | None], now: float) -> None:
        """`None` leaves a limit as it is."""
        changed = {name: limit for name, limit in limits.items() if limit is not None}
        self._check(changed)
        with self._lock:
            self._set_limits(changed, now)

    def schedule(self, at: float, limits: Mapping[str, float]) -> None:
        """Change limits `at` seconds after the first request."""
        if not 0 <= at < math.inf:
            raise ValueError(f"limits change after the first request, got at={at!r}")
        self._check(limits)
        with self._lock:
            self._scheduled.append((at, dict(limits)))
            self._scheduled.sort(key=lambda change: change[0])

    def stats(self, now: float) -> EmulatorStats:
        with self._lock:
            self._change_limits(now)
            kinds = Counter(event.kind for event in self._timeline)
            admitted = [event.t for event in self._timeline if event.kind == "admitted"]
            return EmulatorStats(
                requests=self._requests,
                admitted=kinds["admitted"],
                refused=kinds["refused"],
                refused_by=dict(self._refused_by),
                faults=kinds["fault"],
                in_flight=self._in_flight,
                concurrency_peak=self._peak,
                charged=dict(self._charged),
                first_at=admitted[0] if admitted else None,
                last_admitted_at=admitted[-1] if admitted else None,
                lower_bound=max(gate.lower_bound() for gate in self._gates.values()),
                remaining=self._remaining(now),
                timeline=tuple(self._timeline),
            )

    def _check(self, limits: Mapping[str, float]) -> None:
        """Before anything is changed. A scheduled change would fail in the middle of somebody's request."""
        unknown = limits.keys() - RULES.keys()
        if unknown:
            raise TypeError(f"unknown limits {sorted(unknown)}; known are {sorted(RULES)}")
        for limit in limits.values():
            new_limit(self.terms.algorithm, limit, self.terms.window)

    def _remaining(self, now: float) -> dict[str, float]:
        left = {}
        for model, gate in self._gates.items():
            if model or not self.terms.per_model:
                for rule in gate.rules:
                    rule.catch_up(now)
                    left[f"{model}/{rule.name}" if model else rule.name] = rule.limit.remaining(now)
        return left

    def _record(self, kind: str, cost: float, now: float) -> None:
        self._timeline.append(Event(now - (now if self._first is None else self._first), kind, cost))

    def _change_limits(self, now: float) -> None:
        while self._scheduled and self._first is not None and now >= self._first + self._scheduled[0][0]:
            at, limits = self._scheduled.pop(0)
            self._set_limits(limits, self._first + at)

    def _set_limits(self, limits: Mapping[str, float], now: float) -> None:
        self._limits.update(limits)
        for gate in self._gates.values():
            known = {rule.name: rule for rule in gate.rules}
            for rule in self._rules():
                if rule.name not in known:
                    gate.rules.append(rule)
                elif rule.limit.limit != known[rule.name].limit.limit:
                    known[rule.name].set_limit(rule.limit.limit, now)

    def _gate(self, model: str) -> Gate:
        key = model if self.terms.per_model else ""
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(
                self._rules(),
                max_concurrency=self.terms.max_concurrency,
                count_refused=self.terms.count_refused,
            )
        return gate

    def _rules(self) -> list[Rule]:
        terms = self.terms
        rules = []
        for argument, value in self._limits.items():
            name, unit = RULES[argument]
            daily = name == "requests_per_day"
            limit = new_limit(
                terms.algorithm,
                value,
                DAY if daily else terms.window,
                burst=None if daily else terms.burst,
                aligned=terms.aligned,
                epoch=terms.epoch,
            )
            rules.append(Rule(name, unit, limit, terms.strangers))
            if name == "requests" and terms.slice_seconds is not None:
                share = max(1.0, value * terms.slice_seconds / terms.window)
                sliced = FixedWindow(share, terms.slice_seconds, aligned=True, epoch=terms.epoch)
                rules.append(Rule(SLICE, unit, sliced))
        return rules
