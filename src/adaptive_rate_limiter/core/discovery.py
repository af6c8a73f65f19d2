"""Find a limit that nobody tells, from what passes and what is refused, at a stated cost in refusals.

Until the first refusal: a start bounded by how many sends are in doubt at once, since about as many will
be refused. A limiter of the provider refuses at once while a completion takes seconds, so a send that has
not been refused within SETTLED seconds counts as passed: no long first call holds the start back.

From the first refusal on: a call is sent when it is all but certain to pass under every way of counting
that is still believed. Where that is far off, one call is risked at a time, with nothing else in doubt: it
tells a bucket from a window within a second, and finds a limit that was raised. A small job, whose budget one refusal
has spent, risks a few more rather than stand still for a minute.
"""

from __future__ import annotations

import math
from collections import deque

from adaptive_rate_limiter.core.hypotheses import INSTANT, JITTER, LEAST_WEIGHT, Family, History, Hypotheses
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, REQUESTS, TOKENS, Cost

BUDGET = 0.01  # refusals allowed, as a share of all sends: the promise where nothing is told
START_BUDGET = 0.008  # part of it that the first refusal may cost; the rest pays experiments
FEWEST_IN_DOUBT, MOST_IN_DOUBT = 2, 16
UNANSWERED = 32  # sends before the first reply of all, which may tell the limit; one more each second
SETTLED = 0.25  # seconds within which a refusal is back
LONGEST_LAG = 5.0  # seconds that a busy client may take from admission to the send
RISK = 0.02  # chance that what is believed is wrong, taken with any send: it is lost once, not each time
SPARE = 0.05  # the same while fewer were refused than the budget
FIRST = 0.1  # chance to pass that is worth the first experiment
EVEN = 0.25  # the same of any other
LIKELY = 0.75  # the same once the budget is spent
GAP_FIRST, GAP_MOST = 0.7, 360.0  # seconds from one experiment to the next; doubled when one fails
REST = 0.3  # seconds of silence after a refusal
SURE = 8  # experiments in a row that passed, after which more are made at once
ANOTHER = 0.02  # weight of the unit that a refusal does not name, as a share of what it was
MAJORITY = 0.5  # of the weight: what is believed of a unit is said
FEW = 16  # calls in line: not worth another window of waiting, so their limit is looked for to the unit
SLOWEST = 60.0  # seconds after which a call is risked whatever is believed: nothing waits for ever
EXTRA = 3  # refusals beyond the budget that may be risked rather than wait so long: a small job has hardly a budget
HASTE = 4  # it waits for this power of the chance to fail, of SLOWEST; from simulations of closed loops and batches
UNIT_PRIORS = {REQUESTS: 0.7, TOKENS: 0.3, INPUT_TOKENS: 0.3}


class Trial:
    """One send whose outcome is to be learned from: passed is None while in doubt.

    `under_way` is False from its admission until somebody says that it is really sent, at `sent_at`.
    """

    __slots__ = ("cost", "experiment", "passed", "sent_at", "under_way", "unit")

    def __init__(
        self, sent_at: float, cost: Cost, *, experiment: bool = False, under_way: bool = True
    ) -> None:
        self.sent_at = sent_at
        self.under_way = under_way
        self.cost = cost
        self.experiment = experiment
        self.passed: bool | None = None
        self.unit: str | None = None  # that the refusal named


class Discovery:
    """One bucket's knowledge of a limit that no header tells."""

    __slots__ = (
        "ahead", "ever_passed", "experiment_at", "experimented", "failed_at", "found", "gap", "hypotheses", "in_doubt",
        "invited_at", "last_at", "pending", "proven", "raised", "refusals", "replied", "rest_until", "sends", "settled", "started_at", "was_named", "workers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pending: deque[Trial] = deque()  # those of which nothing is known for certain, in order
        self.ahead: dict[str, float] = {}  # what they amount to
        self.hypotheses: dict[str, Hypotheses] = {}
        self.workers = 1  # that send without knowing a limit
        self.found = False  # something was refused: the hypotheses know more than nothing
        self.was_named = False  # the limit, by a refusal
        self.settled = SETTLED
        self.in_doubt = self.proven = self.sends = self.refusals = self.raised = 0
        self.replied = self.experimented = self.ever_passed = False
        self.rest_until = self.experiment_at = self.failed_at = self.started_at = -math.inf
        self.invited_at = math.inf  # when the provider said that one may try again
        self.last_at = math.inf  # the latest experiment, or the first refusal
        self.gap = GAP_FIRST

    # May one more be sent?

    def ready_at(self, cost: Cost, now: float, waiting: int) -> float:
        """`now` if a call may be sent, else the instant at which to ask again."""
        self._settle(now)
        if now < self.rest_until:
            return self.rest_until
        crowded = self._crowded_until(now, waiting)
        if crowded > now or not self.found:
            return crowded
        if self._danger(cost, now) <= self._risk():
            return now
        return min(self._safe_at(cost, now), self._experiment_at(cost, now, waiting))

    def _crowded_until(self, now: float, waiting: int) -> float:
        """Until fewer are in doubt. As many as passed lately may be: that doubles, and stops early."""
        if self.found:
            allowed = float(FEWEST_IN_DOUBT + self.proven)
        else:
            allowed = START_BUDGET * (self.sends + waiting)
            allowed = min(1 + self.proven, max(FEWEST_IN_DOUBT, min(MOST_IN_DOUBT, allowed)))
            unanswered = (UNANSWERED + max(0.0, now - self.started_at)) / self.workers
            if not self.replied and self.sends >= unanswered:
                return now + 1.0
        if self.in_doubt < allowed:
            return now
        doubtful = [trial for trial in self.pending if trial.passed is None]
        return max(now, self._settles_at(doubtful[len(doubtful) - math.ceil(allowed)], now))

    def _settles_at(self, trial: Trial, now: float) -> float:
        """When no refusal of it can come any more."""
        if trial.under_way or now > trial.sent_at + LONGEST_LAG:
            return trial.sent_at + self.settled
        return now + self.settled

    def _risk(self) -> float:
        """More while fewer were refused than the budget, so that the budget is what is promised."""
        return SPARE if BUDGET * self.sends - self.refusals >= 1 else RISK

    def _amounts(self, cost: Cost) -> list[tuple[Family, History, float]]:
        """Each way of counting, with what has to pass: the call, and all that is in doubt before it."""
        return [
            (family, hypotheses.history, self.ahead.get(unit, 0.0) + cost[unit])
            for unit, hypotheses in self.hypotheses.items()
            if unit in cost
            for family in hypotheses.families
        ]

    def _danger(self, cost: Cost, now: float) -> float:
        return 1 - self._chance(cost, now)

    def _safe_at(self, cost: Cost, now: float) -> float:
        """When those that do not promise a pass weigh no more than the risk."""
        times = sorted(
            (family.ready_at(history, amount, family.low, now) + INSTANT, family.weight)
            for family, history, amount in self._amounts(cost)
        )
        return self._when(times, 1 - self._risk(), now)

    def _experiment_at(self, cost: Cost, now: float, waiting: int) -> float:
        """When an experiment is worth its refusal: likely enough to pass, alone, affordable."""
        start = max(now, self.experiment_at)
        few = waiting <= FEW
        chance = self._chance(cost, now, to_the_unit=few)
        doubtful = [trial for trial in self.pending if trial.experiment and trial.passed is None]
        affordable = BUDGET * (self.sends + waiting) - self.refusals - len(doubtful)
        together = 1.0
        if chance >= 2 * EVEN and affordable >= 1:  # where one fails all do: no more than cost one refusal
            together = max(1.0, min(2 + self.raised // SURE, affordable, 1 / max(1e-9, 1 - chance)))
        if doubtful and self.raised < SURE:  # apart, so that their order is known
            start = max(start, doubtful[-1].sent_at + 1.2 * JITTER)
        if len(doubtful) >= together:
            start = max(start, self._settles_at(doubtful[-int(together)], now))
        worth = LIKELY if affordable < 1 else EVEN if self.experimented else FIRST
        if not self.ever_passed:  # nothing has ever passed, so nothing is known of when it will
            return max(now, start)
        if now >= self.invited_at and not doubtful:
            return now
        haste = HASTE if not self.was_named and -EXTRA < affordable < 1 else 0
        if now >= start and (chance >= worth or now >= self._patient_until(chance, haste)):
            return now
        times = sorted(
            (family.ready_at(history, amount, family.typical(start, to_the_unit=few), start), family.weight)
            for family, history, amount in self._amounts(cost)
        )
        likely = min(self._when(times, worth, start), max(start, self._patient_until(chance, haste)))
        foreseen = 0.0
        for at, weight in times:
            foreseen += weight
            if at > now and foreseen > chance:
                likely = min(likely, max(at, start, self._patient_until(foreseen, haste)))
        if not doubtful:
            likely = min(likely, self.invited_at)
        return max(likely, now + 0.02)

    def _patient_until(self, chance: float, haste: int) -> float:
        return self.last_at + SLOWEST * (1 - chance) ** haste

    def _chance(self, cost: Cost, now: float, *, to_the_unit: bool = False) -> float:
        return sum(
            family.weight * family.chance(history, amount, now, to_the_unit=to_the_unit)
            for family, history, amount in self._amounts(cost)
        )

    @staticmethod
    def _when(times: list[tuple[float, float]], share: float, now: float) -> float:
        total = 0.0
        for at, weight in times:
            total += weight
            if total >= share:
                return max(now, at)
        return math.inf

    # What became of it

    def sent(self, cost: Cost, now: float, *, under_way: bool = True) -> Trial:
        """A call of `cost` is admitted; with `under_way=False` it is told later when it is really sent."""
        if not self.sends:
            self.started_at = now
        for unit, prior in UNIT_PRIORS.items():
            if unit in cost and unit not in self.hypotheses and not (unit == INPUT_TOKENS and TOKENS in cost):
                self.hypotheses[unit] = Hypotheses(now, prior)
                self._normalize()
        experiment = self.found and self._danger(cost, now) > self._risk()
        trial = Trial(now, cost, experiment=experiment, under_way=under_way)
        if experiment:
            self.last_at, self.experimented = now, True
            self.invited_at = math.inf
        self.pending.append(trial)
        self._count(trial, 1)
        self.in_doubt += 1
        self.sends += 1
        return trial

    def passed(self, trial: Trial, now: float) -> None:
        self.replied = True
        if trial.passed is None:
            trial.passed = True
            self.in_doubt -= 1
            self._settle(now)

    def withdrawn(self, trial: Trial) -> None:
        """It never reached the provider."""
        if trial in self.pending:
            self.pending.remove(trial)
            self._count(trial, -1)
            self.in_doubt -= trial.passed is None
            trial.passed = True  # whatever is heard of it later, it is in doubt no more

    def refused(
        self, trial: Trial, now: float, unit: str | None = None, retry_after: float | None = None
    ) -> None:
        """The provider refused: a fact about the instant of the send. After `retry_after` one may try again."""
        self.refusals += 1
        self.proven = 0
        late = trial not in self.pending
        self.in_doubt -= trial.passed is None
        trial.passed, trial.unit = False, unit
        self.settled = max(self.settled, min(2.0, 1.5 * (now - trial.sent_at)))
        self.rest_until = max(self.rest_until, now + REST, trial.sent_at + self.settled)
        self.raised = 0
        if trial.experiment and trial.sent_at > self.failed_at:  # those sent together fail together
            self.gap = min(GAP_MOST, 2 * self.gap)
            self.failed_at = now
        self.experiment_at = max(self.experiment_at, now + self.gap)
        self.invited_at = math.inf if retry_after is None else now + retry_after
        if late:
            self._learn(trial)
        self._settle(now)  # in order: what was sent before may be refused as well
        if not self.found:
            self.found, self.last_at = True, now

    def named(self, trial: Trial, limit: float, now: float) -> None:
        """What the refusal of `trial` said in words: the limit on its unit, per minute."""
        unit = trial.unit
        if unit is None or unit not in trial.cost:
            return
        invited = self.invited_at < math.inf
        if not (invited or self.ever_passed):
            return  # nobody knows what of it is ours
        if unit not in self.hypotheses and invited:
            # Input tokens, where tokens were thought to be what is limited: what passed of them is not known, but
            # when to come again is.
            self.hypotheses[unit] = Hypotheses(now, 1 / ANOTHER)
        if unit in self.hypotheses:
            # What was sent before we began may have used it up: it is ours from the told time on.
            self.was_named = True
            self.hypotheses[unit].named(limit, now, ours=invited and not self.ever_passed)
            self._normalize()

    def limits(self) -> dict[str, float]:
        """What is believed of the limit on the unit that more likely than not is the one, per minute, if not nothing."""
        found = {}
        for unit, hypotheses in self.hypotheses.items() if self.found else ():
            likeliest = max(hypotheses.families, key=lambda family: family.weight)
            if sum(family.weight for family in hypotheses.families) >= MAJORITY and likeliest.low:
                found[unit] = likeliest.low
        return found

    def _settle(self, now: float) -> None:
        pending = self.pending
        while pending:
            trial = pending[0]
            known = trial.passed is not None
            if not known and self._settles_at(trial, now) > now:
                return
            pending.popleft()
            self._count(trial, -1)
            self.in_doubt -= not known
            trial.passed = trial.passed is not False
            self._learn(trial)

    def _learn(self, trial: Trial) -> None:
        passed = trial.passed is True
        self.proven += passed
        self.ever_passed = self.ever_passed or passed
        for unit, hypotheses in self.hypotheses.items():
            if unit in trial.cost:
                if not passed and trial.unit not in {None, unit}:
                    for family in hypotheses.families:
                        family.weight *= ANOTHER
                    continue
                close = 0.0 if passed else self._close(trial, unit)
                hypotheses.learn(
                    trial.cost[unit], trial.sent_at, passed=passed, weigh=self.found, close=close
                )
        self._normalize()
        if passed and trial.experiment:
            self.gap = GAP_FIRST
            self.raised += 1

    def _close(self, refused: Trial, unit: str) -> float:
        total = 0.0
        for trial in self.pending:
            if trial.sent_at > refused.sent_at + JITTER:
                break
            total += trial.cost.get(unit, 0.0) if trial.passed is not False else 0.0
        return total

    def _normalize(self) -> None:
        families = [family for hypotheses in self.hypotheses.values() for family in hypotheses.families]
        for family in families:
            family.weight = max(family.weight, LEAST_WEIGHT)
        total = sum(family.weight for family in families)
        for family in families:
            family.weight /= total

    def _count(self, trial: Trial, sign: int) -> None:
        for unit, amount in trial.cost.items():
            self.ahead[unit] = self.ahead.get(unit, 0.0) + sign * amount if self.pending else 0.0
