"""Weights over what an unannounced limit may be: ways of counting, and for each a grid of limits.

Each hypothesis is driven through the sends that were made and says how likely the next one is to pass.
What passes and what is refused re-weighs them. The shape of the filter and its constants were measured
in a simulation against published controllers; the window hypotheses let it wait for the end of a window
instead of probing through it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

RATIO = 1.03  # step of the grid of limits
STEPS_DOWN, STEPS_UP = 48, 60  # of the grid, round the limit that would explain the refusal best
SOFT = 0.8  # a limit's edge is blurred by this part of a call
LUCKY, UNLUCKY = 0.01, 0.005  # chance of an outcome against the prediction
JUMP = 1 / 600  # chance per second that the limit changed
REACH = 23  # e-folding of such a change, in steps of the grid: a factor of two
MINUTE = 60.0
DEPTHS = (1.0, 10.0, 60.0)  # of a bucket, in seconds of its refill
PHASES = 12  # of a minute that began at an unknown instant
GUARD = 0.3  # seconds: the provider counts a call when it arrives, not when it is sent
FORGET = 1e-5  # weight below which a way of counting is dropped
SURPRISE = 0.05  # a refusal that was less likely than this was explained by nothing
LOOK_BACK = 120.0  # seconds of history that explain a refusal

PRIORS = {"bucket": 0.45, "sliding": 0.2, "fixed": 0.2, "aligned": 0.15}


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of one send, or of several that passed within a moment."""

    at: float
    amount: float
    passed: bool
    call: float = 0.0  # the size of one call; 0: it is `amount`


class BucketFamily:
    """Token buckets of one depth, one for each rate of the grid."""

    def __init__(self, rates: list[float], depth: float, prior: float, at: float) -> None:
        self.rates = rates
        self.depths = [max(1.0, rate * depth) for rate in rates]
        self.levels = self.depths.copy()
        self.weights = [prior / len(rates)] * len(rates)
        self.at = at
        self.window = MINUTE

    def limits(self) -> list[float]:
        return [rate * MINUTE for rate in self.rates]

    def levels_at(self, at: float) -> list[float]:
        elapsed = max(0.0, at - self.at)
        return [
            min(depth, level + rate * elapsed)
            for level, rate, depth in zip(self.levels, self.rates, self.depths, strict=True)
        ]

    def take(self, mark: Mark, levels: list[float]) -> None:
        amount = mark.amount
        if mark.passed:
            self.levels = [max(level, amount) - amount for level in levels]
        else:
            self.levels = [min(level, 0.7 * amount) for level in levels]
        self.at = max(self.at, mark.at)


class WindowFamily:
    """Windows of a minute, one for each limit of the grid; what they have used is the same for all."""

    def __init__(self, limits: list[float], prior: float, phase: float | None) -> None:
        self.limits_ = limits
        self.weights = [prior / len(limits)] * len(limits)
        self.phase = phase  # the instant at which some window began; None: the window slides
        self.sends: deque[tuple[float, float]] = deque()
        self.used = 0.0
        self.window = MINUTE

    def limits(self) -> list[float]:
        return self.limits_

    def _opened_at(self, at: float) -> float:
        if self.phase is None:
            return at - MINUTE - GUARD
        elapsed = at - GUARD - self.phase
        return self.phase + max(0.0, elapsed // MINUTE) * MINUTE

    def levels_at(self, at: float) -> list[float]:
        opened_at, used = self._opened_at(at), self.used
        for sent_at, amount in self.sends:
            if sent_at > opened_at or (self.phase is not None and sent_at == opened_at):
                break
            used -= amount
        return [limit - used for limit in self.limits_]

    def take(self, mark: Mark, levels: list[float]) -> None:
        del levels
        opened_at = self._opened_at(mark.at)
        while self.sends and self.sends[0][0] < opened_at:
            self.used -= self.sends.popleft()[1]
        if mark.passed:
            self.sends.append((mark.at, mark.amount))
            self.used += mark.amount


Family = BucketFamily | WindowFamily


class Hypotheses:
    """The filter. `lost` is true when a refusal came that nothing in it explains."""

    horizon = 4 * MINUTE

    def __init__(self, families: list[Family], at: float) -> None:
        self.families = families
        self.moved_at = at
        self.lost = False

    @classmethod
    def explaining(cls, history: Iterable[Mark]) -> Hypotheses:
        """Start from what was sent lately; the last mark is the refusal to be explained."""
        marks = _merged(history)
        first, last = marks[0].at, marks[-1].at
        passed = sum(mark.amount for mark in marks if mark.passed)
        in_window = sum(m.amount for m in marks if m.passed and m.at > last - MINUTE)
        unit = marks[-1].amount
        center = max(unit, passed) / (MINUTE + last - first)
        rates = _grid(max(center, unit / MINUTE), STEPS_DOWN, STEPS_UP + 36)
        families: list[Family] = [
            BucketFamily(rates.copy(), depth, PRIORS["bucket"] / len(DEPTHS), first) for depth in DEPTHS
        ]
        families.append(WindowFamily(_grid(max(unit, in_window)), PRIORS["sliding"], None))
        for phase, prior in _phases(first):
            since = last - ((last - phase) % MINUTE)
            used = sum(mark.amount for mark in marks if mark.passed and mark.at >= since)
            families.append(WindowFamily(_grid(max(unit, used)), prior, phase - MINUTE * (phase > first)))
        hypotheses = cls(families, first)
        for mark in marks:
            hypotheses.learn(mark)
        hypotheses.lost = False
        return hypotheses

    def learn(self, mark: Mark) -> None:
        self._move(mark.at)
        total = refusal = 0.0
        for family in self.families:
            levels = family.levels_at(mark.at)
            chances = _chances(levels, mark.amount, mark.call or mark.amount)
            refusal += sum(w * (1 - p) for w, p in zip(family.weights, chances, strict=True))
            span = 1 - LUCKY - UNLUCKY
            if mark.passed:
                family.weights = [
                    w * (LUCKY + span * p) for w, p in zip(family.weights, chances, strict=True)
                ]
            else:
                family.weights = [
                    w * (1 - LUCKY - span * p) for w, p in zip(family.weights, chances, strict=True)
                ]
            family.take(mark, levels)
            total += sum(family.weights)
        self.lost = not mark.passed and refusal < SURPRISE
        self._normalize(total)

    def danger(self, amount: float, ahead: float, at: float) -> float:
        """The chance that a call of `amount`, sent at `at` behind `ahead` that are in doubt, is refused."""
        danger = 0.0
        for family in self.families:
            for weight, level in zip(family.weights, family.levels_at(at), strict=True):
                if weight > FORGET:
                    danger += weight * (1 - _chance(level - ahead, amount, amount))
        return danger

    def limit(self) -> float:
        """The median of what is believed of the limit, per minute."""
        pairs = sorted(
            pair for family in self.families for pair in zip(family.limits(), family.weights, strict=True)
        )
        seen = 0.0
        for limit, weight in pairs:
            seen += weight
            if seen >= 0.5:  # noqa: PLR2004 - the median
                return limit
        return pairs[-1][0]

    def _normalize(self, total: float) -> None:
        kept = []
        for family in self.families:
            family.weights = [weight / total for weight in family.weights]
            if sum(family.weights) > FORGET:
                kept.append(family)
        self.families = kept

    def _move(self, at: float) -> None:
        """The limit may have changed: each family leaks a little to its neighbours on the grid."""
        elapsed = at - self.moved_at
        if elapsed <= 1.0:
            return
        self.moved_at = at
        changed = 1 - math.exp(-JUMP * elapsed)
        for family in self.families:
            spread = _spread(family.weights)
            family.weights = [
                (1 - changed) * weight + changed * other
                for weight, other in zip(family.weights, spread, strict=True)
            ]


def _chance(level: float, amount: float, call: float) -> float:
    edge = 6 * (level - amount) / (SOFT * call) + 4
    if edge > 16:  # noqa: PLR2004 - exp(-16) is nothing
        return 1.0
    if edge < -16:  # noqa: PLR2004
        return 0.0
    return 1 / (1 + math.exp(-edge))


def _chances(levels: list[float], amount: float, call: float) -> list[float]:
    return [_chance(level, amount, call) for level in levels]


def _spread(weights: list[float]) -> list[float]:
    """Each weight spread over the grid by a two-sided exponential, whose sum it keeps."""
    keep = math.exp(-1 / REACH)
    forward, backward = 0.0, 0.0
    ahead = [forward := keep * forward + weight for weight in weights]
    behind = [backward := keep * backward + weight for weight in reversed(weights)][::-1]
    spread = [a + b - w for a, b, w in zip(ahead, behind, weights, strict=True)]
    scale = sum(weights) / (sum(spread) or 1.0)
    return [scale * value for value in spread]


def _grid(center: float, down: int = STEPS_DOWN, up: int = STEPS_UP) -> list[float]:
    return [center * RATIO**step for step in range(-down, up + 1)]


def _phases(first: float) -> list[tuple[float, float]]:
    aligned = [(first + MINUTE * step / PHASES, PRIORS["aligned"] / PHASES) for step in range(1, PHASES)]
    return [(first, PRIORS["fixed"]), *aligned]


def _merged(history: Iterable[Mark]) -> list[Mark]:
    """The recent marks, those that passed merged over moments of half a second."""
    marks = list(history)
    marks = [mark for mark in marks if mark.at >= marks[-1].at - LOOK_BACK]
    merged: list[Mark] = []
    for mark in marks:
        last = merged[-1] if merged else None
        if last and last.passed and mark.passed and mark.at - last.at < 0.5:  # noqa: PLR2004 - see above
            merged[-1] = Mark(last.at, last.amount + mark.amount, passed=True, call=mark.amount)
        else:
            merged.append(mark)
    return merged
