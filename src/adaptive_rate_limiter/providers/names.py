"""What a header's name means, found once for each spelling and then remembered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from adaptive_rate_limiter.providers.dialects import COPY, FAMILIES, NAMES, PLAIN, WORDS, Family
from adaptive_rate_limiter.providers.times import MINUTE, SECONDS_PER

__all__ = ["LONGEST_NAME", "Meaning", "meaning_of"]

LONGEST_NAME = 128
_LONGEST_PHRASE = 4  # words, in WORDS
_FAMILIES = tuple((re.compile(family.start), family) for family in FAMILIES)
_SPAN = re.compile(r"(\d{1,6})([a-z]{1,2})")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one header is. `role` is "quota" (then `field` and the rest apply) or a role of `NAMES`."""

    role: str
    name: str
    scale: float = 0.0
    field: str = ""
    unit: str = ""
    window: float | None = None
    fixed: bool = False  # the window is told, not assumed
    scope: str | None = None
    key: tuple[str, str, float | None, str | None] | None = None  # the same for all headers of one limit


def meaning_of(raw: bytes) -> Meaning | None:
    """The meaning of a header's name in any letter case, or None when it says nothing about limits."""
    return _meaning(raw) if len(raw) <= LONGEST_NAME else None


@lru_cache(maxsize=2048)  # bounded, for a hostile peer may invent names
def _meaning(raw: bytes) -> Meaning | None:
    name = raw.decode("utf-8", "replace").strip().lower().replace("_", "-")
    if name in NAMES:
        role, scale = NAMES[name]
        return Meaning(role, name, scale)
    if name.endswith("-retry-after"):
        return Meaning("retry", name, 1.0)
    copied = COPY.match(name)
    at = copied.end() if copied else 0
    for start, family in _FAMILIES:
        found = start.match(name, at)
        if found:
            parts = _read_words(name[found.end() :].split("-"), family)
            if parts is None:
                return None
            if copied:
                parts["scope"] = _scope(parts.get("scope"), "upstream") or ""
            return _quota(name, name[: found.end()], family, parts)
    return None


def _quota(name: str, start: str, family: Family, parts: dict[str, str | float]) -> Meaning:
    window = parts.get("window", family.window)
    fixed = window is not None
    if window is None and parts.get("unit") in PLAIN:
        window = MINUTE  # the habit that OpenAI began; arithmetic or the host may know better
    family_name = start.replace("rate-limit", "ratelimit")  # Azure once mixed the two spellings
    unit = str(parts.get("unit") or family.unit or "requests")
    seconds = None if window is None else float(window)
    scope = _scope(parts.get("scope"), family.scope)
    return Meaning(
        role="quota",
        name=name,
        field=str(parts["field"]),
        unit=unit,
        window=seconds,
        fixed=fixed,
        scope=scope,
        key=(family_name, unit, seconds, scope),
    )


def _scope(told: str | float | None, default: str | None) -> str | None:
    return "_".join(filter(None, (default, str(told) if told else None))) or None


def _read_words(words: list[str], family: Family) -> dict[str, str | float] | None:
    """The parts that the words tell, or None when they tell no figure of a limit."""
    parts: dict[str, str | float] = {}
    unknown: list[str] = []
    at = 0
    while at < len(words):
        used, part, value = _next_part(words, at)
        at += used
        if part == "nothing" or (part == "field" and "field" in parts):
            return None
        if part == "unknown":
            unknown.append(str(value))
        elif part == "rate":
            parts["unit"], _, span = str(value).partition("/")
            parts["window"] = float(span)
        elif part != "noise":
            parts.setdefault(part, value)
    return _settle(parts, unknown, family)


def _settle(
    parts: dict[str, str | float], unknown: list[str], family: Family
) -> dict[str, str | float] | None:
    if "field" not in parts:
        if "unit" not in parts or unknown:
            return None
        parts["field"] = "limit"  # Anthropic's OpenAI form: x-ratelimit-requests is the limit
    if unknown and ("unit" in parts or family.unit):
        parts.setdefault("scope", "_".join(unknown))  # tokens-usage-based: another bucket of tokens
    elif unknown:
        parts["unit"] = "_".join(unknown)
    return parts


def _next_part(words: list[str], at: int) -> tuple[int, str, str | float]:
    for size in range(min(_LONGEST_PHRASE, len(words) - at), 0, -1):
        phrase = "-".join(words[at : at + size])
        if phrase in WORDS:
            part, value = WORDS[phrase]
            return size, part, phrase if part == "scope" and not value else value
    return _span(words, at)


def _span(words: list[str], at: int) -> tuple[int, str, str | float]:
    """``10-second``, ``5h``, ``60s`` as windows; a word that nobody knows as itself."""
    word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
    if word.isdecimal() and len(word) <= 6 and following in SECONDS_PER:  # noqa: PLR2004 - digits of a day's seconds
        return 2, "window", int(word) * SECONDS_PER[following]
    found = _SPAN.fullmatch(word)
    if found and found[2] in SECONDS_PER:
        return 1, "window", int(found[1]) * SECONDS_PER[found[2]]
    return 1, "unknown", word
