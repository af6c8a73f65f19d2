"""Find a limit that nobody tells, from what passes and what is refused, at a stated cost in refusals.

Until the first refusal: a start that doubles, bounded by how many sends are in doubt at once. A limiter
of the provider refuses at once while a completion takes seconds, so a send that has not been refused
within SETTLED seconds counts as passed: no long first call holds the start back.

From the first refusal on: weights over hypotheses (a way of counting, and a limit), each with its own
level driven by our sends. A call is sent while the chance that it is refused is within the risk.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.hypotheses import Hypotheses, Mark

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 0.01  # refusals allowed, as a share of all sends: the promise where nothing is told
SETTLED = 0.25  # seconds within which a refusal is back
FEWEST_IN_DOUBT, MOST_IN_DOUBT = 2, 32
RISK = 0.002  # chance of a refusal taken with any send
SPARE = 0.05  # chance of a refusal taken when none was spent lately
PROBE_EVERY = 45.0  # seconds between looks for a limit that rose
PROBE_FOR = 5.0  # seconds of a look
PROBE_RATE = 1.4  # how much faster than believed
REST = 0.3  # seconds of silence after a refusal
HISTORY = 4096  # sends remembered for the moment in which the first refusal is explained


class Trial:
    """One send whose outcome is to be learned from: passed is None while in doubt."""

    __slots__ = ("amount", "passed", "sent_at")

    def __init__(self, sent_at: float, amount: float) -> None:
        self.sent_at = sent_at
        self.amount = amount
        self.passed: bool | None = None


class Discovery:
    """One bucket's knowledge of a limit that no header tells. Amounts are requests or tokens: see `unit`."""

    __slots__ = (
        "history", "hypotheses", "in_doubt", "next_probe", "pending", "probe_from", "probe_until", "proven",
        "refusals", "rest_until", "sends", "settled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pending: deque[Trial] = deque()
        self.history: deque[Mark] = deque(maxlen=HISTORY)
        self.hypotheses: Hypotheses | None = None
        self.settled = SETTLED
        self.proven = self.sends = self.refusals = 0
        self.rest_until = -math.inf
        self.next_probe = self.probe_until = -math.inf
        self.probe_from = 0.0

    # May one more be sent?

    def ready_at(self, amount: float, now: float, waiting: int) -> float:
        """`now` if a call may be sent, else the instant at which to ask again."""
        self._settle(now)
        if now < self.rest_until:
            return self.rest_until
        if self.hypotheses is None:
            return self._start_ready_at(now, waiting)
        return self._believed_ready_at(self.hypotheses, amount, now)

    def _start_ready_at(self, now: float, waiting: int) -> float:
        allowed = BUDGET * (self.sends + waiting)
        allowed = min(1 + self.proven, max(FEWEST_IN_DOUBT, min(MOST_IN_DOUBT, allowed)))
        doubtful = [trial for trial in self.pending if trial.passed is None]
        if len(doubtful) < allowed:
            return now
        return doubtful[len(doubtful) - math.ceil(allowed)].sent_at + self.settled

    def _believed_ready_at(self, hypotheses: Hypotheses, amount: float, now: float) -> float:
        ahead = sum(trial.amount for trial in self.pending if trial.passed is not False)
        risk = self._risk()
        if now < self.probe_until:
            risk = 0.5
        if hypotheses.danger(amount, ahead, now) <= risk:
            return now
        return _first_time(lambda at: hypotheses.danger(amount, ahead, at) <= risk, now, hypotheses.horizon)

    def _risk(self) -> float:
        """More when fewer refusals than the budget were spent, so that the budget is what is promised."""
        unspent = BUDGET * self.sends - self.refusals
        return SPARE if unspent >= 1 else RISK

    # What became of it

    def sent(self, amount: float, now: float) -> Trial:
        trial = Trial(now, amount)
        self.pending.append(trial)
        self.sends += 1
        return trial

    def passed(self, trial: Trial, now: float) -> None:
        if trial.passed is None:
            trial.passed = True
            self._settle(now)

    def withdrawn(self, trial: Trial) -> None:
        """It never reached the provider."""
        if trial in self.pending:
            self.pending.remove(trial)

    def refused(self, trial: Trial, now: float) -> None:
        """The provider refused: a fact about the instant of the send."""
        self.refusals += 1
        late = trial.passed is True or trial not in self.pending
        trial.passed = False
        self.settled = max(self.settled, min(2.0, 1.5 * (now - trial.sent_at)))
        self.rest_until = max(self.rest_until, now + REST)
        self._settle(now, up_to=trial)
        if late:
            self._learn(Mark(trial.sent_at, trial.amount, passed=False))

    def _settle(self, now: float, up_to: Trial | None = None) -> None:
        pending = self.pending
        while pending:
            trial = pending[0]
            known = trial.passed is not None
            if not known and trial.sent_at + self.settled > now and (up_to is None or trial.sent_at > up_to.sent_at):
                return
            pending.popleft()
            passed = trial.passed is not False
            trial.passed = passed
            self.proven += passed
            self._learn(Mark(trial.sent_at, trial.amount, passed))

    def _learn(self, mark: Mark) -> None:
        self.history.append(mark)
        if self.hypotheses is not None:
            self.hypotheses.learn(mark)
            if self.hypotheses.lost:
                self.hypotheses = Hypotheses.explaining(self.history)
        elif not mark.passed:
            self.hypotheses = Hypotheses.explaining(self.history)


def _first_time(holds: Callable[[float], bool], now: float, horizon: float) -> float:
    """The first instant after `now` at which `holds`, to a millisecond; it holds from then on."""
    step, low = 0.005, now
    while not holds(now + step):
        low = now + step
        step *= 2
        if step > horizon:
            return now + horizon
    high = now + step
    while high - low > max(0.001, 0.02 * (high - now)):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
