"""What a reply says of the moment: its date, its faults, what is used and when it comes back."""

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx
import pytest

ASK = {"model": "a-model", "max_tokens": 10, "messages": [{"role": "user", "content": "x" * 40}]}


@pytest.fixture
def talk(provider_emulator):
    def start(provider, **options):
        emulator = provider_emulator(provider, **{"latency": 0.0, **options})
        path = "messages" if provider == "anthropic" else "chat/completions"
        return lambda: httpx.post(f"{emulator.url}/v1/{path}", json=ASK)

    return start


USED = [  # limits, words
    ({"requests_per_minute": 1}, r"Limit 1, Used 1, Requested 1\. Please try again in (1m0|59\.\d+)s\."),
    (
        {"requests_per_day": 1},
        r"Limit 1, Used 1, Requested 1\. Please try again in (24h0m0|23h59m59\.\d+)s\.",
    ),
    ({"tokens_per_minute": 30, "algorithm": "fixed_window"}, r"Limit 30, Used 20, Requested 20\."),
]


@pytest.mark.parametrize(("limits", "words"), USED)
def test_a_unit_that_is_on_its_way_back_is_still_used(talk, limits, words):
    """A full bucket was refused with "Used 0", because the part that had come back was cut off from what was used."""
    ask = talk("openai", **limits)
    assert ask().is_success
    message = ask().json()["error"]["message"]
    assert re.search(words, message), message


FAULTS = [
    ("openai", 500, "application/json", "server_error"),
    ("openai", 503, "text/plain", "upstream connect error"),
    ("anthropic", 500, "application/json", "api_error"),
    ("anthropic", 529, "application/json", "overloaded_error"),
]


@pytest.mark.parametrize(("provider", "status", "content_type", "words"), FAULTS)
def test_a_fault_says_nothing_of_limits(talk, provider, status, content_type, words):
    answer = talk(provider, requests_per_minute=10, faults=[status])()
    assert answer.status_code == status
    assert answer.headers["content-type"] == content_type
    assert words in answer.text
    assert not any("ratelimit" in name or "retry-after" in name for name in answer.headers)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_answer_has_a_true_date(talk, provider):
    ask = talk(provider, requests_per_minute=1, faults=[None, None, 500])
    for status in (200, 429, 500):
        answer = ask()
        late = datetime.now(timezone.utc) - parsedate_to_datetime(answer.headers["date"])
        assert answer.status_code == status
        assert -0.1 < late.total_seconds() < 2


@pytest.mark.parametrize(
    ("algorithm", "reset"), [("token_bucket", "6s"), ("fixed_window", "1m0s"), ("sliding_window", "1m0s")]
)
def test_the_reset_is_the_time_to_full_or_the_end_of_the_window(talk, algorithm, reset):
    answer = talk("openai", requests_per_minute=10, algorithm=algorithm)()
    assert answer.headers["x-ratelimit-reset-requests"] == reset


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "openai-processing-ms"), ("azure", "x-envoy-upstream-service-time")]
)
def test_a_reply_tells_how_long_the_provider_worked_on_it(talk, provider, name):
    assert 100 <= float(talk(provider, latency=0.1)().headers[name]) < 10_000
