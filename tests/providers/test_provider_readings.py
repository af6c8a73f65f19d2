"""What limits the headers of each provider tell. Names and figures are real; dates are all moved to one moment."""

import pytest

from adaptive_rate_limiter.providers import parse_response

DATE = "Tue, 18 Mar 2025 10:39:14 GMT"
NOW = 1_742_294_354
DAY, MONTH = 86_400, 2_592_000


def trio(limit, remaining, reset=None, *, dim="requests", start="x-ratelimit"):
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"{start}-{field}-{dim}": str(value) for field, value in told.items() if value is not None}


def read(headers, status=200, url=None):
    info = parse_response({"date": DATE, **headers}, None, status, url=url)
    return [(q.unit, q.limit, q.remaining, q.reset_after, q.window, q.scope) for q in info.quotas]


def approx(rows):
    return [
        tuple(pytest.approx(x, rel=1e-6) if isinstance(x, (int, float)) else x for x in row) for row in rows
    ]


# name: (headers, [(unit, limit, remaining, reset_after, window, scope)])
BY_NAME = {
    "openai: requests and tokens a minute": (
        trio(10000, 9999, "6ms") | trio(200000, 199967, "9ms", dim="tokens"),
        [("requests", 10000, 9999, 0.006, 60, None), ("tokens", 200000, 199967, 0.009, 60, None)],
    ),
    "openai: a project's tokens stand beside the organisation's": (
        trio(1000000, 999831, "10ms", dim="tokens") | trio(1000000, 999831, "10ms", dim="project-tokens"),
        [("tokens", 1000000, 999831, 0.01, 60, None), ("tokens", 1000000, 999831, 0.01, 60, "project")],
    ),
    "openai: images are a unit of their own": (
        trio(50000, 49999, "1ms", dim="input-images"),
        [("images", 50000, 49999, 0.001, 60, None)],
    ),
    "openai: an unknown word beside a unit is a bucket of that unit": (
        trio(250000, 249979, "4ms", dim="tokens_usage_based"),
        [("tokens", 250000, 249979, 0.004, 60, "usage_based")],
    ),
    "azure: renewal period is the window, flags and key are nothing": (
        trio(50, 49, 1)
        | {
            "x-ratelimit-renewalperiod-requests": "10",
            "x-ratelimit-key": "grok-4",
            "x-ratelimit-abusepenalty-active": "False",
            "x-ms-is-spilled-over": "false",
        },
        [("requests", 50, 49, 1, 10, None)],
    ),
    "azure: remaining only": (trio(None, 119), [("requests", None, 119, None, 60, None)]),
    "azure: minus one is no limit, and its zero reset no news": (trio(-1, -1, 0, dim="tokens"), []),
    "azure: two spellings of one family are one limit": (
        trio(50000, 0, dim="tokens") | {"x-rate-limit-reset-tokens": "37"},
        [("tokens", 50000, 0, 37, 60, None)],
    ),
    "anthropic: four buckets with instants; the past means full": (
        {
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-requests-reset": "2025-03-18T10:38:10Z",
            "anthropic-ratelimit-input-tokens-limit": "200000",
            "anthropic-ratelimit-input-tokens-remaining": "126000",
            "anthropic-ratelimit-input-tokens-reset": "2025-03-18T10:39:35Z",
            "anthropic-ratelimit-output-tokens-remaining": "59000",
        },
        [
            ("requests", 4000, 3999, 0, 60, None),
            ("input_tokens", 200000, 126000, 21, 60, None),
            ("output_tokens", None, 59000, None, 60, None),
        ],
    ),
    "anthropic, openai form: the limit header has no word limit": (
        {
            "x-ratelimit-requests": "50",
            "x-ratelimit-remaining-requests": "49",
            "x-ratelimit-reset-requests": "0s",
            "x-ratelimit-tokens": "40000",
        },
        [("requests", 50, 49, 0, 60, None), ("tokens", 40000, None, None, 60, None)],
    ),
    "anthropic subscription: windows and instants, no counts": (
        {
            "anthropic-ratelimit-unified-status": "allowed",
            "anthropic-ratelimit-unified-5h-utilization": "0.31",
            "anthropic-ratelimit-unified-5h-reset": str(NOW + 5000),
            "anthropic-ratelimit-unified-7d-reset": str(NOW + 300000),
        },
        [("usage", None, None, 5000, 18000, None), ("usage", None, None, 300000, 604800, None)],
    ),
    "codex: windows in minutes; an unused window is none": (
        {
            "X-Codex-Primary-Used-Percent": "93",
            "X-Codex-Primary-Window-Minutes": "300",
            "X-Codex-Primary-Reset-After-Seconds": "9569",
            "X-Codex-Secondary-Window-Minutes": "0",
            "X-Codex-Secondary-Reset-After-Seconds": "0",
            "X-Codex-Primary-Over-Secondary-Limit-Percent": "0",
        },
        [("usage", None, None, 9569, 18000, "primary")],
    ),
    "mistral: unit and window stand in the name, a cost is no limit": (
        {
            "X-Ratelimit-Limit-Tokens-Minute": "200000",
            "X-Ratelimit-Remaining-Tokens-Minute": "199743",
            "X-Ratelimit-Tokens-Query-Cost": "257",
            "X-Ratelimit-Limit-Audio-Seconds-Minute": "2000",
            "X-Ratelimit-Limit-Ocr-Pages-Month": "900",
            "X-Ratelimit-Remaining-Input-Characters-Minute": "8000",
            "X-Ratelimit-Limit-Req-10-Second": "60",
            "X-Ratelimit-Remaining-Req-10-Second": "53",
        },
        [
            ("tokens", 200000, 199743, None, 60, None),
            ("audio_seconds", 2000, None, None, 60, None),
            ("pages", 900, None, None, MONTH, None),
            ("characters", None, 8000, None, 60, None),
            ("requests", 60, 53, None, 10, None),
        ],
    ),
    "mistral 2024: size means tokens, the bare trio repeats the minute": (
        {
            "ratelimitbysize-limit": "500000",
            "ratelimitbysize-query-cost": "32018",
            "ratelimitbysize-remaining": "401381",
            "ratelimitbysize-reset": "33",
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-limit-month": "1000000000",
            "x-ratelimitbysize-remaining-minute": "401381",
            "x-ratelimitbysize-remaining-month": "997438986",
        },
        [("tokens", 500000, 401381, 33, 60, None), ("tokens", 1e9, 997438986, None, MONTH, None)],
    ),
    "cohere: trial calls a minute, all calls a month": (
        {
            "X-Endpoint-Monthly-Call-Limit": "1000",
            "X-Trial-Endpoint-Call-Limit": "20",
            "X-Trial-Endpoint-Call-Remaining": "8",
        },
        [("requests", 1000, None, None, MONTH, "account"), ("requests", 20, 8, None, 60, None)],
    ),
    "together: everything a second, told by its boolean header": (
        {
            "x-ratelimit": "false",
            "x-ratelimit-limit": "30",
            "x-ratelimit-remaining": "59",
            "x-ratelimit-reset": "2",
            "x-ratelimit-limit-tokens": "3000",
            "retry-after": "2",
        },
        [("requests", 30, 59, 2, 1, None), ("tokens", 3000, None, None, 1, None)],
    ),
    "together 2026: token limit family": (
        {"x-tokenlimit-limit": "3000", "x-tokenlimit-remaining": "2000"},
        [("tokens", 3000, 2000, None, 1, None)],
    ),
    "cerebras: fixed windows in float seconds": (
        trio(14400, 14379, 20458.832, dim="requests-day") | trio(60000, 60000, 58.832, dim="tokens-minute"),
        [("requests", 14400, 14379, 20458.832, DAY, None), ("tokens", 60000, 60000, 58.832, 60, None)],
    ),
    "cerebras: equal limits of two told windows stay two": (
        trio(1000000, None, dim="tokens-hour") | trio(1000000, None, dim="tokens-day"),
        [("tokens", 1000000, None, None, 3600, None), ("tokens", 1000000, None, None, DAY, None)],
    ),
    "cerebras: a billion is no limit": (trio(10**9, 999997455, 33011.4, dim="requests-day"), []),
    "sambanova: epoch seconds, bare is the minute": (
        trio(240, 202, NOW + 60) | trio(48000, 47962, NOW + DAY, dim="requests-day"),
        [("requests", 240, 202, 60, 60, None), ("requests", 48000, 47962, DAY, DAY, None)],
    ),
    "xai: remaining equal to the limit stays as told": (
        trio(1800, 1800),
        [("requests", 1800, 1800, None, 60, None)],
    ),
    "openrouter: epoch milliseconds": (
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str((NOW + 46) * 1000),
        },
        [("requests", 20, 0, 46, None, None)],
    ),
    "ovh: two copies of one limit are one, with the window of the second": (
        {
            "ratelimit-limit": "2",
            "ratelimit-remaining": "1",
            "ratelimit-reset": "23",
            "x-ratelimit-limit-minute": "2",
            "x-ratelimit-remaining-minute": "1",
        },
        [("requests", 2, 1, 23, 60, None)],
    ),
    "venice: one set with an instant and a length": (
        trio(20, 19, NOW + 36) | trio(500000, 499000, 35, dim="tokens") | {"x-ratelimit-type": "user"},
        [("requests", 20, 19, 36, 60, None), ("tokens", 500000, 499000, 35, 60, None)],
    ),
    "elevenlabs: requests in flight": (
        {"current-concurrent-requests": "4", "maximum-concurrent-requests": "5"},
        [("concurrent_requests", 5, 1, None, None, None)],
    ),
    "fireworks: per second once the cache-adjusted header is there": (
        {"X-Ratelimit-Limit-Tokens-Prompt": "6000", "X-Ratelimit-Limit-Tokens-Cache-Adjusted-Prompt": "3000"},
        [
            ("input_tokens", 6000, None, None, 1, None),
            ("cache_adjusted_input_tokens", 3000, None, None, 1, None),
        ],
    ),
    "fireworks: earlier, per minute": (
        {"x-ratelimit-limit-tokens-generated": "200", "x-ratelimit-over-limit": "yes"},
        [("output_tokens", 200, None, None, 60, None)],
    ),
    "litellm: the prefixed copy fills in what the own set leaves out": (
        trio(15000, 14999) | trio(15000, 14999, "4ms", start="llm_provider-x-ratelimit"),
        [("requests", 15000, 14999, 0.004, 60, "upstream")],
    ),
    "litellm: two limits that disagree stay two": (
        trio(100, 42) | trio(15000, 14999, start="llm_provider-x-ratelimit"),
        [("requests", 100, 42, None, 60, None), ("requests", 15000, 14999, None, 60, "upstream")],
    ),
    "unknown: any prefix, window before the unit": (
        {"acme-rate-limit-minute-requests-limit": "7", "acme-rate-limit-minute-requests-left": "3"},
        [("requests", 7, 3, None, 60, None)],
    ),
    "unknown: its own unit is kept": (
        trio(40, 39, dim="moons"),
        [("moons", 40, 39, None, None, None)],
    ),
    "unknown: used instead of remaining": (
        {"x-ratelimit-limit-tokens": "900", "x-ratelimit-used-tokens": "100"},
        [("tokens", 900, 800, None, 60, None)],
    ),
    "unknown: an abbreviation tells unit and window": (
        {"x-ratelimit-limit-rpd": "50"},
        [("requests", 50, None, None, DAY, None)],
    ),
    "copilot: a prefixed retry-after is no count": ({"x-ratelimit-user-retry-after": "40"}, []),
    "a name beyond all length": ({"x-ratelimit-limit-" + "requests" * 20: "5"}, []),
    "words for a window": (
        {"x-ratelimit-limit-requests-per-60s": "5", "x-ratelimit-limit-per-2-hours": "9"},
        [("requests", 5, None, None, 60, None), ("requests", 9, None, None, 7200, None)],
    ),
    "no limit headers": ({"content-type": "application/json", "x-request-id": "1", "server": "x"}, []),
    "usage is no limit": ({"X-Amzn-Bedrock-Input-Token-Count": "480"}, []),
    "a limit of zero on a success is no limit; what remains is": (
        trio(0, 5, "9s"),
        [("requests", None, 5, 9, 60, None)],
    ),
    "zeros on a success are no limit": (
        {"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"},
        [],
    ),
    "an int64 is no limit, and its reset no news": (trio(None, 2**63 - 1, "0s", dim="tokens"), []),
}


@pytest.mark.parametrize(("headers", "rows"), BY_NAME.values(), ids=BY_NAME)
def test_headers_tell(headers, rows):
    assert read(headers) == approx(rows)


@pytest.mark.parametrize("spelling", [str.upper, str.title, lambda name: name.replace("-", "_")])
def test_the_spelling_of_a_name_does_not_matter(spelling):
    headers = trio(500, 499, "120ms")
    assert read({spelling(name): value for name, value in headers.items()}) == read(headers) != []


# (limit, remaining, reset, window): the reset of what is used tells the window that the name does not.
WINDOWS = {
    "a minute's refill": (500, 499, "120ms", 60),
    "tokens of a minute": (30000, 29210, "1.58s", 60),
    "rounded down to milliseconds": (250000, 249979, "4ms", 60),
    "too little used to be seen": (30000000, 29999965, "0s", 60),
    "groq: one of a day's thousand": (1000, 999, "1m26.4s", DAY),
    "groq: 221 of a day's thousand": (1000, 779, "5h18m14.188s", DAY),
    "groq: float noise": (500000, 499999, "172.799999ms", DAY),
    "openai's low tier: 476 of a day": (10000, 9524, "1h8m25.745s", DAY),
    "a slot half refilled": (200, 196, "21m36.001s", DAY),
    "a month under a minute's name": (100000, 99611, "2h47m48.417s", MONTH),
    "a flat window": (10000, 9999, "1m0s", 60),
    "a flat window of few requests": (500, 499, "1m0s", 60),
    "a debt above the limit": (7000, 0, "1m20s", 60),
    "nothing explains it": (150000, 149984, "6m0s", None),
    "nothing used": (14400, 14400, "0s", 60),
    "the end of a flat window": (1000, 990, "41s", 60),
}


@pytest.mark.parametrize(("limit", "remaining", "reset", "window"), WINDOWS.values(), ids=WINDOWS)
def test_arithmetic_tells_the_window(limit, remaining, reset, window):
    ((*_, told, _scope),) = read(trio(limit, remaining, reset, dim="tokens"))
    assert told == window


def test_an_instant_is_a_window_end_and_no_refill():
    """One of fifty used and 35 s to go is no proof of a long window when the reset is an instant."""
    assert read(trio(50, 49, NOW + 35)) == [("requests", 50, 49, 35, 60, None)]


# (requests trio, tokens trio, resets in seconds): Azure's bare integers.
BARE = {
    "milliseconds, by arithmetic": ((120, 119, 500), (120000, 119984, 7), (0.5, 0.007)),
    "whole seconds, rounded down": ((50, 49, 1), (50000, 49362, 0), (1, 0)),
    "one reply speaks one unit": ((120, 119, 500), (-1, 119984, 7), (0.5, 0.007)),
    "longer than the window is no second": ((60, 60, 12000), (1000, 1000, 0), (12, 0)),
    "a plain window end": ((60, 30, 41), (1000, 100, 41), (41, 41)),
}


@pytest.mark.parametrize(("requests", "tokens", "resets"), BARE.values(), ids=BARE)
def test_bare_integers_are_milliseconds_or_seconds_by_what_is_used(requests, tokens, resets):
    rows = read(trio(*requests) | trio(*tokens, dim="tokens"))
    assert tuple(row[3] for row in rows) == pytest.approx(resets)


# host: (headers, unit, window, scope) that only the host tells.
BY_HOST = {
    "https://api.groq.com/openai/v1/chat/completions": (trio(14400, 14400, "0s"), DAY, None),
    "api.together.xyz/v1/completions": ({"x-ratelimit-limit": "2"}, 1, None),
    "https://api.replicate.com/v1/predictions": (
        {"ratelimit-remaining": "599", "ratelimit-reset": "1"},
        60,
        "account",
    ),
    "https://api.exa.ai/search": ({"x-ratelimit-limit": "450"}, None, "account"),
    "https://api.portkey.ai/v1/x": (trio(10000, 9999, "6ms"), 60, "upstream"),
    "https://models.github.ai/inference": (trio(1000, 990), 60, "upstream"),
    "https://USER:KEY@router.huggingface.co:443/v1": (
        {"x-ratelimit": "false", "x-ratelimit-limit": "100"},
        1,
        "upstream",
    ),
    "https://notgroq.com.evil.example/groq.com": (trio(14400, 14400, "0s"), 60, None),
}


@pytest.mark.parametrize(("url", "case"), BY_HOST.items(), ids=BY_HOST)
def test_the_host_tells_what_names_do_not(url, case):
    headers, window, scope = case
    ((_unit, *_, told_window, told_scope),) = read(headers, url=url)
    assert (told_window, told_scope) == (window, scope)


def test_zero_is_a_limit_on_a_refusal():
    assert read(trio(0, 0), status=429) == [("requests", 0, 0, None, 60, None)]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_errors_teach_limits_too(status):
    info = parse_response(trio(500, 499), {"error": {"message": "no such thing"}}, status)
    assert info.quotas[0].remaining == 499
    assert info.refusal is None
    assert not info.is_rate_limited


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (["junk", "10000"], 10000),
        ("10000, 10000", 10000),
        ("10000, junk", 10000),
        ("100, 100;w=60", 100),
        ("30,000", 30000),
        (b"250", 250),
        (250, 250),
        (" 250 ", 250),
        ("250.0", 250),
    ],
)
def test_the_first_value_that_reads_counts(value, limit):
    assert read({"x-ratelimit-limit-requests": value})[0][1] == limit


@pytest.mark.parametrize(
    "value",
    ["", "n/a", "nan", "inf", "-inf", "-5", "1e400", "1e300", "9" * 400, None, [], True, {}, object()],
)
def test_what_is_no_count_is_not_told(value):
    assert read({"x-ratelimit-limit-requests": value}) == []
