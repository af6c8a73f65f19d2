"""docs/metrics.md and the dashboard name what there is: every metric and event, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from tests.observability.scraped import PREFIX

from adaptive_rate_limiter.core.events import SENTENCES
from adaptive_rate_limiter.observability.events import LEVELS
from adaptive_rate_limiter.observability.metrics import BUCKET, BUCKETS, COUNTERS, GAUGES, WAITS
from adaptive_rate_limiter.observability.prometheus import Families

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]

LABELS = {PREFIX + metric.name: {*BUCKET, *metric.labels} for metric in (*COUNTERS, *GAUGES)}
LABELS[PREFIX + BUCKETS.name] = set()
for end in ("_bucket", "_sum", "_count"):
    LABELS[PREFIX + WAITS.name + end] = {*BUCKET, *WAITS.labels} | ({"le"} if end == "_bucket" else set())
GROW = {PREFIX + metric.name for metric in COUNTERS} | {
    name for name in LABELS if name.startswith(PREFIX + WAITS.name)
}
TARGETS = {"instance", "job"}  # what Prometheus adds to every sample


def words(cell):
    return set(re.findall(r"`(\w+)`", cell))


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from re.findall(
        r"`([^`\n]*adaptive_rate_limiter_\w+[({ ][^`\n]*|[^`\n]*\([^`\n]*adaptive_rate_limiter_\w+[^`\n]*)`",
        PAGE,
    )


EXPRESSIONS = list(dict.fromkeys(expressions()))


def test_every_metric_is_on_the_page_with_its_labels():
    rows = {words(row[0]).pop(): row for row in ROWS if PREFIX in row[0]}
    told = {name: (row[1], words(row[2])) for name, row in rows.items()}
    kinds = {"_total": "counter"}
    assert told == {
        PREFIX + metric.name: (
            "histogram" if metric is WAITS else kinds.get(metric.name[-6:], "gauge"),
            set(metric.labels),
        )
        for metric in (*COUNTERS, *GAUGES, WAITS, BUCKETS)
    }


def test_every_event_is_on_the_page_with_its_fields_and_level():
    rows = {words(row[0]).pop(): row for row in ROWS if words(row[0]) & set(SENTENCES)}
    assert {name: row[2] for name, row in rows.items()} == {
        name: {10: "DEBUG", 20: "INFO"}[LEVELS[name]] for name in SENTENCES
    }
    for name, row in rows.items():
        said = set(re.findall(r"{(\w+)}", SENTENCES[name]))
        assert said <= words(row[1])


def test_collected_families_are_those_of_the_table():
    names = {family.name for family in Families()}
    assert names == {
        PREFIX + metric.name.removesuffix("_total") for metric in (*COUNTERS, *GAUGES, WAITS, BUCKETS)
    }


def test_there_are_enough_expressions_to_check():
    used = {name for expression in EXPRESSIONS for name in re.findall(PREFIX + r"\w+", expression)}
    shown = {name.removesuffix("_bucket") for name in used}
    left_out = {PREFIX + metric.name for metric in (*COUNTERS, *GAUGES, WAITS, BUCKETS)} - shown
    assert left_out <= {PREFIX + "limit_window_seconds", PREFIX + "limit_remaining_units"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_uses_metrics_and_labels_that_exist(expression):
    names = set(re.findall(PREFIX + r"\w+", expression))
    assert names
    assert names <= set(LABELS)
    for open_, close in ("()", "{}", "[]"):
        assert expression.count(open_) == expression.count(close)
    for name, matchers in re.findall(rf"({PREFIX}\w+){{([^}}]*)}}", expression):
        assert set(re.findall(r'(\w+)=~?"', matchers)) <= LABELS[name]
    of_all = set.union(*(LABELS[name] for name in names)) | TARGETS
    for labels in re.findall(r"\b(?:by|on|ignoring|group_left) \(([^)]*)\)", expression):
        assert set(labels.split(", ")) <= of_all
    for name in re.findall(rf"\b(?:rate|increase)\(({PREFIX}\w+)", expression):
        assert name in GROW
    for name in names & GROW:
        assert re.search(rf"\b(?:rate|increase)\({name}\b", expression), "a counter by itself says little"


def test_the_dashboard_can_be_imported():
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    sources = {
        json.dumps(target["datasource"]) for panel in panels() for target in (panel, *panel["targets"])
    }
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}  # of whoever imports it
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used - {"__rate_interval"} == variables


def test_panels_do_not_cover_each_other():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_every_panel_says_what_it_shows():
    for panel in panels():
        assert panel["title"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(legends) == 1 or all(legends)
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            by = re.search(r"by \(([^)]*)\)", target["expr"])
            assert shown <= set(by[1].split(", ") if by else ())
