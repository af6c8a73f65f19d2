"""What the reader's properties are checked on: parts of real replies, mixed, damaged, and what is no reply at all."""

import json
import math
import string

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.providers.dialects import WORDS
from adaptive_rate_limiter.types import RateLimitInfo, Refusal

YEAR = 400 * 86_400
PER_PROFILE = settings.get_profile(settings.get_current_profile_name()).max_examples


def examples(number):
    """So many examples in an ordinary run; HYPOTHESIS_PROFILE=fuzz takes a multiple."""
    return settings(
        max_examples=number * PER_PROFILE // 200,
        deadline=5000,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )


# Header names: real ones, and all that the words can make

NAMES = st.sampled_from([
    "date", "retry-after", "retry-after-ms", "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-reset",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-unified-5h-reset", "anthropic-ratelimit-unified-5h-utilization",
    "x-codex-primary-window-minutes", "x-codex-primary-used-percent", "x-codex-primary-reset-at", "x-ratelimit-limit-req-10-second",
    "x-ratelimit-limit-moons-999999d", "x-ratelimit", "x-ratelimit-type", "x-amzn-errortype", "maximum-concurrent-requests",
    "current-concurrent-requests", "llm_provider-x-ratelimit-limit-tokens", "x-ratelimit-renewalperiod-requests",
])  # fmt: skip
STARTS = [
    "x-ratelimit-", "ratelimit-", "x-rate-limit-", "anthropic-ratelimit-", "anthropic-ratelimit-unified-", "x-codex-primary-",
    "x-codex-secondary-", "X-Trial-Endpoint-Call-", "x-endpoint-monthly-call-", "x-ratelimitbysize-", "x-tokenlimit-", "acme-ratelimit-",
    "llm_provider-x-ratelimit-", "x-upstream-ratelimit-", "a-b-c-d-ratelimit-",
]  # fmt: skip
SPANS = ["10-second", "5h", "60s", "0d", "999999month", "1-", "-", "", "\u00e9", "\u0663d"]
NAMES_OF_WORDS = st.builds(
    lambda start, words: start + "-".join(words),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from([*WORDS, *SPANS]), min_size=1, max_size=4),
)

# Values: counts, times, and neither

COUNTS = st.one_of(
    st.integers(0, 10**6).map(str),
    st.integers().map(str),
    st.sampled_from([
        "0", "-1", "1000000000", "2147483647", "4294967295", "9223372036854775807", "1e14", "1e400", "1e-320", "nan", "-inf", "Infinity",
        "1,000", "1,000,000.5", "5, 5", "0, 5", "100, 100;w=60", "100;w=60", "1_000", "+5", "-0", "0x10", "1.", ".5", ".", "\u0661\u0662",
        "\u00b2", "unlimited", "false", "",
    ]),
)  # fmt: skip
TIMES = st.one_of(
    st.floats(0, 1e5).map(lambda seconds: f"{seconds:.3f}s"),
    st.integers(0, 10**5).map(lambda milliseconds: f"{milliseconds}ms"),
    st.integers(0, 10**20).map(str),
    st.floats().map(str),
    st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.datetimes().map(str),
    st.text("0123456789.smhdnu\u00b5 ,:-TZ+", max_size=24),
    st.sampled_from([
        "6m0s", "1h8m25.745s", "5 minutes", "1 minute and 30 seconds", "5 \u5206\u949f", "3\u00b5s", "s", ".s", "..s", "1e3s", "1" * 400 + "s",
        "9" * 80 + "h", "999999999999d", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+99:99",
        "2025-03-18T10:39:55+02:00Z", "2025-W12Z", "Z", "Tue, 18 Mar 2025 10:39:14 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -9999", "Tuesday, 18-Mar-25 10:39:14 GMT", "Tue Mar 18 10:39:14 2025", "soon",
    ]),
)  # fmt: skip
# Beyond a float, and as many digits as JSON may have.
LARGE = st.builds(lambda sign, digits: sign * 10**digits, st.sampled_from([-1, 1]), st.integers(0, 4000))
VALUES = st.one_of(
    COUNTS,
    TIMES,
    st.sampled_from(
        ['"api";r=0;t=55', '"fixed window";"api";q=500;w=300', "limit=100, remaining=50, reset=30"]
    ),
    st.text(max_size=40),
    st.text(string.digits + ".:,;-TZhms =\"'", max_size=60),
    st.binary(max_size=40),
    st.integers(),
    LARGE,
    st.floats(),
    st.none(),
    st.lists(st.one_of(COUNTS, st.text(max_size=8)), max_size=4),
)
# RateLimit and RateLimit-Policy: pieces of their grammar
FIELDS = st.lists(
    st.sampled_from([
        '"api"', "default", ";", ",", "=", "q=100", "r=5", "t=60", "w=60", "w=0", "q=-1", "r=1e9", "t=999999999999999", 'qu="tokens"', "pk=:YQ==:",
        "limit=100", "remaining=7", "reset=3", "?1", "@1742294400", '"', "(", ")", ":", "\\", "100", "9" * 16, "1.5", " ", 'name="x"', "\u00e9",
    ]),
    max_size=16,
).map("".join)  # fmt: skip

# Bodies

WORDS_OF_REFUSALS = st.sampled_from([
    "rate limit", "Limit 30,000", "Requested 9", "try again in", "1h2m3.4s", "per day", "TPM", "tokens per minute", "wait", "retry after",
    "5 hour", "reset at 2025-03-18 20:38:28", "overloaded", "concurrent", "insufficient_quota", "limit: 0", "\u79d2\u540e", "\u6bcf\u5929", "999999999d",
    "\n", ". ", "{", "[", '"', "9" * 30, "please contact", "https://a.b/c", "camelCase", "RESOURCE_EXHAUSTED", "quota", "credits", "daily",
    "every 5 hours", "(actual/limit): 65605/16000", "in 0s", "after 1.5 minutes", "until 9999-12-31T23:59:59Z", "%", "\u00b5s",
])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS_OF_REFUSALS, max_size=12).map(" ".join))
KEYS = st.sampled_from([
    "error", "message", "code", "type", "status", "details", "metadata", "headers", "retry_after", "retryDelay", "resets_at", "quotaId",
    "quotaValue", "raw", "detail", "retry_after_ms", "reset_in_seconds", "seconds", "errors", "status_code",
])  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), LARGE, st.floats(), TEXTS, TIMES)
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

# Whole replies

ANY_NAMES = st.one_of(NAMES, NAMES_OF_WORDS, st.text(max_size=20), st.binary(max_size=9), st.none())
HEADERS = st.one_of(
    st.none(),
    st.dictionaries(NAMES, VALUES, max_size=12),
    st.lists(st.tuples(ANY_NAMES, VALUES), max_size=12),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20)),
    st.text(max_size=9),
    st.integers(),
)
STATUSES = st.sampled_from([
    200, 400, 401, 402, 403, 413, 429, 498, 500, 503, 529, None, "429", 10**30, -1, 429.5, math.nan, math.inf,
])  # fmt: skip
URLS = st.sampled_from([
    None, "https://api.groq.com/v1", "api.together.xyz", "https://open.bigmodel.cn/x", "https://user:secret@api.groq.com:443/v1?key=x",
    "https://models.github.ai", "://", "@", "", object(),
])  # fmt: skip

REAL = [
    (
        {
            "date": "Tue, 18 Mar 2025 10:39:14 GMT",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9525",
            "x-ratelimit-reset-requests": "1h8m25.745s",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "199967",
            "x-ratelimit-reset-tokens": "9ms",
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
            "date": "Tue, 18 Mar 2025 10:39:14 GMT",
            "anthropic-ratelimit-tokens-limit": "480000",
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2025-03-18T10:39:35Z",
            "retry-after": "7",
            "x-ratelimit-limit-req-10-second": "60",
        },
        {
            "error": {
                "code": "1308",
                "message": "Your limit will reset at 2026-08-25 07:41:44, 5 \u5c0f\u65f6\u7684\u4f7f\u7528\u4e0a\u9650",
            }
        },
    ),
    (
        {
            "x-ratelimit-limit-requests": "120",
            "x-ratelimit-remaining-requests": "119",
            "x-ratelimit-reset-requests": "500",
            "x-ratelimit-renewalperiod-requests": "60",
            "retry-after-ms": "174",
            "x-codex-primary-used-percent": "93",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": "1742294400",
        },
        {"error": {"code": "429", "message": "Rate limit is exceeded. Try again in 45 seconds.", "resets_in_seconds": 46}},
    ),
]  # fmt: skip


def sane(info):
    """Every figure is finite, not negative, and of a size that a limit can have."""
    assert isinstance(info, RateLimitInfo)
    waits = [info.retry_after, info.processing]
    if info.refusal is not None:
        assert isinstance(info.refusal, Refusal)
        waits.append(info.refusal.retry_after)
    for quota in info.quotas:
        assert quota.unit
        assert isinstance(quota.unit, str)
        assert quota.window is None or quota.window > 0
        waits += [quota.reset_after, quota.window]
        assert all(count is None or 0 <= count < 1e15 for count in (quota.limit, quota.remaining))
    assert all(wait is None or 0 <= wait <= YEAR for wait in waits)
    for count in (info.rpm_limit, info.rpm_remaining, info.tpm_limit, info.tpm_remaining):
        assert count is None or (type(count) is int and 0 <= count < 10**15)
    for reset in (info.rpm_reset, info.tpm_reset):
        assert reset is None or 0 <= reset - info.timestamp <= YEAR + 1
    assert len(info.quotas) <= 128
