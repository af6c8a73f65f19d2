"""Figures and sentences as a person says them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from adaptive_rate_limiter import report
from adaptive_rate_limiter.cli.outlook import MAX_PAUSE
from adaptive_rate_limiter.types import RefusalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.cli.outlook import Outlook, Pace
    from adaptive_rate_limiter.types import Refusal

__all__ = ["count", "instant", "next_step", "plain", "refused", "span", "window"]

WINDOWS = {1: "second", 60: "minute", 3600: "hour", 86_400: "day", 604_800: "week", 2_592_000: "month"}
DAY = 86_400
MINUTE = 60.0
LONG = 60.0  # seconds from which on a wait has an end on the clock, where the clock is known

FOR_GOOD = {
    RefusalKind.REQUEST_TOO_LARGE: "it alone is larger than the whole limit",
    RefusalKind.NOT_ENTITLED: "this key may not do this at all",
    RefusalKind.QUOTA_EXHAUSTED: "no wait brings back what is used up",
}


def plain(text: str) -> str:
    """`text` without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def count(amount: float | None) -> str:
    if amount is None:
        return "-"
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.4g}"


def window(seconds: float | None) -> str:
    return (
        "-"
        if seconds is None
        else WINDOWS.get(int(seconds) if seconds == int(seconds) else 0) or span(seconds)
    )


def span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds else "0 s"
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:.1f} days".replace(".0 ", " ")
    return report.duration(seconds)


def instant(sent: float | None, after: float | None) -> str | None:
    """ISO 8601 of the moment `after` seconds from `sent`; None where one of them is not known."""
    if sent is None or after is None:
        return None
    moment = datetime.fromtimestamp(sent, timezone.utc) + timedelta(seconds=after)
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")


def refused(refusal: Refusal) -> str:
    """The provider's refusal in one line."""
    what = refusal.kind.value.replace("_", " ") + (f" on {refusal.unit}" if refusal.unit else "")
    if not refusal.retryable:
        return f"{what}, which no wait cures"
    if refusal.retry_after is None:
        return f"{what}; when to try again is not told"
    return f"{what}; try again after {span(refusal.retry_after)}"


def next_step(outlook: Outlook, refusal: Refusal | None, sent: float | None) -> str:
    """What the limiter does next, in a sentence or two."""
    if outlook.action == "never_retry" and refusal is not None:
        why = FOR_GOOD.get(refusal.kind, "the provider says so")
        return f"never retries this request, for {why}; as for other calls, it {_goes(outlook, sent)}"
    if outlook.action == "back_off" and refusal is not None:
        return _backs_off(outlook, refusal.kind)
    if outlook.action == "nothing_told":
        return (
            "nothing is told: a few calls go at once, more while they pass, until a refusal shows the limit"
        )
    return _goes(outlook, sent)


def _backs_off(outlook: Outlook, kind: RefusalKind) -> str:
    wait = span(outlook.wait)
    if kind is RefusalKind.CONCURRENCY:
        first = f" for {wait}" if outlook.wait else ""
        return (
            f"backs off{first}: fewer calls at once from now on, and the next one when one of them has ended"
        )
    if kind is RefusalKind.OVERLOAD:
        return f"backs off for {wait} ({_reasons(outlook)}), longer each time in a row, and learns no limit from it"
    return (
        f"backs off for {wait}, then finds the limit out by what passes, for neither limit nor time is told"
    )


def _goes(outlook: Outlook, sent: float | None) -> str:
    until = instant(sent, outlook.wait) if (outlook.wait or 0) >= LONG else None
    at = f", until {until}" if until else ""
    why = f" ({_reasons(outlook)})" if outlook.reasons else ""
    if outlook.wait is None:
        return f"sends the next call when one in flight has ended{why}"
    if outlook.refused:
        return (
            f"stops for {span(outlook.wait)}{at}{why}: calls are refused at once until then, "
            f"because nobody waits longer than max_pause ({span(MAX_PAUSE)})"
        )
    if outlook.wait:
        return f"waits {span(outlook.wait)}{at}{why}{_paced(outlook.paces)}"
    left: dict[str, float] = {}
    for pace in outlook.paces:
        left[pace.unit] = min(pace.left, left.get(pace.unit, pace.left))
    some = f"; {_listed([_amount(int(most), unit) for unit, most in left.items()])} left now" if left else ""
    return f"sends the next call at once{_paced(outlook.paces)}{some}"


def _paced(paces: Sequence[Pace]) -> str:
    """The limits, those of one window together."""
    by_window: dict[float, list[Pace]] = {}
    for pace in paces:
        by_window.setdefault(pace.window, []).append(pace)
    parts = []
    for seconds, limits in by_window.items():
        name = WINDOWS.get(int(seconds))
        each = f"in {span(seconds)}" if name is None else "an hour" if name == "hour" else f"a {name}"
        rates = [pace.limit * MINUTE / seconds for pace in limits if pace.unit == "requests"]
        slow = rates and seconds != MINUTE and rates[0] >= 0.1  # noqa: PLR2004 - of a month's limit it says nothing
        minute = f" ({count(round(rates[0], 1))} a minute)" if slow else ""
        parts.append(f"{_listed([_amount(pace.limit, pace.unit) for pace in limits])} {each}{minute}")
    return f", then at most {_listed(parts)}" if parts else ""


def _amount(amount: float, unit: str) -> str:
    name = unit.replace("_", " ")
    return f"{count(amount)} {name.removesuffix('s') if amount == 1 else name}"


def _reasons(outlook: Outlook) -> str:
    units = {pace.unit for pace in outlook.paces}
    return ", then ".join(f"for {reason}" if reason in units else reason for reason in outlook.reasons)


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
