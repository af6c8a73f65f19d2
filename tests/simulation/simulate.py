"""A discrete-event run of one bucket against a simulated provider: minutes of traffic in a blink."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.testing.limits import Limit
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind


@dataclass
class Provider:
    """Limits by unit, and whether their state is told in headers."""

    limits: dict[str, Limit]
    tells: bool = True
    tells_retry_after: bool = True
    names: bool = False  # a refusal's words name the limit, whatever headers tell
    changes: list[tuple[float, str, float]] = field(default_factory=list)
    stranger: float = 0.0  # share of every limit's rate that somebody else takes
    whole_seconds: bool = False  # resets are rounded up, or cut:
    cuts: bool = False
    stranger_at: float = 0.0
    rounds: bool = False  # remaining tokens to the nearest thousand

    def arrive(self, cost: dict[str, float], now: float) -> tuple[bool, RateLimitInfo]:
        while self.changes and self.changes[0][0] <= now:
            _, unit, limit = self.changes.pop(0)
            self.limits[unit].set_limit(limit, now)
        while self.stranger and self.stranger_at < now:
            for limit in self.limits.values():
                grab = self.stranger * limit.limit / limit.window * 0.25
                if limit.fits(grab, self.stranger_at):
                    limit.charge(grab, self.stranger_at)
            self.stranger_at += 0.25
        short = [u for u, limit in self.limits.items() if not limit.fits(cost.get(u, 0.0), now)]
        retry_after = max((self.limits[u].retry_after(cost.get(u, 0.0), now) for u in short), default=0.0)
        if not short:
            for unit, limit in self.limits.items():
                limit.charge(cost.get(unit, 0.0), now)
        info = RateLimitInfo(quotas=self._readings(now) if self.tells else ())
        if short:
            told = retry_after if self.tells and self.tells_retry_after else None
            info.refusal = Refusal(RefusalKind.RATE_LIMIT, told, unit=short[0] if self.tells else None)
            if self.names:
                limit = self.limits[short[0]]
                info.refusal = replace(info.refusal, unit=short[0], limit=limit.limit, window=limit.window)
        return not short, info

    def _readings(self, now: float) -> tuple[QuotaReading, ...]:
        def reset(limit: Limit) -> float:
            after = limit.reset_after(now)
            if self.whole_seconds:
                return float(int(after) if self.cuts else math.ceil(after))
            return round(after, 3)

        def left(unit: str, limit: Limit) -> float:
            remaining = limit.remaining(now)
            return (
                1000.0 * round(remaining / 1000)
                if self.rounds and unit != "requests"
                else float(int(remaining))
            )

        return tuple(
            QuotaReading(unit, limit.limit, left(unit, limit), reset(limit))
            for unit, limit in self.limits.items()
        )


@dataclass
class Outcome:
    seconds: float
    admitted: int
    refused: int
    lost: int
    sends: list[tuple[float, bool]]
    bucket: Bucket
    spent: dict[str, float]

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.refused + self.admitted)


def run(
    provider: Provider,
    costs: list[dict[str, float]],
    *,
    latency: Callable[[random.Random], float] = lambda rng: 0.05,
    jitter: float = 0.02,
    seed: int = 0,
    tries: int = 3,
    horizon: float = 7200.0,
    bucket: Bucket | None = None,
    arrivals: Callable[[int], float] = lambda index: 0.0,
    overhead: float = 0.0015,
    written: bool = True,
    callers: int | None = None,
) -> Outcome:
    """Submit `costs`; the run ends with the last reply. `overhead` is the client's time to send one request;
    whether it is told when one is `written` is another matter. So many `callers` make one call after the other,
    instead of all at their `arrivals`."""
    rng = random.Random(seed)
    bucket = bucket or Bucket("simulated", (), 0.0)
    events: list = []
    order = itertools.count()
    outcome = Outcome(0.0, 0, 0, 0, [], bucket, {})
    busy_until = 0.0

    def push(at, what, *payload):
        heapq.heappush(events, (at, next(order), what, payload))

    def start(call, left, now):
        nonlocal busy_until
        busy_until = max(busy_until, now) + overhead  # one core sends one request after the other
        push(busy_until, "begin", call)
        push(busy_until + jitter * rng.uniform(0.5, 1.5), "arrive", call, left)

    tries_left: dict[int, int] = {}

    def submit(call, left, now):
        tries_left[id(call)] = left
        keep.append(call)
        bucket.submit(call, now)
        if call.admitted:
            start(call, left, now)
        wake(now)

    def wake(now):
        """One timer, set to the earliest instant asked for: a second one would ask in vain."""
        nonlocal woken
        if bucket.wake_at < woken:
            woken = max(bucket.wake_at, now)
            push(woken, "dispatch")

    keep: list[Call] = []
    later = deque(costs if callers is not None else ())
    at_first = costs if callers is None else [later.popleft() for _ in range(callers)]

    def follow(now):
        """The caller makes its next call."""
        if later:
            push(now, "submit", Call(later.popleft(), since=now), tries)

    for index, cost in enumerate(at_first):
        push(arrivals(index), "submit", Call(cost, since=arrivals(index)), tries)
    woken = math.inf
    while events:
        now, _, what, payload = heapq.heappop(events)
        if now > horizon:
            break
        if what == "dispatch":
            if now != woken:
                continue  # an earlier timer was set since
            woken = math.inf
        if what == "submit":
            submit(payload[0], payload[1], now)
            continue
        if what == "begin":
            bucket.begin(payload[0], now, written=written)
            continue
        if what == "arrive":
            call, left = payload
            passed, info = provider.arrive(call.cost, now)
            outcome.sends.append((now, passed))
            if passed:
                outcome.admitted += 1
                for unit, amount in call.cost.items():
                    outcome.spent[unit] = outcome.spent.get(unit, 0) + amount
                push(now + latency(rng), "reply", call, info)
            else:
                outcome.refused += 1
                push(now + 0.03, "refused", call, info, left)
            continue
        if what == "reply":
            call, info = payload
            bucket.observe(call, info, now)
            bucket.settle(call, Usage(tokens=call.cost.get("tokens")), now)
            outcome.seconds = now
            follow(now)
        elif what == "refused":
            call, info, left = payload
            bucket.observe(call, info, now)
            if left > 1:
                pause = info.refusal.retry_after or 0.5 * rng.uniform(0.75, 1)
                push(now + pause, "submit", call.again(), left - 1)  # it keeps its place by age
            else:
                outcome.lost += 1
                follow(now)
        for call in bucket.dispatch(now):
            start(call, tries_left[id(call)], now)
        wake(now)
    return outcome
