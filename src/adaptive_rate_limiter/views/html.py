"""A limiter as HTML for a notebook, readable on white and on black: text has the page's own colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from adaptive_rate_limiter.views.content import NOTHING, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adaptive_rate_limiter.views.content import Bar, Card

__all__ = ["html"]

# Of middle lightness: each stands out from white and from black, and they differ for the colour-blind.
PLENTY, LITTLE, NONE = "#2a9d8f", "#d9902f", "#d1495b"
LITTLE_BELOW, NONE_BELOW = 0.5, 0.1
FAINT = "opacity:.75;font-size:.92em"
CARD = (
    "border:1px solid rgba(128,128,128,.45);border-radius:6px;padding:.6em .9em;margin:.4em 0;max-width:60em"
)
CELL = (
    "text-align:left;padding:.15em 1em .15em 0;border:none;background:transparent;color:inherit;white-space:"
)
TABLE = "border:none;color:inherit;border-collapse:collapse;margin:0;font-size:1em"
ROW = "background:transparent"  # a notebook's own tables have stripes
TRACK = "display:inline-block;vertical-align:middle;width:clamp(4em,16vw,12em);height:.7em;border-radius:.35em;background:rgba(128,128,128,.3)"
FILL = "display:block;height:100%;border-radius:.35em"


def html(cards: Iterable[Card]) -> str:
    """All that is text is escaped."""
    return "".join(_card(card) for card in cards) or f"<div>{escape(NOTHING)}</div>"


def _card(card: Card) -> str:
    rows = "".join(_row(bar) for bar in card.bars)
    table = f"<table style='{TABLE}'><tbody>{rows}</tbody></table>" if rows else escape(UNKNOWN)
    waits = "".join(f"<div style='{FAINT}'>{escape(wait)}</div>" for wait in card.waits)
    return (
        f"<div style='{CARD}'><b>{escape(card.title)}</b><div>{escape(' · '.join(card.facts))}</div>"
        f"<div style='margin:.4em 0;overflow-x:auto'>{table}</div>"
        f"{waits}<div style='{FAINT}'>{escape(card.account)}</div></div>"
    )


def _row(bar: Bar) -> str:
    texts = (escape(bar.unit), _level(bar.level), escape(bar.left), escape(bar.limit))
    cells = "".join(f"<td style='{CELL}nowrap'>{text}</td>" for text in texts)
    return f"<tr style='{ROW}'>{cells}<td style='{CELL}normal;min-width:9em'>{escape(bar.origin)}</td></tr>"


def _level(level: float | None) -> str:
    if level is None:
        return ""
    colour = NONE if level < NONE_BELOW else LITTLE if level < LITTLE_BELOW else PLENTY
    fill = f"<span style='{FILL};width:{100 * level:.0f}%;background:{colour}'></span>"
    return f"<span style='{TRACK}' role='img' aria-label='{level:.0%} left'>{fill}</span>"
