"""Long, deep and malicious input: bounded work, bounded memory, no exception."""

import time

import pytest
from tests.providers.inputs import sane

from adaptive_rate_limiter.providers import parse, parse_response

LONG = {
    "digits": "1" * 100_000,
    "waits": "wait " * 20_000,
    "again": "again in 1" * 10_000,
    "limits": "limit " * 20_000,
    "commas": "1,111" * 20_000,
    "amounts": "5 minutes and " * 10_000,
    "advice": ". please contact " * 8_000,
    "addresses": "https://" * 12_000,
    "dates": "2025-03-18T10:39:5" * 6_000,
    "camels": "aB" * 50_000,
    "spaces": " " * 100_000,
    "lines": "\n" * 100_000,
    "dates and spaces": ("again 2025-03-18" + " " * 300) * 400,
    "brackets": "[" * 100_000,
    "braces": '{"error":' * 12_000,
    "quotes": '";' * 50_000,
    "keys": ",".join(f"k{i}" for i in range(20_000)),
    "credits": "used all " * 12_000 + "credits",
    "wide": "每" * 50_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_input_is_bounded_work(text):
    """A tenth of a second is fifty times what the worst of these takes."""
    headers = dict.fromkeys(
        [
            "retry-after",
            "date",
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-reset-tokens",
            "x-ratelimit-type",
        ],
        text,
    )
    headers |= {f"x-ratelimit-limit-{i}": text for i in range(2_000)}
    start = time.process_time()
    sane(parse.read(headers, text, 429, text))
    sane(parse.read({text: text}, {"error": {"message": text, "details": [text] * 5_000}}, 429, None))
    sane(parse.read(None, text.encode(), 429, None))
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    "value", ['",' * 512, '"a";q=1,' * 100 + '"', "a=1," * 250, "(a;q=1)," * 120, "1h" * 500]
)
@pytest.mark.parametrize(
    "name", ["ratelimit", "ratelimit-policy", "x-ratelimit-limit-requests", "retry-after"]
)
def test_many_headers_of_one_name_are_bounded_work(name, value):
    start = time.process_time()
    sane(parse.read([(name, value)] * 100_000, None, 429, None))
    assert time.process_time() - start < 1.5


def test_deep_and_wide_bodies_are_bounded_work():
    deep = {"message": "x"}
    for _ in range(100_000):
        deep = {"error": deep}
    start = time.process_time()
    sane(parse.read(None, deep, 429, None))
    sane(parse.read(None, {"errors": [{"message": "try again in 5s"}] * 100_000}, 429, None))
    sane(
        parse.read(
            ((f"x-ratelimit-limit-a{i}", "5") for i in iter(int, 1)),
            {str(i): i for i in range(100_000)},
            429,
            None,
        )
    )
    assert time.process_time() - start < 3.0
    while "error" in deep:  # else freeing it would recurse
        deep = deep["error"]


@pytest.mark.parametrize("key", ["retry_after", "retry_after_ms", "code", "status", "quotaValue"])
@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), 10**5000, 1e308, float("nan"), float("-inf")],
    ids=["400 digits", "-400 digits", "5000 digits", "1e308", "nan", "-inf"],
)
def test_a_number_of_any_size_costs_the_other_figures_nothing(key, number):
    body = {"error": {key: number, "message": "try again in 5s"}}
    headers = {"x-ratelimit-limit-requests": "9", "x-ratelimit-remaining-tokens": number}
    info = parse.read(headers, body, 429, None)
    sane(info)
    assert (info.retry_after, info.rpm_limit) == (5, 9)


def test_a_body_that_points_at_itself_is_harmless():
    body = {"message": "try again in 5s"}
    body["error"] = body
    assert parse.read(None, body, 429, None).retry_after == 5


class Angry:
    """An object that raises at every touch."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __iter__(self):
        raise RuntimeError

    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize("status", [200, 429])
def test_the_safety_net_keeps_what_the_status_says(status, monkeypatch):
    monkeypatch.undo()  # the net that the other tests do without
    info = parse_response(Angry(), Angry(), status, url=Angry())
    assert info.is_rate_limited is (status == 429)
    assert (info.refusal is not None) is (status == 429)
    assert info.quotas == ()
