"""A reply's headers: every kind of collection as pairs, and which of them say what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from adaptive_rate_limiter.providers.dialects import DIALECTS, Dialect
from adaptive_rate_limiter.providers.names import LONGEST_NAME, Meaning, meaning_of

__all__ = ["Layout", "Pairs", "layout_of", "pairs_of", "text_of"]

Pairs = list[tuple[bytes, bytes]]

_MAX_HEADERS = 256
_MAX_VALUE = 1024
_MAX_VALUES = 8  # of one header, in a list
_MAX_LIMITS = 64
# What is remembered, at most: 256 x 64 names of 128 bytes.
_MOST_LAYOUTS = 256
_MOST_NAMES = 64

_NAME = itemgetter(0)
_COUNTS = ("limit", "remaining", "used")
ELSEWHERE = ("quota", "date", "processing")  # roles that a layout tells apart from the others


class Places(NamedTuple):
    """Where the headers of one limit stand: (field, index into the pairs), the first told last, since it counts."""

    meaning: Meaning
    counts: tuple[tuple[str, int], ...]  # limit, remaining, used
    rest: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which of a reply's headers say what."""

    limits: tuple[Places, ...]
    other: tuple[tuple[Meaning, int], ...]
    date: int | None
    processing: tuple[Meaning, int] | None
    marked: Dialect | None  # that a header gives away
    distinct: bool  # no two limits on one unit


def pairs_of(headers: Any) -> Pairs:
    """The pairs of a mapping, of pairs, or of None; what is no pair, or has no text in it, is left out."""
    if headers is None:
        return []
    raw = getattr(headers, "raw", None)  # httpx: pairs of bytes, without the cost of decoding every one
    if isinstance(raw, list):
        return raw if len(raw) <= _MAX_HEADERS else raw[:_MAX_HEADERS]
    items = getattr(headers, "items", None)
    pairs = items() if callable(items) else headers
    return list(_sound(pairs)) if isinstance(pairs, Iterable) else []


def _sound(pairs: Iterable[Any]) -> Iterator[tuple[bytes, bytes]]:
    for pair in islice(pairs, _MAX_HEADERS):
        try:
            name, value = map(_bytes, pair)
        except (TypeError, ValueError):
            continue
        if name is not None and value is not None:
            yield name, value


def _bytes(value: Any) -> bytes | None:
    """A header's name or value as it is sent; several values are joined as HTTP does."""
    if isinstance(value, (list, tuple)):
        sent = [piece for piece in map(_scalar, value[:_MAX_VALUES]) if piece is not None]
        return b", ".join(sent) if sent else None
    return _scalar(value)


def _scalar(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value[:_MAX_VALUE].encode("utf-8", "replace")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value).encode() if abs(value) < 1e300 else None  # noqa: PLR2004 - huge ints cannot be printed
    return None


def text_of(value: bytes) -> str:
    return value[:_MAX_VALUE].decode("utf-8", "replace")


def layout_of(pairs: Pairs) -> Layout:
    return _LAYOUTS[tuple(map(_NAME, pairs))]


class _Layouts(dict[tuple[bytes, ...], Layout]):
    """Layouts by the names of all headers, remembered: a provider sends the same ones every time."""

    def __missing__(self, names: tuple[bytes, ...]) -> Layout:
        layout = _laid_out(names)
        if len(names) <= _MOST_NAMES and all(len(name) <= LONGEST_NAME for name in names):
            if len(self) >= _MOST_LAYOUTS:
                self.clear()  # those in use come back with the next reply
            self[names] = layout
        return layout


_LAYOUTS = _Layouts()


def _laid_out(names: tuple[bytes, ...]) -> Layout:
    meant = [(meaning, at) for at, name in enumerate(names) if (meaning := meaning_of(name)) is not None]
    limits: dict[tuple[str, str, float | None, str | None], list[tuple[Meaning, int]]] = {}
    for meaning, at in meant:
        if meaning.key is not None:
            limits.setdefault(meaning.key, []).append((meaning, at))
    dates = [at for meaning, at in meant if meaning.role == "date"]
    processing = [(meaning, at) for meaning, at in meant if meaning.role == "processing"]
    marks = {meaning.name for meaning, _ in meant}
    return Layout(
        limits=tuple(map(_places, islice(limits.values(), _MAX_LIMITS))),
        other=tuple((meaning, at) for meaning, at in meant if meaning.role not in ELSEWHERE),
        date=dates[0] if dates else None,
        processing=processing[0] if processing else None,
        marked=next((d for d in DIALECTS if not marks.isdisjoint(d.markers)), None),
        distinct=len({unit for _, unit, *_ in limits}) == len(limits),
    )


def _places(told: list[tuple[Meaning, int]]) -> Places:
    fields = [(meaning.field, at) for meaning, at in reversed(told)]
    return Places(
        told[0][0],
        tuple((field, at) for field, at in fields if field in _COUNTS),
        tuple((field, at) for field, at in fields if field not in _COUNTS),
    )
