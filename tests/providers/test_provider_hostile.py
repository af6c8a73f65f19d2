"""Whatever comes in: no exception, no NaN, no infinity, nothing negative or absurd, bounded work."""

import json
import math
import string
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.providers import parse, parse_response
from adaptive_rate_limiter.types import RateLimitInfo, Refusal

YEAR = 400 * 86_400

NAMES = st.sampled_from([
    "date", "retry-after", "retry-after-ms", "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-reset",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-unified-5h-reset", "anthropic-ratelimit-unified-5h-utilization",
    "x-codex-primary-window-minutes", "x-codex-primary-used-percent", "x-codex-primary-reset-at", "x-ratelimit-limit-req-10-second",
    "x-ratelimit-limit-moons-999999d", "x-ratelimit", "x-ratelimit-type", "x-amzn-errortype", "maximum-concurrent-requests",
    "current-concurrent-requests", "llm_provider-x-ratelimit-limit-tokens", "x-ratelimit-renewalperiod-requests",
])  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([
        "0", "-1", "7", "500", "1000000000", "9223372036854775807", "1e400", "nan", "-inf", "6ms", "1h8m25.745s", "5 minutes",
        "2025-03-18T10:39:55Z", "9999-12-31T23:59:59Z", "Tue, 18 Mar 2025 10:39:14 GMT", "1742294400", "1742294400000", "0, 5",
        '"api";r=0;t=55', '"fixed window";"api";q=500;w=300', "limit=100, remaining=50, reset=30", "100;w=60", "false", "",
    ]),
    st.text(max_size=40),
    st.text(string.digits + ".:,;-TZhms =\"'", max_size=60),
    st.binary(max_size=40),
    st.integers(),
    st.floats(),
    st.none(),
    st.lists(st.text(max_size=8), max_size=4),
)  # fmt: skip
WORDS = st.sampled_from([
    "rate limit", "Limit 30,000", "Requested 9", "try again in", "1h2m3.4s", "per day", "TPM", "tokens per minute", "wait", "retry after",
    "5 hour", "reset at 2025-03-18 20:38:28", "overloaded", "concurrent", "insufficient_quota", "limit: 0", "秒后", "每天", "999999999d",
    "\n", ". ", "{", "[", '"', "9" * 30,
])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map(" ".join))
KEYS = st.sampled_from([
    "error", "message", "code", "type", "status", "details", "metadata", "headers", "retry_after", "retryDelay", "resets_at", "quotaId",
    "quotaValue", "raw", "detail",
])  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=5),
        st.dictionaries(NAMES, VALUES, max_size=3),
    ),
    max_leaves=20,
)
BODIES = st.one_of(
    TREES,
    TREES.map(lambda tree: json.dumps(tree, ensure_ascii=False, default=str)),
    TREES.map(lambda tree: json.dumps(tree, default=str)[:-3]),
    TREES.map(lambda tree: b"data: " + json.dumps(tree, default=str).encode()),
    st.binary(max_size=60),
)
HEADERS = st.one_of(
    st.none(),
    st.dictionaries(NAMES, VALUES, max_size=12),
    st.lists(
        st.tuples(st.one_of(NAMES, st.text(max_size=20), st.binary(max_size=9), st.none()), VALUES),
        max_size=12,
    ),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20)),
    st.text(max_size=9),
    st.integers(),
)
STATUSES = st.sampled_from([200, 400, 401, 402, 403, 413, 429, 498, 500, 503, 529, None, "429", 10**30])
URLS = st.sampled_from(
    [None, "https://api.groq.com/v1", "api.together.xyz", "https://open.bigmodel.cn/x", "://", object()]
)


def sane(info):
    assert isinstance(info, RateLimitInfo)
    waits = [info.retry_after]
    if info.refusal is not None:
        assert isinstance(info.refusal, Refusal)
        waits.append(info.refusal.retry_after)
    for quota in info.quotas:
        assert quota.unit
        assert isinstance(quota.unit, str)
        waits += [quota.reset_after, quota.window]
        assert all(
            count is None or (math.isfinite(count) and 0 <= count < 1e15)
            for count in (quota.limit, quota.remaining)
        )
    assert all(wait is None or (math.isfinite(wait) and 0 <= wait <= YEAR) for wait in waits)
    assert all(reset is None or math.isfinite(reset) for reset in (info.rpm_reset, info.tpm_reset))
    assert len(info.quotas) <= 128


@settings(max_examples=1500, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(headers=HEADERS, body=BODIES, status=STATUSES, url=URLS)
def test_anything_at_all_is_harmless(headers, body, status, url):
    sane(parse.read(headers, body, status, url))


REAL = [
    (
        {
            "date": "Tue, 18 Mar 2025 10:39:14 GMT",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-reset-requests": "1h8m25.745s",
        },
        {
            "error": {
                "message": "on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
                "type": "requests",
            }
        },
    ),
    (
        {"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'},
        {
            "error": {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"retryDelay": "48s"}, {"violations": [{"quotaId": "PerDay"}]}],
            }
        },
    ),
    (
        {
            "anthropic-ratelimit-tokens-reset": "2025-03-18T10:39:35Z",
            "retry-after": "7",
            "x-ratelimit-limit-req-10-second": "60",
        },
        {
            "error": {
                "code": "1308",
                "message": "Your limit will reset at 2026-08-25 07:41:44, 5 小时的使用上限",
            }
        },
    ),
]


@settings(max_examples=600, deadline=5000)
@given(
    real=st.sampled_from(REAL),
    at=st.integers(0, 2000),
    junk=st.one_of(
        st.text(max_size=4), st.sampled_from(['"', "}", "9" * 30, "\x00", ";", "e999", "-", ",", "\\u0000"])
    ),
    cut=st.integers(0, 12),
)
def test_a_real_reply_with_a_wound_is_harmless(real, at, junk, cut):
    headers, body = real
    text = json.dumps([list(headers.items()), body], ensure_ascii=False)
    at %= len(text)
    wounded = text[:at] + junk + text[at + cut :]
    try:
        pairs, inner = json.loads(wounded)
    except ValueError:
        pairs, inner = list(headers.items()), wounded
    if isinstance(pairs, list):
        sane(parse.read(pairs, inner, 429, None))


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
    start = time.perf_counter()
    sane(parse.read(headers, text, 429, text))
    sane(parse.read({text: text}, {"error": {"message": text, "details": [text] * 5_000}}, 429, None))
    sane(parse.read(None, text.encode(), 429, None))
    assert time.perf_counter() - start < 1.0


def test_deep_and_wide_bodies_are_bounded_work():
    deep = {"message": "x"}
    for _ in range(100_000):
        deep = {"error": deep}
    start = time.perf_counter()
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
    assert time.perf_counter() - start < 1.0
    while "error" in deep:  # else freeing it would recurse
        deep = deep["error"]


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
