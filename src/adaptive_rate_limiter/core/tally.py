"""How often what happened in one bucket: numbers that only grow, and, of what is rare, a word at once."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.account import cause_of
from adaptive_rate_limiter.core.events import Events
from adaptive_rate_limiter.core.quota import REQUESTS, TOKENS, Cost
from adaptive_rate_limiter.core.reports import TallyReport, Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.account import Account
    from adaptive_rate_limiter.core.ledger import Ledger
    from adaptive_rate_limiter.core.queue import Call, FairQueue
    from adaptive_rate_limiter.core.told import ToldGauge
    from adaptive_rate_limiter.types import Refusal, RefusalKind

WORTH_SAYING = 0.1  # by which part of itself a limit that only refusals tell has to change to be said again
MINUTE = 60.0  # what such a limit counts in
LONGER = 2.0  # times a pause has to turn out longer than was said, to be said again

_serials = count(1)


class Tally:
    """Counts, for one bucket, and notes what is worth an event."""

    __slots__ = (
        "_inferred", "_said", "ends", "events", "limit_changes", "overestimated", "paused", "pauses",
        "refusals", "rejections", "serial", "underestimated", "waits", "withdrawn",
    )  # fmt: skip

    def __init__(self, bucket_id: str) -> None:
        self.serial = next(_serials)
        self.events = Events(bucket_id)
        self.waits: dict[str, Waits] = {}
        self.ends = {"cancelled": 0, "refused": 0, "unknown": 0, "moved": 0}  # all others have settled
        self.withdrawn = 0
        self.refusals: dict[RefusalKind, int] = {}
        self.rejections: dict[str, int] = {}
        self.pauses: dict[str, int] = {}
        self.paused: tuple[float, float, str] | None = None  # since, until, why; None once a call went again
        self.limit_changes: dict[tuple[str, str], int] = {}
        self._said: list[tuple[float, float]] = []  # limit and window, of those that headers tell
        self._inferred: float | None = None  # the limit that refusals tell, as it was said
        self.overestimated = self.underestimated = 0.0  # tokens

    @property
    def refused(self) -> int:
        return sum(self.refusals.values())

    # The line

    def line_up(self, call: Call, now: float) -> None:
        call.queued_at = (
            call.since if call.attempt == 1 else now
        )  # the same number takes no memory of its own

    def let_in(self, call: Call, now: float) -> None:
        """Its wait is over."""
        cause = "unknown" if call.reason is None else cause_of(call.reason)
        waits = self.waits.get(cause)
        if waits is None:
            waits = self.waits[cause] = Waits()
        waits.add(now - call.queued_at)

    def withdraw(self) -> None:
        """A caller in line has gone."""
        self.withdrawn += 1

    def reject(self, reason: str, limit: str, retry_after: float | None, now: float) -> None:
        """The limiter does not let a call in."""
        self.rejections[reason] = self.rejections.get(reason, 0) + 1
        self.events.add(
            "rejected", reason, now, reason=reason, limit=cause_of(limit), retry_after=retry_after
        )

    def forget_calls(self, in_flight: int) -> None:
        """All that are in line or in flight belong to another process."""
        self.ends["unknown"] += in_flight

    # What became of calls

    def correct(self, held: Cost, charged: Cost) -> None:
        """The estimate was wrong."""
        error = held.get(TOKENS, 0.0) - charged.get(TOKENS, 0.0)
        if error > 0:
            self.overestimated += error
        else:
            self.underestimated -= error

    def refuse(self, refusal: Refusal, now: float) -> None:
        """The provider refuses."""
        kind, unit, retry_after = refusal.kind, refusal.unit, refusal.retry_after
        self.refusals[kind] = self.refusals.get(kind, 0) + 1
        self.events.add("refused", kind.value, now, kind=kind.value, unit=unit, retry_after=retry_after)

    def contradict(self, refusal: Refusal, now: float) -> None:
        """It refuses what all known limits allow."""
        self.events.add("limit_contradicted", "", now, unit=refusal.unit, retry_after=refusal.retry_after)

    def pause(self, until: float, reason: str, now: float) -> None:
        """Nothing is sent until then. Said again if it turns out to be much longer, or for another reason."""
        cause, since = cause_of(reason), now
        if self.paused is not None and now < self.paused[1]:
            since, end, known = self.paused
            if cause == known and until - now <= LONGER * (end - now):
                self.paused = (since, until, cause)
                return
        self.paused = (since, until, cause)
        self.pauses[cause] = self.pauses.get(cause, 0) + 1
        self.events.add("paused", cause, now, reason=cause, seconds=until - now)

    def resume(self, now: float) -> None:
        """A call goes: if the pause has ended, say so."""
        if self.paused is not None and now >= self.paused[1]:
            since, _, cause = self.paused
            self.paused = None
            self.events.add("resumed", cause, now, reason=cause, seconds=now - since)

    # What is known of limits

    def compare(self, told: Sequence[ToldGauge], now: float) -> None:
        """Say which limits that headers tell are new, or others than was said."""
        said = self._said
        for place, gauge in enumerate(told):
            if place == len(said):
                said.append((gauge.limit, gauge.window))
                self._learned(gauge.unit, said[place], "headers", now)
            elif gauge.limit != said[place][0] or gauge.window != said[place][1]:
                figures = (gauge.limit, gauge.window)
                if self._changed(gauge.unit, said[place], figures, "headers", now):
                    said[place] = figures

    def infer(self, limit: float | None, now: float) -> None:
        """The same of requests a minute, as far as refusals tell."""
        before = self._inferred
        if limit is None or (before is not None and abs(limit - before) <= WORTH_SAYING * before):
            return
        if before is None:
            self._learned(REQUESTS, (limit, MINUTE), "refusals", now)
        elif not self._changed(REQUESTS, (before, MINUTE), (limit, MINUTE), "refusals", now):
            return
        self._inferred = limit

    def _learned(self, unit: str, figures: tuple[float, float], source: str, now: float) -> None:
        limit, window = figures
        self._count_change(unit, "learned")
        self.events.add(
            "limit_learned", f"{unit} {window:g}", now, unit=unit, limit=limit, window=window, source=source
        )

    def _changed(
        self, unit: str, before: tuple[float, float], after: tuple[float, float], source: str, now: float
    ) -> bool:
        """False if it is to be said later: one that changes with every response is said once a second."""
        kind = f"{unit} {before[1]:g}"
        if self.events.is_quiet("limit_changed", kind, now):
            return False
        self._count_change(unit, "raised" if after[0] / after[1] > before[0] / before[1] else "lowered")
        self.events.add(
            "limit_changed", kind, now,
            unit=unit, limit=after[0], window=after[1], limit_before=before[0], window_before=before[1], source=source,
        )  # fmt: skip
        return True

    def _count_change(self, unit: str, change: str) -> None:
        self.limit_changes[unit, change] = self.limit_changes.get((unit, change), 0) + 1

    # Reports

    def report(
        self, account: Account, ledger: Ledger, queue: FairQueue, in_flight: int, now: float
    ) -> TallyReport:
        """A copy of all that was counted until `now`."""
        account.hold_back(account.reason, ledger.gauges, now)
        admitted = account.admitted + self.ends["moved"]
        settled = admitted - sum(self.ends.values()) - in_flight
        heads = [lane.oldest().queued_at for lane in queue.lanes.values() if lane.count]
        others: dict[tuple[str, float], float] = {}
        for gauge in ledger.told:
            key = (gauge.unit, gauge.window)
            others[key] = others.get(key, 0.0) + used_by_others(gauge)
        return TallyReport(
            serial=self.serial,
            idle=math.inf if account.started_at is None else now - account.last,
            admitted=admitted,
            ended={"settled": settled, **self.ends},
            refused={kind.value: number for kind, number in self.refusals.items()},
            rejected=self.rejections.copy(),
            withdrawn=self.withdrawn,
            waits={cause: waits.copy() for cause, waits in self.waits.items()},
            held_back=account.waited.copy(),
            oldest_wait=now - min(heads, default=now),
            pauses=self.pauses.copy(),
            limit_changes=self.limit_changes.copy(),
            reserved=dict(ledger.spent),
            overestimated=self.overestimated,
            underestimated=self.underestimated,
            used_by_others=others,
        )


def used_by_others(gauge: ToldGauge) -> float:
    """What headers show to be taken beyond our own use, at least: the least of the plausible ways of counting.

    A correction is somebody else's use, but for what the limit itself shrank. What it grew is no gift of all
    providers, and may be in the corrections or not: it counts as given.
    """
    taken = (min(0.0, level.capacity - level.initial) - level.corrected for level in gauge.active)
    return max(0.0, min(taken))
