"""What happens in a bucket rarely enough to be worth a line: plain values, for the shell to hand on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

Figure: TypeAlias = "str | float | None"

QUIET = 1.0  # seconds in which the same again is counted, not told: a storm of refusals is one line a second
WHOLE = 10  # from here on figures are said without decimals

# What is said of each kind of event: every name that there is. What is not known is a question mark.
SENTENCES = {
    "limit_learned": "limit of {limit} {unit} per {window} s, from {source}",
    "limit_changed": "limit of {limit} {unit} per {window} s, from {source}; it was {limit_before} per {window_before} s",
    "limit_contradicted": "the provider refused (unit: {unit}) what all known limits allow",
    "refused": "the provider refused: {kind} (unit: {unit}, retry after {retry_after} s)",
    "rejected": "not let in: {reason} ({limit}, retry after {retry_after} s)",
    "paused": "nothing is sent for {seconds} s: {reason}",
    "resumed": "calls go again, {seconds} s after nothing was sent: {reason}",
    "waiting": "{waiting} calls wait for {limit}; the last goes in {seconds} s",
    "outage": "the backend cannot be reached; {on_outage} is in force, and {workers} processes were last seen",
    "outage_over": "the backend is reached again, after {seconds} s of {on_outage}",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened in a bucket, `at` so many seconds of the limiter's clock; `fields` has the figures.

    `count` of them: what happens again within QUIET seconds is told with the next. As a string it is a sentence.
    """

    name: str
    bucket_id: str
    at: float
    fields: dict[str, Figure]
    count: int = 1
    text: str = ""

    def __str__(self) -> str:
        told = {name: _said(value) for name, value in self.fields.items()}
        again = f" ({self.count:,} times)" if self.count > 1 else ""
        return f"{self.bucket_id}: {self.text or SENTENCES[self.name].format_map(told)}{again}"


class Events:
    """The events of one bucket that nobody was told of yet."""

    __slots__ = ("_again", "_told_at", "bucket_id", "pending")

    def __init__(self, bucket_id: str) -> None:
        self.bucket_id = bucket_id
        self.pending: dict[tuple[str, str], Event] = {}
        self._told_at: dict[tuple[str, str], float] = {}
        self._again: dict[tuple[str, str], int] = {}

    def add(self, name: str, kind: str, now: float, /, **fields: Figure) -> None:
        """Say it at the end of the step; `kind` tells apart what is worth a line of its own, and there are few."""
        key = (name, kind)
        event = self.pending.get(key)
        if event is not None:
            self.pending[key] = replace(event, fields=fields, count=event.count + 1)
        elif self.is_quiet(name, kind, now):
            self._again[key] = self._again.get(key, 0) + 1
        else:
            self._told_at[key] = now
            self.pending[key] = Event(name, self.bucket_id, now, fields, 1 + self._again.pop(key, 0))

    def say(self, name: str, text: str, now: float, /, **fields: Figure) -> None:
        """The same in other words, by somebody who sees to it that it is rare."""
        self.pending[name, ""] = Event(name, self.bucket_id, now, fields, text=text)

    def is_quiet(self, name: str, kind: str, now: float) -> bool:
        """Whether the same was told a moment ago."""
        return now - self._told_at.get((name, kind), -math.inf) < QUIET

    def take(self) -> list[Event]:
        """Those pending, which are pending no more."""
        taken = list(self.pending.values())
        self.pending = {}
        return taken


def _said(value: Figure) -> str:
    if value is None:
        return "?"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.3g}"
