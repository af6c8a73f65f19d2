"""Recorded responses through the SDKs of OpenAI, Azure and Anthropic, with the limiter in their HTTP client."""

import json
import re
import time
from datetime import datetime, timezone

import anthropic
import httpx
import httpx2
import openai
import pytest
from tests.recorded.cassettes import recording, replay, request_of
from tests.recorded.expected import LIMITS, NOT_ENTITLED, REFUSALS, SPENT, TOO_LARGE

from adaptive_rate_limiter import CapacityExceededError, Limiter, Quota
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport, observe_http

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

YEARS = 1e8  # seconds: nothing comes back during a test
KEY = "none"
ENDPOINTS = ("/chat/completions", "/responses", "/images/generations", "/fine_tuning/jobs", "/v1/messages")


def spoken(case):
    """The endpoint, if it is one that these SDKs speak; None if not."""
    path = request_of(case)["uri"]
    told = recording(case)["interactions"][0]["response"]
    typed = told["status"]["code"] >= 400 or "content-type" in {name.lower() for name in told["headers"]}
    return next((end for end in ENDPOINTS if path.endswith(end) and typed), None)


def libraries(case):
    """Those that the case's SDK can be given: Anthropic's is httpx2 alone."""
    return [httpx2] if spoken(case) == "/v1/messages" else [httpx, httpx2]


def over(cases):
    """Each of `cases` over each library."""
    return [
        pytest.param(case, library, id=f"{case}-{library.__name__}")
        for case in cases
        for library in libraries(case)
    ]


SUCCESSES = [case for case in LIMITS if case not in REFUSALS and spoken(case)]
FOR_GOOD = [case for case in [*SPENT, *TOO_LARGE, *NOT_ENTITLED] if spoken(case)]


def client_for(case, http_client):
    """The SDK that speaks to this host, sync or async as its HTTP client is."""
    uri = request_of(case)["uri"]
    host = uri.removesuffix(spoken(case))
    side = "Async" if isinstance(http_client, (httpx.AsyncClient, httpx2.AsyncClient)) else ""
    if spoken(case) == "/v1/messages":
        return getattr(anthropic, f"{side}Anthropic")(api_key=KEY, base_url=host, http_client=http_client)
    if "/deployments/" in uri:
        kind = getattr(openai, f"{side}AzureOpenAI")
        return kind(
            api_key=KEY,
            azure_endpoint=host.partition("/openai/")[0],
            azure_deployment=host.rpartition("/")[2],
            api_version="2024-10-21",
            http_client=http_client,
        )
    return getattr(openai, f"{side}OpenAI")(api_key=KEY, base_url=host, http_client=http_client)


def ask(client, case):
    """Send what was recorded, by the SDK's own method."""
    body = {"model": "deployment"} | json.loads(request_of(case)["body"])
    methods = {
        "/chat/completions": lambda: client.chat.completions.create(**body),
        "/responses": lambda: client.responses.create(**body),
        "/images/generations": lambda: client.images.generate(**body),
        "/fine_tuning/jobs": lambda: client.fine_tuning.jobs.create(**body),
        "/v1/messages": lambda: client.messages.create(**body),
    }
    return methods[spoken(case)]()


def text_of(reply):
    if hasattr(reply, "output_text"):
        return reply.output_text
    if hasattr(reply, "content"):
        return reply.content[0].text
    return reply.choices[0].message.content


def text_in(event):
    """What one event of a stream adds to the text."""
    if hasattr(event, "choices"):
        return (event.choices[0].delta.content or "") if event.choices else ""
    return getattr(getattr(event, "delta", None), "text", "")


def learned(limiter):
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight, bucket.refused) == (1, 0, 0)
    told = [limit for limit in bucket.limits if limit.source == "told"]
    return sorted((limit.unit, limit.limit, limit.window) for limit in told)


def read(case, client):
    reply = ask(client, case)
    if json.loads(request_of(case)["body"]).get("stream"):
        return "".join(map(text_in, reply))
    return text_of(reply)


@pytest.mark.parametrize(("case", "library"), over(SUCCESSES))
def test_an_sdk_gets_its_answer_and_the_limiter_learns(case, library, limiter):
    transport = AdaptiveTransport(limiter, library.HTTPTransport(verify=False))
    with replay(case), library.Client(transport=transport) as http_client:
        assert read(case, client_for(case, http_client)) == "Hello!"
    assert learned(limiter) == sorted(told[:3] for told in LIMITS[case])


@pytest.mark.parametrize("case", SUCCESSES)
async def test_an_async_sdk_gets_its_answer_and_the_limiter_learns(case, limiter):
    transport = AsyncAdaptiveTransport(limiter, httpx2.AsyncHTTPTransport(verify=False))
    async with httpx2.AsyncClient(transport=transport) as http_client:
        with replay(case):
            reply = await ask(client_for(case, http_client), case)
            if json.loads(request_of(case)["body"]).get("stream"):
                assert "".join([text_in(event) async for event in reply]) == "Hello!"
            else:
                assert text_of(reply) == "Hello!"
    assert learned(limiter) == sorted(told[:3] for told in LIMITS[case])


def body_of(case):
    return recording(case)["interactions"][0]["response"]["body"]["string"]


def used_by(case):
    """Tokens that the recording tells; of Anthropic's stream, its last event tells the output."""
    body = body_of(case)
    total = re.search(r'"total_tokens": (\d+)', body)
    if total:
        return int(total[1])
    inputs, outputs = (re.findall(rf'"{side}_tokens": (\d+)', body) for side in ("input", "output"))
    return int(inputs[-1]) + int(outputs[-1])


@pytest.mark.parametrize("case", [case for case in SUCCESSES if '"usage"' in body_of(case)])
def test_what_the_recorded_call_used_is_charged(case, clock):
    limiter = Limiter(quotas=[Quota("tokens", 10**6, YEARS)], clock=clock)
    transport = AdaptiveTransport(limiter, httpx2.HTTPTransport(verify=False))
    with replay(case), httpx2.Client(transport=transport) as http_client:
        read(case, client_for(case, http_client))
    (stated,) = [limit for limit in limiter.snapshot().buckets[0].limits if limit.source == "stated"]
    assert 10**6 - stated.remaining == pytest.approx(used_by(case))


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_sdk_is_observed_within_a_reservation_that_was_made_by_hand(library, limiter):
    case = "openai/200-rpd-reset-1h8m"
    with (
        replay(case) as cassette,
        observe_http(),
        library.Client(verify=False) as http_client,
        limiter.acquire("gpt-4o-mini"),
    ):
        assert read(case, client_for(case, http_client)) == "Hello!"
    assert cassette.play_count == 1
    assert learned(limiter) == sorted(told[:3] for told in LIMITS[case])


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_an_async_sdk_is_observed_within_a_reservation_that_was_made_by_hand(library, limiter):
    case = "openai/200-rpd-reset-1h8m"
    async with library.AsyncClient(verify=False) as http_client:
        with replay(case) as cassette, observe_http():
            async with await limiter.aacquire("gpt-4o-mini"):
                await ask(client_for(case, http_client), case)
    assert cassette.play_count == 1
    assert learned(limiter) == sorted(told[:3] for told in LIMITS[case])


# Refusals: what time cures is tried again when it is over, and the SDK's own pause does not cut it short


async def retried(cases, library, limiter, finish):
    """The SDK's answer after `cases`, the seconds until then, and the number of responses that it took."""
    transport = AsyncAdaptiveTransport(limiter, library.AsyncHTTPTransport(verify=False))
    async with library.AsyncClient(transport=transport) as http_client:
        with replay(*cases) as cassette:
            try:
                reply, seconds = await finish(ask(client_for(cases[0], http_client), cases[0]))
            except (openai.APIStatusError, anthropic.APIStatusError) as error:
                reply, seconds = error, limiter.clock.now()
    return reply, seconds, cassette.play_count


CURED = {  # a refusal, a success of the same provider, and the least and the most seconds between them
    "anthropic/429-input-tpm-body": ("anthropic/200-2024-fixed-window", 0.7, 2),
    "anthropic/429-requests-retry-after-7": ("anthropic/200-2024-fixed-window", 7, 7.5),
    "anthropic/529-overloaded": ("anthropic/200-2024-fixed-window", 1, 1.25),
    "azure-openai/429-apim-50s": ("azure-openai/200-2024-remaining-only", 50, 50.5),
    "azure-openai/429-retry-45": ("azure-openai/200-2024-remaining-only", 45, 45.5),
    "cerebras/429-tpm-text": ("cerebras/200-float-seconds", 0.7, 2),
    "github-models/429-minute": ("github-models/200-2025-shared-pool", 44, 44.5),
    "github-models/429-tokens-body": ("github-models/200-2025-shared-pool", 60, 60.5),
    "groq/429-tpm-59-977s": ("groq/200-50000rpd-refill", 59.977, 60.5),
    "mistral/429-message-only": ("mistral/200-req-10-second", 0.7, 2),
    "openai/503-envoy-text": ("openai/200-rpd-reset-1h8m", 1, 1.25),
}


@pytest.mark.parametrize(
    ("refusal", "library"),
    over(CURED),
)
async def test_an_sdk_s_retry_is_held_back_until_it_may_pass(refusal, library, limiter, finish):
    success, least, most = CURED[refusal]
    reply, seconds, sent = await retried([refusal, success], library, limiter, finish)
    assert text_of(reply) == "Hello!"
    assert least <= seconds <= most
    assert sent == 2
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)
    told = sorted(
        (limit.unit, limit.limit, limit.window) for limit in bucket.limits if limit.source == "told"
    )
    assert set(told) >= {limit[:3] for limit in LIMITS[success]}


# What no wait cures reaches the caller after one response, as the SDK's own error


@pytest.fixture
def two_hours_before_the_told_end(monkeypatch):
    now = datetime(2026, 8, 24, 21, 41, 44, tzinfo=timezone.utc).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.parametrize(
    ("case", "library"),
    over(FOR_GOOD),
)
async def test_an_sdk_gets_one_response_and_raises_it(
    case, library, limiter, finish, two_hours_before_the_told_end
):
    error, seconds, sent = await retried([case] * 3, library, limiter, finish)
    assert sent == 1
    assert isinstance(error, (openai.RateLimitError, anthropic.RateLimitError))
    assert error.status_code == 429
    assert seconds <= 2  # its own pauses, where only the second attempt meets the spent quota


@pytest.mark.parametrize("case", [case for case in FOR_GOOD if case in SPENT])
async def test_the_sdk_s_next_call_is_not_sent_and_says_when(
    case, limiter, finish, two_hours_before_the_told_end
):
    transport = AsyncAdaptiveTransport(limiter, httpx2.AsyncHTTPTransport(verify=False))
    async with httpx2.AsyncClient(transport=transport) as http_client:
        client = client_for(case, http_client).with_options(max_retries=0)
        with replay(case, case) as cassette:
            with pytest.raises(openai.RateLimitError):
                await finish(ask(client, case))
            with pytest.raises(CapacityExceededError) as refused:
                await finish(ask(client, case))
    assert cassette.play_count == 1
    assert refused.value.retry_after > limiter.max_pause
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (1, 0)


async def test_asking_for_a_batch_is_no_call(limiter):
    transport = AsyncAdaptiveTransport(limiter, httpx2.AsyncHTTPTransport(verify=False))
    case = "anthropic/200-batch-retry-after"
    async with httpx2.AsyncClient(transport=transport) as http_client:
        client = anthropic.AsyncAnthropic(api_key=KEY, http_client=http_client)
        with replay(case):
            batch = await client.messages.batches.retrieve("msgbatch_014ngZQ5mdZLgVmm4kicpsdk")
    assert batch.processing_status == "in_progress"
    assert limiter.snapshot().buckets == ()
