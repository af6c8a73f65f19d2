"""The IETF's RateLimit and RateLimit-Policy fields, the current drafts and the older ones."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import http_sf

from adaptive_rate_limiter.providers.readings import MAX_COUNT
from adaptive_rate_limiter.providers.times import DAY
from adaptive_rate_limiter.types import QuotaReading

__all__ = ["ietf_readings"]

_MAX_TEXT = 2048
_MAX_ITEMS = 16
_MAX_FIELDS = 8  # a reply sends one or two; reading one may take a millisecond
# Hugging Face writes "fixed window";"api";q=500;w=300: a second string where the grammar wants a key.
_STRAY_STRING = re.compile(r';\s*("[^"\\;,]{0,64}")')
_BETWEEN = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_UNITS = {
    "requests": "requests",
    "content-bytes": "content_bytes",
    "concurrent-requests": "concurrent_requests",
}
_NAMED_UNITS = {unit: unit for unit in ("tokens", "input_tokens", "output_tokens")}
_KEYS = {"limit": "q", "remaining": "r", "reset": "t", "q": "q", "r": "r", "t": "t", "w": "w", "window": "w"}


@dataclass(frozen=True, slots=True)
class _Item:
    name: str | None
    figures: dict[str, float]
    unit: str = "requests"


def ietf_readings(states: list[str], policies: list[str]) -> list[QuotaReading]:
    """Readings of the two fields' values, joined by policy name; damaged items are skipped."""
    told = [item for text in states[:_MAX_FIELDS] for item in _items(text)]
    rules = [item for text in policies[:_MAX_FIELDS] for item in _items(text)]
    readings, used = [], set[int]()
    for state in told:
        at = _policy_of(state, rules, alone=len(told) == 1)
        rule = None if at is None else rules[at]
        used.update(() if at is None else (at,))
        readings.append(_reading(state, rule))
    readings += [_reading(rule, None) for i, rule in enumerate(rules) if i not in used]
    return [r for r in readings if (r.limit, r.remaining, r.reset_after) != (None, None, None)][:_MAX_ITEMS]


def _policy_of(state: _Item, rules: list[_Item], *, alone: bool) -> int | None:
    for i, rule in enumerate(rules):
        if (state.name is not None and state.name == rule.name) or (
            state.name is None and rule.figures.get("q") == state.figures.get("q", math.nan)
        ):
            return i
    return 0 if alone and len(rules) == 1 else None


def _reading(state: _Item, rule: _Item | None) -> QuotaReading:
    figures = {**(rule.figures if rule else {}), **state.figures}
    window = figures.get("w")
    return QuotaReading(
        unit=rule.unit if rule else state.unit,
        limit=figures.get("q"),
        remaining=figures.get("r"),
        reset_after=_within_a_year(figures.get("t")),
        window=_within_a_year(window) or None,
        scope=state.name,
    )


def _within_a_year(seconds: float | None) -> float | None:
    return seconds if seconds is not None and seconds <= 400 * DAY else None


def _items(text: str) -> list[_Item]:
    text = _STRAY_STRING.sub(r";name=\1", text[:_MAX_TEXT])
    parsed = _parse(text, "list") or _parse(text, "dictionary")
    if parsed is None:
        parts = _BETWEEN.split(text, maxsplit=_MAX_ITEMS)[:_MAX_ITEMS]
        parsed = [item for part in parts for item in _parse(part, "list") or ()] if len(parts) > 1 else []
    if isinstance(parsed, dict):
        return [_Item(None, _figures({key: value for key, (value, _) in parsed.items()}))]
    return [_item(entry) for entry in parsed[:_MAX_ITEMS] if isinstance(entry, tuple)]


def _parse(text: str, kind: str) -> Any:
    try:
        parsed: Any = http_sf.parse(text.strip().encode(), tltype=kind)
    except (http_sf.StructuredFieldError, ValueError, UnicodeError):
        return None
    return parsed


def _item(entry: tuple[Any, dict[str, Any]]) -> _Item:
    value, parameters = entry
    figures = _figures(parameters)
    name: str | None = str(parameters.get("name", value))[:64]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Drafts 2 to 7: the item is the quota itself, as in "100;w=60".
        name = None
        figures.setdefault("q", _figures({"q": value}).get("q", math.nan))
        figures = {key: figure for key, figure in figures.items() if not math.isnan(figure)}
    unit = parameters.get("qu")
    if unit is None and name is not None and name.replace("-", "_") in _NAMED_UNITS:
        unit = name  # no quota unit is told, and the policy is called after what it counts
    return _Item(
        name, figures, _UNITS.get(str(unit), _NAMED_UNITS.get(str(unit).replace("-", "_"), "requests"))
    )


def _figures(parameters: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for key, value in parameters.items():
        if key in _KEYS and not isinstance(value, (bool, str, bytes)):
            try:
                figure = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            if 0 <= figure < MAX_COUNT:
                figures[_KEYS[key]] = figure
    return figures
