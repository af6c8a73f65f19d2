"""Exact names and forms of headers, and the words of refusals."""

import re
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from adaptive_rate_limiter.testing import Verdict
from adaptive_rate_limiter.testing.admission import Standing
from adaptive_rate_limiter.testing.dialects import DIALECTS, dialect, go_duration

WALL = 1_760_000_000.4  # 2025-10-09T08:53:20Z
PATHS = {"anthropic": "/v1/messages", "azure": "/openai/deployments/gpt-4o/chat/completions"}


def headers(provider, wall=WALL, **standings):
    return DIALECTS[provider].headers(
        {name: Standing(*row) for name, row in standings.items()}, "gpt-4o", wall
    )


@pytest.fixture
def ask():
    with httpx.Client(timeout=10) as client:

        def post(emulator, prompt="hello", max_tokens=10):
            body = {"model": "gpt-4o", "max_tokens": max_tokens}
            messages = [{"role": "user", "content": prompt}]
            path = PATHS.get(emulator.provider, "/v1/chat/completions")
            return client.post(emulator.url + path, json={**body, "messages": messages})

        yield post


def limits_of(answer):
    return {name: value for name, value in answer.headers.items() if "limit" in name or "retry" in name}


DURATIONS = [
    (0, "0s"),
    (-1, "0s"),
    (0.0004, "0s"),
    (0.006, "6ms"),
    (0.174, "174ms"),
    (8.64, "8.64s"),
    (59.9999, "59.999s"),
    (60, "1m0s"),
    (90.5, "1m30.5s"),
    (4105.745, "1h8m25.745s"),
    (86_400, "24h0m0s"),
]


@pytest.mark.parametrize(("seconds", "printed"), DURATIONS)
def test_durations_are_those_of_go(seconds, printed):
    assert go_duration(seconds) == printed


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [(21.417999999, "21.417999999s"), (0.0000015, "1.5µs"), (0.000000007, "7ns"), (0.0123, "12.3ms")],
)
def test_durations_of_nine_digits(seconds, printed):
    assert go_duration(seconds, 9) == printed


def test_openai_tells_six_headers():
    assert headers("openai", requests=(500, 499.2, 0.12, 60), tokens=(30_000, 29_000, 2.0, 60)) == {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "2s",
    }


@pytest.mark.parametrize("provider", ["openai", "groq"])
def test_a_daily_limit_takes_the_place_of_the_one_per_minute(provider):
    told = headers(
        provider,
        requests=(30, 29, 2, 60),
        requests_per_day=(14_400, 14_399, 6, 86_400),
        tokens=(6000, 5000, 10, 60),
    )
    assert told["x-ratelimit-limit-requests"] == "14400"
    assert told["x-ratelimit-reset-requests"] == "6s"
    assert told["x-ratelimit-limit-tokens"] == "6000"


def test_groq_prints_its_floats():
    told = headers("groq", requests_per_day=(1000, 999, 86.4, 86_400), tokens=(6000, 5988, 0.12, 60))
    assert told["x-ratelimit-reset-requests"] == "1m26.4s"
    assert told["x-ratelimit-reset-tokens"] == "120ms"
    assert headers("groq", tokens=(6000, 1, 21.417999999, 60))["x-ratelimit-reset-tokens"] == "21.417999999s"


def test_azure_tells_bare_integers():
    told = headers("azure", requests=(300, 299, 9.9, 60), tokens=(30_000, 29_000, 59.2, 60))
    assert told == {
        "x-ratelimit-key": "gpt-4o",
        "x-ratelimit-abusepenalty-active": "False",
        "x-ms-is-spilled-over": "false",
        "x-ratelimit-limit-requests": "300",
        "x-ratelimit-remaining-requests": "299",
        "x-ratelimit-reset-requests": "9",
        "x-ratelimit-renewalperiod-requests": "60",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "59",
        "x-ratelimit-renewalperiod-tokens": "60",
    }


def test_anthropic_tells_instants_of_whole_seconds_and_rounds_tokens():
    told = headers(
        "anthropic",
        requests=(50, 49, 1.2, 60),
        requests_per_day=(1000, 1000, 0, 86_400),
        input_tokens=(30_000, 29_499, 5, 60),
        output_tokens=(8000, 7500, 3, 60),
    )
    assert told == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2025-10-09T08:53:21Z",
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-input-tokens-remaining": "29000",
        "anthropic-ratelimit-input-tokens-reset": "2025-10-09T08:53:25Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
        "anthropic-ratelimit-output-tokens-reset": "2025-10-09T08:53:23Z",
        "anthropic-ratelimit-tokens-limit": "38000",
        "anthropic-ratelimit-tokens-remaining": "37000",
        "anthropic-ratelimit-tokens-reset": "2025-10-09T08:53:23Z",
    }


def test_anthropics_rounded_tokens_never_exceed_the_limit():
    told = headers("anthropic", tokens=(900, 900, 0, 60))
    assert told["anthropic-ratelimit-tokens-remaining"] == "900"


def test_ietf_tells_structured_fields():
    assert headers("ietf", requests=(100, 99.9, 0.6, 60), tokens=(5000, 4000, 12, 0.5)) == {
        "ratelimit-policy": '"requests";q=100;w=60, "tokens";q=5000;w=1',
        "ratelimit": '"requests";r=99;t=1, "tokens";r=4000;t=12',
    }
    assert headers("ietf") == {}


def test_without_limits_nothing_is_told():
    assert [headers(provider) for provider in ("openai", "groq", "anthropic", "headerless")] == [{}] * 4
    with pytest.raises(ValueError, match="provider must be one of openai, azure"):
        dialect("acme")


SIXTY = {"requests_per_minute": 2, "algorithm": "fixed_window", "latency": 0.0}


def third(emulator, ask):
    first, second, refused = (ask(emulator) for _ in range(3))
    assert (first.status_code, second.status_code, refused.status_code) == (200, 200, 429)
    return refused


def test_openai_refuses_with_times_in_header_and_words(provider_emulator, ask):
    refused = third(provider_emulator("openai", **SIXTY), ask)
    assert refused.headers["retry-after"] == "60"
    assert 59_000 < int(refused.headers["retry-after-ms"]) <= 60_000
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert re.match(
        r"Rate limit reached for gpt-4o in organization org-emulated on requests per min \(RPM\): Limit 2, Used 2, "
        r"Requested 1\. Please try again in (1m0s|59\.\d+s)\. ",
        error["message"],
    )


def test_azure_refuses_with_its_tier(provider_emulator, ask):
    refused = third(provider_emulator("azure", **SIXTY), ask)
    assert refused.headers["retry-after"] == "60"
    assert int(refused.headers["retry-after-ms"]) <= 60_000
    error = refused.json()["error"]
    assert error["code"] == "429"
    assert "exceeded the call rate limit" in error["message"]
    assert error["message"].endswith("Please retry after 60 seconds.")


def test_azure_names_the_token_rate_limit(provider_emulator, ask):
    emulator = provider_emulator("azure", tokens_per_minute=12, latency=0.0)
    assert ask(emulator).is_success
    assert "the token rate limit" in ask(emulator).json()["error"]["message"]


def test_anthropic_refuses_with_retry_after_in_seconds(provider_emulator, ask):
    refused = third(provider_emulator("anthropic", **SIXTY), ask)
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("60", "true")
    assert "retry-after-ms" not in refused.headers
    body = refused.json()
    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
    assert "Number of requests has exceeded your per-minute rate limit" in body["error"]["message"]
    reset = datetime.fromisoformat(
        refused.headers["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00")
    )
    assert timedelta(seconds=55) < reset - datetime.now(timezone.utc) <= timedelta(seconds=61)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"requests_per_day": 1}, "exceeded your daily rate limit"),
        ({"output_tokens_per_minute": 10, "output_tokens": 30}, "of 10 output tokens per minute"),
    ],
)
def test_anthropic_names_the_limit(provider_emulator, ask, limit, words):
    emulator = provider_emulator("anthropic", algorithm="fixed_window", latency=0.0, **limit)
    assert ask(emulator, max_tokens=50).is_success
    assert words in ask(emulator).json()["error"]["message"]


def test_groq_refuses_per_day(provider_emulator, ask):
    emulator = provider_emulator("groq", requests_per_day=1, requests_per_minute=30, algorithm="fixed_window")
    told = ask(emulator).headers
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("1", "0")
    refused = ask(emulator)
    assert int(refused.headers["retry-after"]) > 86_000
    message = refused.json()["error"]["message"]
    assert (
        "for model `gpt-4o` in organization `org-emulated` on requests per day (RPD): Limit 1, Used 1,"
        in message
    )
    assert re.search(r"try again in (24h0m0s|23h59m\d+\.\d+s)\. ", message)


def test_ietf_refuses_with_a_problem(provider_emulator, ask):
    refused = third(provider_emulator("ietf", **SIXTY), ask)
    assert refused.headers["ratelimit"] == '"requests";r=0;t=60'
    assert refused.headers["retry-after"] == "60"
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["type"].endswith("#quota-exceeded")
    assert (problem["status"], problem["violated-policies"]) == (429, ["requests"])


@pytest.mark.parametrize(
    ("provider", "options"),
    [("headerless", {}), ("openai", {"headers": False}), ("anthropic", {"headers": False})],
)
def test_headerless_tells_neither_limit_nor_time(provider_emulator, ask, provider, options):
    refused = third(provider_emulator(provider, **SIXTY, **options), ask)
    assert limits_of(refused) == {}
    assert refused.json()["error"]["message"] == "Too many requests."
    assert not re.search(r"\d", refused.text)


LARGE = [
    (
        "openai",
        {},
        429,
        "Request too large for gpt-4o in organization org-emulated on tokens per min (TPM): Limit 50,",
    ),
    ("azure", {}, 429, "larger than the limit"),
    ("groq", {}, 413, "on tokens per minute (TPM): Limit 50, Requested 100, please reduce your message size"),
    ("anthropic", {}, 429, "Please reduce the prompt length"),
    ("ietf", {}, 413, "Content Too Large"),
    ("headerless", {}, 413, "Request too large."),
    ("anthropic", {"headers": False}, 413, "Request too large."),
]


@pytest.mark.parametrize("row", LARGE, ids=lambda row: f"{row[0]}{'-silent' if row[1] else ''}")
def test_a_request_that_can_never_fit_is_refused_without_a_time(provider_emulator, ask, row):
    provider, options, status, words = row
    refused = ask(provider_emulator(provider, tokens_per_minute=50, latency=0.0, **options), "x" * 400)
    assert refused.status_code == status
    assert words in refused.text
    assert "retry-after" not in refused.headers
    assert "try again in" not in refused.text


BUSY = [
    ("openai", "maximum of active requests"),
    ("azure", "exceeded the call rate limit"),
    ("groq", "Too many concurrent requests"),
    ("anthropic", "Number of concurrent connections has exceeded your rate limit"),
    ("ietf", '"concurrency"'),
    ("headerless", "Too many requests."),
]


@pytest.mark.parametrize(("provider", "words"), BUSY)
def test_a_full_house_is_refused_without_a_time(provider, words):

    answer = DIALECTS[provider].refusal(Verdict(admitted=False, refused_by="concurrency"), "gpt-4o")
    assert answer.status == 429
    assert words in answer.encoded().decode()
    assert not answer.headers.keys() & {"retry-after", "retry-after-ms"}
