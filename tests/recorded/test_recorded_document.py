"""docs/providers.md says of each provider what its recordings and the tables say, and of each what they do not."""

import re
from pathlib import Path

import pytest
from tests.recorded import expected
from tests.recorded.expected import DAY, LIMITS, MONTH, SILENT

from adaptive_rate_limiter.core.charging import HABITS
from adaptive_rate_limiter.providers.dialects import DIALECTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
RECORDED = sorted(path.name for path in Path(__file__).parent.iterdir() if list(path.glob("*.yaml")))
WINDOWS = {1: "a second", 10: "in 10 s", 60: "a minute", 300: "in 5 min", DAY: "a day", MONTH: "a month"}
KINDS = {
    "PACE": "pace", "CONCURRENCY": "calls at once", "OVERLOAD": "overload", "SPENT": "spent quota",
    "TOO_LARGE": "too large a call", "NOT_ENTITLED": "not in the plan",
}  # fmt: skip
TIMED = {"PACE", "SPENT"}


def of(provider, names):
    return [name for name in names if name.startswith(f"{provider}/")]


def limits(provider):
    """The units of each window, as headers tell them."""
    units = {}
    for name in of(provider, LIMITS):
        for told in LIMITS[name]:
            units.setdefault(told.window, dict.fromkeys([]))[told.unit.replace("_", " ")] = None
    told = "; ".join(f"{', '.join(units[window])} {WINDOWS[window]}" for window in sorted(units))
    return told or ("nothing" if of(provider, SILENT) else "")


def refusals(provider):
    """What its refusals say, and of which one of them tells the time at least."""
    found = []
    for table, words in KINDS.items():
        names = of(provider, getattr(expected, table))
        timed = table in TIMED and any(getattr(expected, table)[name] for name in names)
        found += [words + (" (with the time)" if timed else "")] if names else []
    return ", ".join(found)


def recorded(provider):
    return f"| `{provider}` | {limits(provider)} | {refusals(provider)} |"


def only_the_host_tells(dialect):
    by = ", ".join(f"`{name}`" for name in (*dialect.hosts, *dialect.markers))
    facts = [
        f"{'everything' if unit == '*' else unit.replace('_', ' ')} {WINDOWS[window]}"
        for unit, window in dialect.windows.items()
    ]
    facts += [f"limits of its {dialect.scope}"] if dialect.scope else []
    facts += [f"local time is UTC+{dialect.zone / 3600:.0f}"] if dialect.zone else []
    return f"| {dialect.name} | {by} | {', '.join(facts)} |"


def costs(part, charging):
    habits = {
        "max_tokens count in full": charging.keeps_max_tokens,
        "refused calls count": charging.counts_refusals,
        "what the prompt cache held is free": charging.cache_reads_free,
    }
    return f"| `{part}` | {', '.join(words for words, true in habits.items() if true) or 'what was used'} |"


def table(heading):
    """Its rows, without the head."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]


@pytest.mark.parametrize("provider", RECORDED)
def test_a_provider_is_described_as_it_was_recorded(provider):
    (row,) = [row for row in table("What each tells") if row.startswith(f"| `{provider}` |")]
    assert row.startswith(recorded(provider))


def test_no_other_is_described():
    assert [row.split("`")[1] for row in table("What each tells")] == RECORDED


def test_what_only_the_host_tells_is_said():
    assert table("What only the host tells") == [only_the_host_tells(dialect) for dialect in DIALECTS]


def test_what_calls_cost_is_said():
    assert table("What a call costs") == [costs(*habit) for habit in HABITS]
