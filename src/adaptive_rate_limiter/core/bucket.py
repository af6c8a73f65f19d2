"""One bucket: every decision about the calls that share one limit, with time as an argument.

A call passes `submit` (admitted at once, put in line, or refused with a reason), `observe` for each
response, and one of `settle`, `cancel`, `lapse`. Whenever something changed, `dispatch` says who goes now,
and `wake_at` when to ask again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.account import Account
from adaptive_rate_limiter.core.charging import GENERIC, Charging, Usage
from adaptive_rate_limiter.core.discovery import Discovery
from adaptive_rate_limiter.core.estimate import Estimator
from adaptive_rate_limiter.core.hypotheses import MINUTE
from adaptive_rate_limiter.core.ledger import HoldState, Ledger
from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.queue import Call, FairQueue, Funds
from adaptive_rate_limiter.core.quota import (
    CONCURRENT_REQUESTS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKENS,
    Cost,
    Quota,
)
from adaptive_rate_limiter.core.setbacks import Concurrency, Pause, Sizes
from adaptive_rate_limiter.core.tally import Tally
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.types import RateLimitInfo, Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTRADICTIONS, CONTRADICTED_WITHIN = (
    2,
    60.0,
)  # refusals and seconds before a limit beside the told is looked for
UNREAD = 0.05  # seconds for which headers say nothing new, where more than half of every limit is left
RUSH = 0.01  # of a bucket: more than that on its way at once is a burst
NO_END = 3600.0  # seconds until a spent quota that names no end, or a size that was too large, may have become another
TOKEN_UNITS = (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)


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
        self.ledger = Ledger(quotas, now)
        self.queue = FairQueue()
        self.estimator = Estimator()
        self.account = Account()
        self.tally = Tally(bucket_id)
        self.discovery = Discovery()
        # Some limit shows only in refusals: discovery is in charge of it.
        self.untold = not self.ledger.gauges
        self.led = False  # many workers share a limit that nobody tells: it is found out elsewhere
        self.limited = 0  # refusals for a limit
        self.unread_until = -math.inf
        self.sizes = Sizes()
        self.failures = 0  # in a row, of the kinds that tell nothing of a limit
        self.contradictions = 0  # refusals of late that the told limits do not explain
        self.contradicted_at = -math.inf
        self.wait: Wait | None = None
        self.wake_at = math.inf

    # Admission

    def submit(self, call: Call, now: float) -> None:
        """Admit the call (`hold` is set), put it in line, or raise CapacityExceededError at once."""
        if (never := self._never(call, now)) is not None:
            raise never
        if not self.queue.count and self._blocked(call.cost, now) is None:
            self._admit(call, now)
            return
        self._refuse_vain(call, now)
        call.reason = self.wait.limit if self.wait is not None else None
        call.size = self._size(call.cost)
        # A call that was refused before lets others carry the experiments, or its SDK runs out of tries.
        self.queue.push(call, now, last=self.untold and self.discovery.found and call.attempt > 1)
        self.tally.line_up(call, now)
        if self.queue.count == 1 or call.deadline is not None:
            self.wake_at = now  # the line has changed: ask for a dispatch

    def try_submit(self, call: Call, now: float) -> bool:
        """Admit the call if nobody is in line and all limits can pay it now; never put it in line."""
        if (never := self._never(call, now)) is not None:
            raise never
        if self.queue.count or self._blocked(call.cost, now) is not None:
            return False
        self._admit(call, now)
        return True

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
        queue = self.queue
        self.wait, wake_at = None, self._expire(now, done)
        while queue.count:
            call = queue.next(self._funds, now)
            if call is None:
                break
            wait = self._blocked(call.cost, now)
            if call.certain and self._over(call.cost, now) is not None:  # a limit was lowered while it waited
                queue.remove(call)
                call.error = self._never(call, now)
                done.append(call)
            elif wait is None:
                call.share = self.ledger.share(call.cost)
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
        self.account.hold_back(self.wait.limit if self.wait else None, self.ledger.gauges, now)
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
            call.trial = self.discovery.sent(call.cost, now, under_way=not self.ledger.sends_told)

    def _blocked(self, cost: Cost, now: float) -> Wait | None:
        if now < self.pause.until:
            return Wait(self.pause.reason, 0.0, self.pause.until)
        if self.concurrency.full:
            missing = self.concurrency.in_flight + 1 - self.concurrency.window
            return Wait("concurrency", missing, math.inf)
        short = self.ledger.shortage(cost, now)
        if short is not None:
            gauge, missing = short
            return Wait(gauge.unit, missing, max(now + 1e-4, self.ledger.ready_at(cost, now)[0]))
        if self.untold:
            ready = self.discovery.ready_at(cost, now, self.queue.count)
            if ready > now:
                return Wait("undiscovered limit", 1.0, max(ready, now + 1e-3))
        return None

    def _refuse_vain(self, call: Call, now: float) -> None:
        """Raise for a call that cannot go before its deadline, or behind a pause that is too long."""
        if call.deadline is None and now >= self.pause.until and self.ledger.longest_window <= self.max_pause:
            return
        alone = max(self.pause.until, self.ledger.ready_at(call.cost, now)[0])
        if alone - now > self.max_pause:
            raise self._too_long(alone - now, "max_pause", f"beyond max_pause={self.max_pause:g}", now)
        if call.deadline is not None:
            ready = max(alone, self.eta(call.cost, now))
            if ready > call.deadline:
                why = f"beyond its deadline in {call.deadline - now:.3g} s"
                raise self._too_long(ready - now, "deadline", why, now)

    def _never(self, call: Call, now: float) -> CapacityExceededError | None:
        """What to say to a call that is certain to be larger than a whole limit; None if it is not."""
        over = self._over(call.cost, now) if call.certain else None
        if over is None:
            return None
        unit, most = over
        self.tally.reject("too_large", unit, None, now)
        return CapacityExceededError(
            f"{call.cost[unit]:,.0f} {unit} can never pass {self.bucket_id}: the whole limit is {most:,.0f}",
            self.bucket_id,
        )

    def _over(self, cost: Cost, now: float) -> tuple[str, float] | None:
        """A unit of which `cost` takes more than may ever pass at once, and how much may."""
        gauge = self.ledger.too_large(cost)
        if gauge is not None:
            return gauge.unit, gauge.capacity
        return self.sizes.over(cost, now) if self.sizes.most else None

    def _too_long(self, seconds: float, reason: str, why: str, now: float) -> CapacityExceededError:
        limit = (
            self.pause.reason if now < self.pause.until else (self.wait.limit if self.wait else "the limit")
        )
        self.tally.reject(reason, limit, max(0.0, seconds), now)
        return CapacityExceededError(
            f"{self.bucket_id} has room for this call in {seconds:,.3f} s ({limit}), {why}",
            self.bucket_id,
            max(0.0, seconds),
        )

    def _turn_away(self, call: Call, wait: Wait, now: float, done: list[Call]) -> None:
        self.queue.remove(call)
        self.wait = wait
        why = f"beyond max_pause={self.max_pause:g}"
        call.error = self._too_long(wait.until - now, "max_pause", why, now)
        done.append(call)

    def _expire(self, now: float, done: list[Call]) -> float:
        """Refuse those whose deadline has come; the next deadline."""
        soonest = math.inf
        if self.queue.deadlines:
            for call in self.queue.expired(now):
                left = self.eta(call.cost, now) - now
                call.error = self._too_long(left, "deadline", "and its deadline has come", now)
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

    # Balance

    def _size(self, cost: Cost) -> float:
        return cost.get(TOKENS) or cost.get(INPUT_TOKENS, 0.0)

    def _funds(self, now: float) -> Funds | None:
        """Are tokens the fuller side, and what can they pay by the time that a request may be sent?"""
        if len(self.ledger.gauges) < 2:  # noqa: PLR2004 - it takes two to be balanced
            return None
        requests = tokens = None
        fullest = math.inf
        for gauge in self.ledger.gauges:
            part = gauge.available(now) / gauge.limit
            if gauge.unit == REQUESTS:
                if requests is None or part < requests[0]:
                    requests = (part, gauge)
            elif gauge.unit in TOKEN_UNITS and part < fullest:
                fullest, tokens = part, gauge
        if requests is None or tokens is None:
            return None
        slot = max(0.0, requests[1].ready_at(1.0, now) - now)
        payable = min(tokens.capacity, tokens.available(now) + slot * tokens.rate)
        return Funds(prefer_large=fullest >= requests[0], payable=payable)

    # What became of a call

    def begin(self, call: Call, now: float, *, written: bool = False, traced: bool = False) -> None:
        """The call is about to be sent, or was just `written`: it was admitted some time ago, perhaps, in a busy
        process. Needs no lock.
        """
        if call.hold is not None:
            self.ledger.depart(call.hold, now, written=written, traced=traced)
        if call.trial is not None:
            call.trial.sent_at, call.trial.under_way = now, True

    def times_matter(self, now: float) -> bool:
        """Whether much hangs on the instant at which a call is sent: windows give back what they count by it, and
        a full bucket refills from then on.
        """
        if now < self.unread_until:
            return False
        return self.untold or any(
            not isinstance(level, BucketLevel) or level.on_the_way > RUSH * level.burst
            for gauge in self.ledger.gauges
            for level in gauge.active
        )

    def observe(self, call: Call, info: RateLimitInfo, now: float) -> None:
        """Learn from one response to `call`; a refusal ends its hold."""
        hold = call.hold
        if hold is None:
            return
        self.wake_at = now
        self.ledger.arrived(hold, now)
        self.unread_until = -math.inf
        for reading in info.quotas:
            if reading.unit == CONCURRENT_REQUESTS and reading.limit:
                self.concurrency.told(reading.limit)
        refusal = info.refusal
        if refusal is not None and refusal.kind is RefusalKind.RATE_LIMIT:
            # Before what is left is read: a header that tells it does not count what was refused.
            self._give_back(call, now, counts=self.charging.counts_refusals)
        if info.quotas:
            before = len(self.ledger.gauges)
            if self.ledger.read(info.quotas, hold, now):
                self.unread_until = now + UNREAD
            else:
                self.tally.compare(self.ledger.told, now)
                self.account.follow(self.ledger.gauges, now)
            if before == 0 and self.ledger.gauges and not self.discovery.found:
                self.untold = False  # headers tell: nothing is left to discover
        if refusal is not None:
            paused_until = self.pause.until
            self._refused(call, refusal, now)
            if self.pause.until > paused_until:
                self.tally.pause(self.pause.until, self.pause.reason, now)
        else:
            self._passed(call, now)

    def pass_unread(self, call: Call, now: float) -> None:
        """A call went well, and nothing is near its limit: its header may stay unread until `unread_until`."""
        if call.hold is not None:
            self.ledger.arrived(call.hold, now)
            self._passed(call, now)

    def _passed(self, call: Call, now: float) -> None:
        self.failures = 0
        self.concurrency.passed()
        if call.trial is not None:
            self.discovery.passed(call.trial, now)
            if call.trial.experiment:
                self.tally.infer(self.inferred_limits().get(REQUESTS), now)

    def _refused(self, call: Call, refusal: Refusal, now: float) -> None:
        kind, in_flight = refusal.kind, self.concurrency.in_flight
        self.tally.refuse(refusal, now)
        if kind is RefusalKind.RATE_LIMIT:
            self._learn_refusal(call, refusal, now)
            return
        if call.trial is not None:
            self.discovery.withdrawn(call.trial)
        self._give_back(call, now, counts=False)
        if kind is RefusalKind.OVERLOAD:
            self._back_off("provider overloaded", refusal, now)
        elif kind is RefusalKind.CONCURRENCY:
            self.concurrency.refused(in_flight)
            if in_flight <= 1:  # somebody else's calls: none of ours will end and make room
                self._back_off("concurrency", refusal, now)
        elif kind is RefusalKind.QUOTA_EXHAUSTED:
            after = NO_END if refusal.retry_after is None else refusal.retry_after
            if after > 0:
                self.pause.extend(now + after, "quota exhausted")
            else:  # its end has passed, by this machine's clock
                self._back_off("quota exhausted", refusal, now)
        elif kind is RefusalKind.REQUEST_TOO_LARGE and refusal.unit is not None and refusal.limit is not None:
            self.sizes.refused(refusal.unit, refusal.limit, now + NO_END)

    def _back_off(self, reason: str, refusal: Refusal, now: float) -> None:
        self.failures += 1
        self.pause.back_off(self.failures, now, reason, refusal.retry_after)

    def _give_back(self, call: Call, now: float, *, counts: bool) -> None:
        if call.hold is not None:
            self._end(self.ledger.refuse(call.hold, now, counts=counts), "refused", now)

    def _learn_refusal(self, call: Call, refusal: Refusal, now: float) -> None:
        after = refusal.retry_after
        self.limited += 1
        if after is not None:
            self.pause.extend(now + after, f"retry-after of {after:g} s")
        if self.led:
            self.ledger.empty(refusal, call.cost, now)
            return
        explained = after is not None or any(
            gauge.available(now) < call.cost.get(gauge.unit, 0.0) for gauge in self.ledger.gauges
        )
        named = any(gauge.unit == refusal.unit for gauge in self.ledger.gauges)
        emptied = (explained or named) and self.ledger.empty(refusal, call.cost, now)
        if call.trial is None and not (explained and emptied):
            self.tally.contradict(refusal, now)
            if not self._names_another(refusal) and self._first_contradictions(now):
                return
            self.untold = True  # the limits that are known would have let it pass: there is another one
            call.trial = self.discovery.sent(call.cost, call.hold.at if call.hold else now)
        if call.trial is not None:
            self.discovery.refused(call.trial, now, refusal.unit, after)
            if refusal.limit is not None and refusal.window == MINUTE:
                self.discovery.named(call.trial, refusal.limit, now)
            self.tally.infer(self.inferred_limits().get(REQUESTS), now)

    def _names_another(self, refusal: Refusal) -> bool:
        """Whether it names a limit that is not among the known."""
        named = (refusal.unit, refusal.limit, refusal.window)
        return refusal.limit is not None and all(
            (gauge.unit, gauge.limit, gauge.window) != named for gauge in self.ledger.gauges
        )

    def _first_contradictions(self, now: float) -> bool:
        """Wait out the first refusals that the told limits do not explain: a burst, or a neighbour's."""
        if now - self.contradicted_at > CONTRADICTED_WITHIN:
            self.contradictions = 0
        self.contradicted_at = now
        self.contradictions += 1
        if self.contradictions > CONTRADICTIONS or not self.ledger.gauges:
            return False
        self.pause.back_off(self.contradictions, now, "a refusal that no header explains")
        return True

    def settle(self, call: Call, usage: Usage, now: float) -> bool:
        """The true usage replaces the estimate. False if the call had already ended."""
        hold = call.hold
        if hold is None or hold.state is not HoldState.RESERVED:
            return False
        charged = self.charging.charge(usage, hold.cost, call.max_tokens)
        self.ledger.settle(hold, charged, now)
        self.concurrency.in_flight -= 1
        corrected = charged != hold.cost
        if corrected:
            self.tally.correct(hold.cost, charged)
        if corrected or call.trial is not None or self.concurrency.window < math.inf:
            self.wake_at = now  # something has come back
        self.estimator.learn(call.guessed, usage.input_tokens, usage.output_tokens, usage.tokens)
        if call.share and self.queue.count:
            self.queue.correct(call.tenant, call.share - self.ledger.share(charged))
        if call.trial is not None:
            self.discovery.passed(call.trial, now)
        return True

    def cancel(self, call: Call, now: float) -> bool:
        """Never sent: all of it comes back."""
        if call.trial is not None and call.trial.passed is None:
            self.discovery.withdrawn(call.trial)
        return call.hold is not None and self._end(self.ledger.cancel(call.hold, now), "cancelled", now)

    def move(self, call: Call, now: float) -> bool:
        """It goes elsewhere, and was never this bucket's: nothing of it stays behind."""
        moved = self.cancel(call, now)
        self.account.admitted -= moved
        self.tally.ends["cancelled"] -= moved
        self.tally.ends["moved"] += moved
        return moved

    def lapse(self, call: Call, now: float) -> bool:
        """Sent, and nobody knows what became of it: it stays charged."""
        return call.hold is not None and self._end(self.ledger.lapse(call.hold), "unknown", now)

    def _end(self, ended: bool, outcome: str, now: float) -> bool:
        if ended:
            self.tally.ends[outcome] += 1
            self.wake_at = now
            self.concurrency.in_flight -= 1
        return ended
