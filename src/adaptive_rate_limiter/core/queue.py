"""Who is next: fair between tenants, and within one tenant in an order that wastes no limit.

Between tenants: start-time fair queueing (Goyal, Vin and Cheng, 1996) on the dominant share of each call.
Within a tenant: arrival order, moved forward by priority; where tokens and requests both bind, large and
small calls are mixed so that both run out together (balanced dispatch), with bounded overtaking.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Any, TypeAlias

from adaptive_rate_limiter.core.hold import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.core.balance import Funds
    from adaptive_rate_limiter.core.charging import Usage
    from adaptive_rate_limiter.core.discovery import Trial
    from adaptive_rate_limiter.core.hold import Hold
    from adaptive_rate_limiter.core.quota import Cost
    from adaptive_rate_limiter.exceptions import RateLimiterError

OVERTAKING = 16  # after so many went ahead of the oldest, the oldest is next
LOOKAHEAD = 4096  # how many of the oldest are looked at for balance
AGEING = 30.0  # seconds of waiting that outweigh one step of priority


FundsAt: TypeAlias = "Callable[[float], Funds | None]"


class Call:
    """One call, from line to settlement. `rank` orders it within its tenant; `error` is set if it is refused.

    `certain` means that its size was stated, not estimated. `wake` is the shell's business.
    One that is only noted in a journal (`noted`) has no `hold` yet; what becomes of it meanwhile is kept here.
    """

    __slots__ = (
        "attempt", "certain", "cost", "deadline", "departed", "end", "error", "guessed", "hold", "in_line", "max_tokens",
        "noted", "place", "queued_at", "rank", "reason", "replied_at", "share", "since", "size", "tenant", "trial", "wake",
    )  # fmt: skip

    # Of one that has stood in line: its place among those that ever stood in its lane, what it waits for, ...
    place: int
    reason: str | None
    size: float
    queued_at: float
    error: RateLimiterError | None

    def __init__(
        self,
        cost: Cost,
        *,
        since: float,
        tenant: str = "",
        priority: float = 0,
        deadline: float | None = None,
        certain: bool = False,
        guessed: float = 0.0,
        max_tokens: float | None = None,
    ) -> None:
        self.cost = cost
        self.tenant = tenant
        self.since = since
        self.rank = since - AGEING * priority
        self.deadline = deadline
        self.certain = certain
        self.guessed = guessed
        self.max_tokens = max_tokens
        self.attempt = 1
        self.share = 0.0
        self.in_line = False
        self.hold: Hold | None = None
        self.trial: Trial | None = None
        self.wake: Any = None
        self.noted = False
        self.departed: tuple[float, bool, bool] | None = None  # when, and as `Ledger.depart` has it
        self.replied_at: float | None = None
        self.end: tuple[Usage, float] | None = None  # and when that was told

    @property
    def admitted(self) -> bool:
        return self.hold is not None or self.noted

    @property
    def reserved(self) -> bool:
        """Admitted, and not ended."""
        if self.hold is None:
            return self.noted and self.end is None
        return self.hold.state is RESERVED

    def again(self) -> Call:
        """Another attempt of the same call, with its place by age."""
        call = Call(
            self.cost, since=self.since, tenant=self.tenant, deadline=self.deadline, certain=self.certain,
            guessed=self.guessed, max_tokens=self.max_tokens,
        )  # fmt: skip
        call.rank = self.rank
        call.attempt = self.attempt + 1
        return call


class Lane:
    """The calls of one tenant."""

    __slots__ = ("by_age", "by_size", "count", "finish", "overtaken", "seq", "varied", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.finish = 0.0
        self.by_age: list[
            tuple[float, int, Call]
        ] = []  # a heap; those that left are dropped when they surface
        self.by_size: list[tuple[float, int, Call]] = []
        self.count = 0
        self.overtaken = 0
        self.seq = 0
        self.varied = False  # someone here has a priority: order matters more than balance

    def push(self, call: Call) -> None:
        self.seq += 1
        call.place = self.seq
        heapq.heappush(self.by_age, (call.rank, call.place, call))
        if len(self.by_size) < LOOKAHEAD:
            insort(self.by_size, (call.size, call.place, call))
        if call.rank != call.since:
            self.varied = True
        call.in_line, call.error = True, None
        self.count += 1

    def remove(self, call: Call) -> None:
        call.in_line = False
        self.count -= 1
        place = bisect_left(self.by_size, (call.size, call.place))
        if place < len(self.by_size) and self.by_size[place][2] is call:
            del self.by_size[place]
        if not self.count:
            self.by_age.clear()
            self.by_size.clear()
            self.varied = False

    def oldest(self) -> Call:
        while not self.by_age[0][2].in_line:
            heapq.heappop(self.by_age)
        return self.by_age[0][2]

    def candidate(self, funds_at: FundsAt, now: float) -> Call:
        oldest = self.oldest()
        if self.varied or self.overtaken >= OVERTAKING or not self.by_size:
            return oldest
        if self.by_size[0][0] == self.by_size[-1][0]:
            return oldest
        funds = funds_at(now)
        if funds is None:
            return oldest
        if not funds.prefer_large:
            return self.by_size[0][2]
        place = bisect_right(self.by_size, funds.payable, key=_size)
        if not place:
            return self.by_size[0][2]
        size = self.by_size[place - 1][0]
        return self.by_size[bisect_left(self.by_size, (size,))][2]  # the oldest of that size


def _size(entry: tuple[float, int, Call]) -> float:
    return entry[0]


class FairQueue:
    """The lanes of one bucket, and the virtual time that is fair to them."""

    __slots__ = ("count", "deadlines", "lanes", "seq", "totals", "virtual", "weights")

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.weights: dict[str, float] = {}
        self.virtual = 0.0
        self.count = 0
        self.seq = 0
        self.deadlines: list[tuple[float, int, Call]] = []  # a heap; those that left are dropped later
        self.totals: dict[str, float] = {}  # what all that wait will cost, per unit

    def push(self, call: Call, now: float = 0.0, *, last: bool = False) -> None:
        """Put a call in line by its rank; with `last`, behind all that came until `now`."""
        if last:
            call.rank = now
        lane = self.lanes.get(call.tenant)
        if lane is None:
            lane = self.lanes[call.tenant] = Lane(self.weights.get(call.tenant, 1.0))
        lane.push(call)
        if call.deadline is not None:
            self.seq += 1
            heapq.heappush(self.deadlines, (call.deadline, self.seq, call))
        self._count(call, 1)

    def remove(self, call: Call) -> None:
        """Take a call out of the line without serving it."""
        lane = self.lanes[call.tenant]
        lane.remove(call)
        self._count(call, -1)

    def next(self, funds_at: FundsAt, now: float) -> Call | None:
        """The call that is to go next, whether or not it can be paid yet."""
        lane = self._next_lane()
        return lane.candidate(funds_at, now) if lane is not None else None

    def serve(self, call: Call, share: float) -> None:
        """`call` goes, and takes `share` of the limit that it uses most of."""
        lane = self.lanes[call.tenant]
        lane.overtaken = 0 if lane.oldest() is call else lane.overtaken + 1
        self.virtual = max(self.virtual, lane.finish)
        lane.finish = self.virtual + share / lane.weight
        lane.remove(call)
        self._count(call, -1)

    def next_deadline(self) -> float:
        """The earliest deadline of those in line; inf if nobody has one."""
        while self.deadlines and not self.deadlines[0][2].in_line:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else math.inf

    def expired(self, now: float) -> list[Call]:
        """Take out of the line everyone whose deadline has come."""
        late = []
        while self.next_deadline() <= now:
            call = self.deadlines[0][2]
            self.remove(call)
            late.append(call)
        return late

    def correct(self, tenant: str, surplus: float) -> None:
        """A call of `tenant` took `surplus` less of its dominant limit than it was charged for."""
        lane = self.lanes.get(tenant)
        if lane is not None:
            lane.finish = max(self.virtual, lane.finish - surplus / lane.weight)

    def calls(self) -> list[Call]:
        return [entry[2] for lane in self.lanes.values() for entry in lane.by_age if entry[2].in_line]

    def _next_lane(self) -> Lane | None:
        best: Lane | None = None
        for lane in self.lanes.values():
            if lane.count and (best is None or lane.finish < best.finish):
                best = lane
        return best

    def _count(self, call: Call, sign: int) -> None:
        self.count += sign
        totals = self.totals
        if not self.count:
            totals.clear()  # sums of floats do not come back to zero by themselves
            self.lanes.clear()  # an idle system owes nobody, and idleness earns nothing
            self.virtual = 0.0
            return
        for unit, amount in call.cost.items():
            totals[unit] = totals.get(unit, 0.0) + sign * amount
