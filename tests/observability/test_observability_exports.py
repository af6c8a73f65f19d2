"""What is exported: which limiters and buckets, by what names, to which registry."""

import subprocess
import sys

import httpx
import pytest
from prometheus_client import REGISTRY, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.garbage import collect
from tests.observability.scraped import PREFIX, Scrape

from adaptive_rate_limiter import (
    ConfigurationError,
    Limiter,
    MemoryBackend,
    observability,
)  # fmt: skip
from adaptive_rate_limiter.observability import PrometheusCollector, export_if_installed, export_metrics
from adaptive_rate_limiter.observability.metrics import COUNTERS, GAUGES, MOST_WORDS, UNITS, WAITS

# Which buckets, and by what name


def test_where_a_bucket_belongs(clock, registry, scrape):
    limiter = Limiter(namespace="team/a", quotas={"requests": 60}, clock=clock)
    export_metrics(limiter, registry=registry)
    reservation = limiter.acquire("gpt-4o")
    reservation.begin_send(httpx.URL("https://api.openai.com/v1/chat/completions"), b"Bearer sk-secret")
    elsewhere = limiter.acquire("gpt-4o")
    assert elsewhere.begin_send(httpx.URL("https://proxy.example/v1/chat/completions"), b"Bearer sk-secret")
    seen = scrape()
    ((_, _, _, credential), *_) = [
        key
        for key in seen.by("bucket_info", "bucket", "namespace", "host", "credential")
        if key[2] == "api.openai.com"
    ]
    assert len(credential) == 8
    assert seen.by("bucket_info", "bucket", "model", "namespace", "host", "credential") == {
        ("team%2Fa/gpt-4o", "gpt-4o", "team/a", "api.openai.com", credential): 1,
        (f"team%2Fa/gpt-4o@proxy.example#{credential}", "gpt-4o", "team/a", "proxy.example", credential): 1,
    }
    assert seen.one("calls_ended_total", outcome="moved") == 1
    assert seen.by("calls_admitted_total", "bucket")["team%2Fa/gpt-4o"] == 2
    reservation.settle()
    assert "secret" not in generate_latest(registry).decode()


def test_limiters_that_share_a_backend_are_counted_once_and_others_are_summed(clock, registry, scrape):
    backend = MemoryBackend()
    limiters = [
        Limiter(backend, clock=clock),
        Limiter(backend, clock=clock),
        Limiter(clock=clock, quotas={"requests": 9}),
    ]
    export_metrics(*limiters, registry=registry)
    for limiter in limiters:
        limiter.acquire("m").settle()
    seen = scrape()
    assert seen.by("calls_admitted_total", "bucket") == {"default/m": 3}
    assert seen.one("limit_units") == 9
    assert seen.one("buckets") == 2


def test_beyond_the_most_buckets_the_rest_is_one(clock, registry, scrape):
    collector = PrometheusCollector(most_buckets=3)
    registry.register(collector)
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    collector.add(limiter)
    running = [limiter.acquire(f"m{number}") for number in range(10)]
    seen = scrape()
    assert seen.by("calls_in_flight", "bucket") == {
        "default/m0": 1,
        "default/m1": 1,
        "default/m2": 1,
        "other": 7,
    }
    assert seen.by("calls_admitted_total", "model") == {"m0": 1, "m1": 1, "m2": 1, "other": 7}
    assert (
        set(seen.by("limit_units", "bucket"))
        == set(seen.by("bucket_info", "bucket"))
        == {f"default/m{n}" for n in range(3)}
    )
    assert seen.one("buckets") == 10
    for reservation in running:
        reservation.settle()
    assert scrape().by("calls_ended_total", "bucket", "outcome")["other", "settled"] == 7


def test_one_that_is_idle_gives_its_name_to_one_that_is_not(clock, registry, scrape):
    collector = PrometheusCollector(most_buckets=2)
    registry.register(collector)
    limiter = Limiter(clock=clock)
    collector.add(limiter)
    admitted = {}
    for hour, models in enumerate(("ab", "abc", "ac", "ac", "abc", "bd", "d", "bd")):
        for model in models:
            limiter.acquire(model).settle()
        clock.advance(2000)
        before, admitted[hour] = admitted.get(hour - 1, {}), scrape().by("calls_admitted_total", "model")
        assert len(admitted[hour]) <= 3
        for model in before.keys() & admitted[hour].keys():
            assert admitted[hour][model] >= before[model]
    assert admitted[1] == {"a": 2, "b": 2, "other": 1}
    assert admitted[2] == {"a": 3, "c": 1, "other": 1}  # b was idle; what c did before stays with the others
    assert admitted[4] == {"a": 5, "c": 3, "other": 2}


def test_labels_are_few_and_short_whatever_a_provider_or_a_caller_invents(clock, registry, scrape):
    limiter = Limiter(clock=clock)
    export_metrics(limiter, registry=registry)
    for number in range(300):
        reservation = limiter.acquire(f"m{number // 30}")  # a bucket learns no more than 32
        unit = f"unit{number}" if number else "x" * 200
        reservation.observe(200, {f"x-ratelimit-limit-{unit}": "10", f"x-ratelimit-remaining-{unit}": "9"})
        reservation.settle()
    limiter.acquire("m" * 10_000).settle()
    limiter.acquire("m" * 10_000 + "!").settle()
    limiter.acquire("\n\"'{}\\").settle()
    seen = scrape()
    assert len(seen.label_values("unit")) <= len(UNITS) + MOST_WORDS + 1
    assert "other" in seen.label_values("unit")
    assert len(seen.by("calls_admitted_total", "bucket")) == 13
    assert max(len(value) for _, labels in seen.samples for _, value in labels) < 150
    assert len(list(parse_text(generate_latest(registry).decode()))) > 10


def test_a_limiter_that_is_no_more_leaves_its_counters(clock, registry, scrape):
    limiter = Limiter(clock=clock)
    export_metrics(limiter, registry=registry)
    limiter.acquire("m").settle()
    assert scrape().one("calls_admitted_total") == 1
    del limiter
    collect()
    seen = scrape()
    assert seen.one("calls_admitted_total") == 1
    assert seen.by("calls_waiting", "bucket") == {}
    again = Limiter(clock=clock)
    export_metrics(again, registry=registry)
    again.acquire("m").settle()
    assert scrape().one("calls_admitted_total") == 2


def test_one_that_cannot_be_read_does_not_hide_the_others(clock, registry, scrape, caplog):
    class Broken:
        broken, inner = True, Limiter(namespace="broken", clock=clock)

        def snapshot(self):
            if self.broken:
                raise ConnectionError("backend")
            return self.inner.snapshot()

    broken = Broken()
    fine = Limiter(clock=clock)
    export_metrics(broken, fine, registry=registry)
    fine.acquire("m").settle()
    broken.inner.acquire("m").settle()
    counts = []
    for is_broken in (False, True, False):
        broken.broken = is_broken
        counts.append(scrape().by("calls_admitted_total", "bucket"))
    assert counts == [{"default/m": 1, "broken/m": 1}] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "a limiter could not be read for its metrics"
    ]


# Registries


def test_a_second_export_to_a_registry_adds_to_the_first(clock, registry, scrape):
    one, two = Limiter(namespace="one", clock=clock), Limiter(namespace="two", clock=clock)
    collector = export_metrics(one, registry=registry)
    assert export_metrics(two, registry=registry) is collector
    assert export_metrics(one, registry=registry) is collector
    for limiter in (one, two):
        limiter.acquire("m").settle()
    assert scrape().by("calls_admitted_total", "bucket") == {"one/m": 1, "two/m": 1}
    registry.unregister(collector)
    assert scrape().samples == {}
    export_metrics(registry=registry)
    assert scrape().one("calls_admitted_total") == 2


def test_what_has_a_limiter_is_taken_for_it(clock, registry, scrape):
    class Scheduler:
        limiter = Limiter(clock=clock)

    export_metrics(Scheduler(), registry=registry)
    Scheduler.limiter.acquire("m").settle()
    assert scrape().one("calls_admitted_total") == 1
    with pytest.raises(ConfigurationError, match="limiter must be a Limiter"):
        export_metrics(3, registry=registry)
    with pytest.raises(ConfigurationError, match="most_buckets must be"):
        PrometheusCollector(most_buckets=-1)


def test_what_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'Prometheus'"):
        observability.Prometheus  # noqa: B018 - asked for


def test_metrics_of_the_same_name_are_somebody_elses(registry):
    Gauge(PREFIX + "calls_waiting", "Mine.", registry=registry)
    with pytest.raises(ValueError, match="calls_waiting"):
        export_metrics(registry=registry)


def test_the_registry_of_the_process_is_the_default(clock):
    limiter = Limiter(namespace="by default", clock=clock)
    assert export_if_installed(limiter) is True
    try:
        limiter.acquire("m").settle()
        assert Scrape(REGISTRY).one("calls_admitted_total", bucket="by default/m") == 1
    finally:
        REGISTRY.unregister(export_metrics())


def test_who_did_not_ask_for_metrics_is_not_troubled_by_them(clock, caplog):
    mine = Gauge(PREFIX + "calls_waiting", "Mine.")
    try:
        assert export_if_installed(Limiter(clock=clock)) is False
    finally:
        REGISTRY.unregister(mine)
    assert "metrics are not exported: Duplicated timeseries" in caplog.text


def test_both_formats_can_be_read(clock, registry):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    export_metrics(limiter, registry=registry)
    limiter.acquire("m").settle()
    names = {PREFIX + metric.name.removesuffix("_total") for metric in (*COUNTERS, *GAUGES, WAITS)} | {
        PREFIX + "buckets"
    }
    assert {family.name for family in parse_text(generate_latest(registry).decode())} == names
    assert {family.name for family in parse_openmetrics(generate_openmetrics(registry).decode())} == names


def test_names_follow_the_conventions():
    for metric in (*COUNTERS, *GAUGES, WAITS):
        assert metric.name.endswith("_total") == (metric in COUNTERS)
        assert metric.help.endswith(".")
        assert not set(metric.labels) & {"bucket", "model", "le", "job", "instance"}
    units = {metric.name.removesuffix("_total").rpartition("_")[2] for metric in (*GAUGES, WAITS)}
    assert not units & {"ms", "milliseconds", "minutes", "percent", "s"}


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.observability import export_if_installed, export_metrics, subscribe
limiter = Limiter()
limiter.acquire("m").settle()
print(export_if_installed(limiter))
try:
    export_metrics(limiter)
except ImportError as error:
    print(error)
"""
UNASKED = "import sys, adaptive_rate_limiter; print('prometheus_client' in sys.modules)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (WITHOUT, "False\nmetrics need prometheus-client: pip install 'adaptive-rate-limiter[metrics]'\n"),
        (UNASKED, "False\n"),
    ],
)
def test_prometheus_client_is_needed_only_by_those_who_export(code, said):
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == said
