"""One bucket: every decision about the calls that share one limit, with time as an argument.

A call passes `submit` (admitted at once, put in line, or refused with a reason), `observe` for each
response, and one of `settle`, `cancel`, `lapse`. Whenever something changed, `dispatch` says who goes now,
and `wake_at` when to ask again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core import refusals, verdicts
from adaptive_rate_limiter.core.account import Account
from adaptive_rate_limiter.core.balance import TOKEN_UNITS, funds, size_of
from adaptive_rate_limiter.core.charging import GENERIC, Charging, Usage
from adaptive_rate_limiter.core.discovery import Discovery
from adaptive_rate_limiter.core.estimate import Estimator
from adaptive_rate_limiter.core.hold import RESERVED
from adaptive_rate_limiter.core.hypotheses import MINUTE
from adaptive_rate_limiter.core.journal import Journal, post
from adaptive_rate_limiter.core.ledger import Ledger
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.queue import Call, FairQueue
from adaptive_rate_limiter.core.quota import (
    CONCURRENT_REQUESTS,
    REQUESTS,
    TOKENS,
    Cost,
    Quota,
)
from adaptive_rate_limiter.core.setbacks import Concurrency, Pause, Sizes
from adaptive_rate_limiter.core.tally import Tally
from adaptive_rate_limiter.types import RateLimitInfo, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adaptive_rate_limiter.core.hold import Hold

UNREAD = 0.1  # seconds for which headers say nothing new, where more than half of every limit is left
RUSH = 0.01  # of a bucket: more than that on its way at once is a burst


@dataclass(frozen=True, slots=True)
class Wait:
    """Why the next call cannot go: the limit, how much of it is missing, and until when (inf: until a call ends)."""

    limit: str
    missing: float
    until: float


class Bucket:
    """The calls that share one (host, credential, model), their limits and their line.

    Whatever may let somebody go sets `wake_at` to the time at which it happened.
    """

    def __init__(
        self,
        bucket_id: str,
        quotas: Iterable[Quota],
        now: float,
        max_pause: float = 300.0,
        max_concurrency: int | None = None,
    ) -> None:
        self.bucket_id = bucket_id
        self.model: str | None = None
        self.origin: tuple[str, str] | None = None  # host and hashed credential, once a request was seen
        self.max_pause = max_pause
        self.concurrency = Concurrency(math.inf if max_concurrency is None else max_concurrency)
        self.pause = Pause(bucket_id)
        self.charging: Charging = GENERIC
        self._ledger = Ledger(quotas, now)
        self.journal = Journal()
        self.keeps_journal = True
        self.queue = FairQueue()
        self.estimator = Estimator()
        self.account = Account()
        self.tally = Tally(bucket_id)
        self.discovery = Discovery()
        # Some limit shows only in refusals: discovery is in charge of it.
        self.untold = not self._ledger.gauges
        self.led = False  # many workers share a limit that nobody tells: it is found out elsewhere
        self.limited = 0  # refusals for a limit
        self.unread_until = -math.inf
        self.sizes = Sizes()
        self.failures = 0  # in a row, of the kinds that tell nothing of a limit
        self.contradictions = 0  # refusals of late that the told limits do not explain
        self.contradicted_at = -math.inf
        self.wait: Wait | None = None
        self.wake_at = math.inf

    @property
    def ledger(self) -> Ledger:
        """With all calls in it. Whoever sees it may change it: the next call is asked for, and not only noted."""
        self.post()
        return self._ledger

    def keep_in(self, ledger: Ledger) -> None:
        """Account in `ledger` from now on, where others want to know of each call at once."""
        self._ledger, self.keeps_journal = ledger, False

    def post(self) -> None:
        """Close the journal, and have the ledger hear of all that is in it."""
        if self.journal.calls:
            post(self, self._ledger)
        self.journal.until = -math.inf

    # Admission

    def submit(self, call: Call, now: float) -> bool:
        """True if the call is admitted; else it is in line. Or raise CapacityExceededError at once."""
        if self.try_submit(call, now):
            return True
        if (in_vain := verdicts.in_vain(self, call, now)) is not None:
            raise in_vain
        call.reason = self.wait.limit if self.wait is not None else None
        call.size = size_of(call.cost)
        # A call that was refused before lets others carry the experiments, or its SDK runs out of tries.
        self.queue.push(call, now, last=self.untold and self.discovery.found and call.attempt > 1)
        self.tally.line_up(call, now)
        if self.queue.count == 1 or call.deadline is not None:
            self.wake_at = now  # the line has changed: ask for a dispatch
        return False

    def try_submit(self, call: Call, now: float) -> bool:
        """Admit the call if nobody is in line and all limits can pay it now; never put it in line."""
        if self.journal.admit(call, now):
            return True
        self.post()
        free = not self.queue.count and self._blocked(call, now) is None
        if call.certain and (self.sizes.most or not free) and (never := verdicts.never(self, call, now)):
            raise never
        if free:
            self._admit(call, now)
            if now >= self.journal.shut_until and self._is_at_ease():
                self.journal.open(self._ledger.spare(now), now)
        return free

    def record(self, call: Call, now: float) -> None:
        """Count a call that goes whether or not the limits can pay it."""
        self._admit(call, now)

    def largest(self, unit: str) -> float:
        """The most of `unit` that one call may take."""
        units = TOKEN_UNITS[:2] if unit == TOKENS else (unit,)
        most = [gauge.capacity for gauge in self.ledger.gauges if gauge.unit in units]
        return min([*most, *(self.sizes.most.get(unit, math.inf) for unit in units)])

    def dispatch(self, now: float) -> list[Call]:
        """Everyone whose wait is over: `hold` or `error` is set. Sets `wake_at` for the next time."""
        done: list[Call] = []
        queue, ledger = self.queue, self.ledger
        funds_at = partial(funds, ledger.gauges)
        self.wait, wake_at = None, self._expire(now, done)
        while queue.count:
            call = queue.next(funds_at, now)
            if call is None:
                break
            wait = self._blocked(call, now)
            doubtful = wait is not None or self.sizes.most  # a limit may have been lowered while it waited
            if call.certain and doubtful and (never := verdicts.never(self, call, now)):
                queue.remove(call)
                call.error = never
                done.append(call)
            elif wait is None:
                call.share = ledger.share(call.cost)
                queue.serve(call, call.share)
                self.tally.let_in(call, now)
                self._admit(call, now)
                done.append(call)
            elif now + self.max_pause < wait.until < math.inf:
                self._turn_away(call, wait, now, done)
            else:
                call.reason = wait.limit
                self.wait, wake_at = wait, min(wake_at, wait.until)
                break
        self.account.hold_back(self.wait.limit if self.wait else None, ledger.gauges, now)
        self.wake_at = wake_at
        return done

    def withdraw(self, call: Call, now: float) -> None:
        """The caller has gone: out of the line."""
        if call.in_line:
            self.queue.remove(call)
            self.tally.withdraw()
            self.wake_at = now

    def _admit(self, call: Call, now: float) -> None:
        call.hold = self.ledger.reserve(call.cost, now)
        self.concurrency.in_flight += 1
        self.account.admit(now)
        if self.tally.paused is not None:
            self.tally.resume(now)
        if self.untold:
            call.trial = self.discovery.sent(call.cost, now, under_way=not self._ledger.sends_told)

    def _is_at_ease(self) -> bool:
        """Nothing but what is left of the limits decides whether a call may go, and one call teaches little."""
        return (
            self.keeps_journal
            and not self.untold
            and self.concurrency.window == math.inf
            and not self.sizes.most
            and not self.failures
            and self.tally.paused is None
            and self.estimator.steady
        )

    def _blocked(self, call: Call, now: float) -> Wait | None:
        cost = call.cost
        if now < self.pause.until:
            return Wait(self.pause.reason, 0.0, self.pause.until)
        if self.concurrency.full:
            missing = self.concurrency.in_flight + 1 - self.concurrency.window
            return Wait("concurrency", missing, math.inf)
        short = self._ledger.shortage(cost, now, certain=call.certain)
        if short is not None:
            gauge, missing = short
            return Wait(gauge.unit, missing, max(now + gauge.lull, self._ledger.ready_at(cost, now)[0]))
        if self.untold:
            ready = self.discovery.ready_at(cost, now, self.queue.count)
            if ready > now:
                return Wait("undiscovered limit", 1.0, max(ready, now + 1e-3))
        return None

    def _turn_away(self, call: Call, wait: Wait, now: float, done: list[Call]) -> None:
        self.queue.remove(call)
        self.wait = wait
        why = f"beyond max_pause={self.max_pause:g}"
        call.error = verdicts.too_long(self, wait.until - now, "max_pause", why, now)
        done.append(call)

    def _expire(self, now: float, done: list[Call]) -> float:
        """Refuse those whose deadline has come; the next deadline."""
        soonest = math.inf
        if self.queue.deadlines:
            for call in self.queue.expired(now):
                left = self.eta(call.cost, now) - now
                call.error = verdicts.too_long(self, left, "deadline", "and its deadline has come", now)
                done.append(call)
            soonest = self.queue.next_deadline()
        return soonest

    def eta(self, cost: Cost, now: float) -> float:
        """When a call of `cost`, put in line now, would go, as far as the limits are known."""
        totals = self.queue.totals
        total = {unit: amount + totals.get(unit, 0.0) for unit, amount in cost.items()}
        ready = max(now, self.pause.until, self.ledger.eta(total, now)[0])
        for unit, limit in self.inferred_limits().items():
            ready = max(ready, now + MINUTE * totals.get(unit, 0.0) / limit)
        return ready

    def inferred_limits(self) -> dict[str, float]:
        """By unit, a minute, where only refusals tell; empty where nothing was refused, or headers tell."""
        return self.discovery.limits() if self.untold else {}

    def charge_like(self, charging: Charging) -> None:
        """Follow this provider's habit of charging from now on."""
        self.charging = charging

    # What became of a call

    def begin(self, call: Call, now: float, *, written: bool = False, traced: bool = False) -> None:
        """The call is about to be sent, or was just `written`: it was admitted some time ago, perhaps, in a busy
        process. Needs no lock.
        """
        call.departed = now, written, traced
        if call.hold is not None:  # it may just have been posted
            self._ledger.depart(call.hold, now, written, traced)
        if call.trial is not None:
            call.trial.sent_at, call.trial.under_way = now, True

    def resume(self, call: Call, now: float) -> None:
        """Whoever waited in line goes on, which may be some time after the admission. Needs no lock."""
        if call.hold is not None:
            self._ledger.resume(call.hold, now)

    def times_matter(self) -> bool:
        """Whether much hangs on the instant at which a call is sent: windows give back what they count by it, and
        a full bucket refills from then on.
        """
        return self.untold or any(
            not isinstance(level, BucketLevel) or level.on_the_way > RUSH * level.burst
            for gauge in self._ledger.gauges
            for level in gauge.active
        )

    def observe(self, call: Call, info: RateLimitInfo, now: float) -> None:
        """Learn from one response to `call`; a refusal ends its hold."""
        ledger, hold = self.ledger, call.hold
        if hold is None:
            return
        self.wake_at = now
        ledger.arrived(hold, now, info.processing or 0.0)
        self.unread_until = -math.inf
        for reading in info.quotas:
            if reading.unit == CONCURRENT_REQUESTS and reading.limit:
                self.concurrency.told(reading.limit)
        refusal = info.refusal
        if refusal is not None and refusal.kind is RefusalKind.RATE_LIMIT:
            # Before what is left is read: a header that tells it does not count what was refused.
            self.give_back(call, now, counts=self.charging.counts_refusals)
        if info.quotas:
            before = len(ledger.gauges)
            if ledger.read(info.quotas, hold, now):
                self.unread_until = now + UNREAD
            else:
                self.tally.compare(ledger.told, now)
                self.account.follow(ledger.gauges, now)
            if before == 0 and ledger.gauges and not self.discovery.found:
                self.untold = False  # headers tell: nothing is left to discover
        if refusal is not None:
            paused_until = self.pause.until
            refusals.learn(self, call, refusal, now)
            if self.pause.until > paused_until:
                self.tally.pause(self.pause.until, self.pause.reason, now)
        else:
            self._passed(call, now)

    def pass_unread(self, call: Call, now: float) -> None:
        """A call went well, and nothing is near its limit: its header may stay unread until `unread_until`.

        Of one that is in the journal it is enough to note `replied_at` before, which needs no lock.
        """
        if call.hold is not None:
            self._ledger.arrived(call.hold, now)
            self._passed(call, now)

    def _passed(self, call: Call, now: float) -> None:
        self.failures = 0
        self.concurrency.passed()
        if call.trial is not None:
            self.discovery.passed(call.trial, now)
            if call.trial.experiment:
                self.tally.infer(self.inferred_limits().get(REQUESTS), now)

    def give_back(self, call: Call, now: float, *, counts: bool) -> None:
        """It was refused: what it took comes back, unless the provider `counts` refusals."""
        if (hold := self._hold_of(call)) is not None:
            self._end(self._ledger.refuse(hold, now, counts=counts), "refused", now)

    def settle(self, call: Call, usage: Usage, now: float) -> bool:
        """The true usage replaces the estimate. False if the call had already ended."""
        hold = call.hold
        if hold is None:
            if not call.reserved:
                return False
            call.end = usage, now
            return True
        if hold.state is not RESERVED:
            return False
        charged = self.price(call, usage)
        self._ledger.settle(hold, charged, now)
        self.concurrency.in_flight -= 1
        if charged != hold.cost or call.trial is not None or self.concurrency.window < math.inf:
            self.wake_at = now  # something has come back
        if call.share and self.queue.count:
            self.queue.correct(call.tenant, call.share - self._ledger.share(charged))
        if call.trial is not None:
            self.discovery.passed(call.trial, now)
        return True

    def price(self, call: Call, usage: Usage) -> Cost:
        """What a call has cost that used so much; learns from it."""
        usage, held = usage.checked(), call.cost
        charged = self.charging.charge(usage, held, call.max_tokens)
        if charged != held:
            self.tally.correct(held, charged)
        self.estimator.learn(call.guessed, usage.input_tokens, usage.output_tokens, usage.tokens)
        return charged

    def cancel(self, call: Call, now: float) -> bool:
        """Never sent: all of it comes back."""
        if call.trial is not None and call.trial.passed is None:
            self.discovery.withdrawn(call.trial)
        hold = self._hold_of(call)
        return hold is not None and self._end(self._ledger.cancel(hold, now), "cancelled", now)

    def move(self, call: Call, now: float) -> bool:
        """It goes elsewhere, and was never this bucket's: nothing of it stays behind."""
        moved = self.cancel(call, now)
        self.account.admitted -= moved
        self.tally.ends["cancelled"] -= moved
        self.tally.ends["moved"] += moved
        return moved

    def lapse(self, call: Call, now: float) -> bool:
        """Sent, and nobody knows what became of it: it stays charged."""
        hold = self._hold_of(call)
        return hold is not None and self._end(self._ledger.lapse(hold), "unknown", now)

    def _hold_of(self, call: Call) -> Hold | None:
        """What it has reserved, posted if it was only noted."""
        if call.hold is None and call.noted:
            self.post()
        return call.hold

    def _end(self, ended: bool, outcome: str, now: float) -> bool:
        if ended:
            self.tally.ends[outcome] += 1
            self.wake_at = now
            self.concurrency.in_flight -= 1
        return ended
