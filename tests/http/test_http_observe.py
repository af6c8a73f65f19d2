"""Observation: installed once, taken out exactly, silent outside a reservation."""

import asyncio
import itertools
import json
import threading
import time
from types import SimpleNamespace

import anthropic
import httpx
import httpx2
import openai
import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter
from adaptive_rate_limiter.http import observe_http
from adaptive_rate_limiter.http.exchange import exchange_of
from adaptive_rate_limiter.http.trace import written
from adaptive_rate_limiter.reservation import current_reservation

CLIENTS = [httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient]
CALL = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TOLD = {
    "x_ratelimit_limit_requests": "500",
    "x_ratelimit_remaining_requests": "499",
    "x_ratelimit_reset_requests": "120ms",
}
ANSWER = json.dumps({"usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}}).encode()
OK = json.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100},
    }
).encode()  # fmt: skip


@pytest.fixture
def observed():
    with observe_http() as observation:
        yield observation


@pytest.fixture
def unobserved(monkeypatch):
    """Whatever other tests left installed for good is out of the way."""
    from adaptive_rate_limiter.http import observe

    for client, (original, _) in observe._wrapped.items():
        monkeypatch.setattr(client, "send", original)
    monkeypatch.setattr(observe, "_wrapped", {})
    monkeypatch.setattr(observe, "_observers", 0)


def test_it_is_taken_out_exactly_when_the_last_one_stops(unobserved):
    before = [vars(client)["send"] for client in CLIENTS]
    first, second = observe_http(), observe_http()
    wrapped = [vars(client)["send"] for client in CLIENTS]
    assert not set(before) & set(wrapped)
    first.stop()
    first.stop()
    assert [vars(client)["send"] for client in CLIENTS] == wrapped
    second.stop()
    assert [vars(client)["send"] for client in CLIENTS] == before


def test_it_is_installed_once(unobserved):
    with observe_http():
        once = httpx.Client.send
        with observe_http():
            assert httpx.Client.send is once


def test_a_wrapper_around_ours_survives(unobserved, script, limiter):
    script(OK)
    original = httpx.Client.send
    with observe_http():
        ours = httpx.Client.send

        def theirs(self, request, **options):
            return ours(self, request, **options)

        httpx.Client.send = theirs
    try:
        assert httpx.Client.send is theirs
        with limiter.acquire("m") as reservation, httpx.Client() as client:
            client.post(script.url, json=CALL)
            assert reservation.sends == 0  # nobody observes any more
    finally:
        httpx.Client.send = original


def test_it_does_nothing_outside_a_reservation(observed, library, script):
    script(ANSWER, status=429, retry_after="70000")
    with library.Client() as client:
        response = client.post(script.url + "/v1/chat/completions", json=CALL)
    assert response.status_code == 429
    assert "x-should-retry" not in response.headers


def test_limits_and_usage_are_learned(observed, library, script, limiter, used):
    script(ANSWER, **TOLD)
    with limiter.acquire("m", tokens=2000) as reservation, library.Client() as client:
        client.post(script.url + "/x", json=CALL)
    assert reservation.closed
    assert used() == {"requests": 1, "tokens": 100}
    (bucket,) = limiter.snapshot().buckets
    assert [limit.limit for limit in bucket.limits if limit.source == "told"] == [500]


async def test_limits_and_usage_are_learned_in_async(observed, library, script, limiter, used):
    script(ANSWER, **TOLD)
    async with await limiter.aacquire("m", tokens=2000), library.AsyncClient() as client:
        await client.post(script.url + "/x", json=CALL)
    assert used() == {"requests": 1, "tokens": 100}


STREAM = [
    b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": 30}}\n\ndata: [DONE]\n\n',
]
EVENTS = {"content_type": "text/event-stream"}


def test_the_usage_of_a_stream_is_read_at_its_end(observed, library, script, limiter, used):
    rest = threading.Event()
    script(STREAM[0], rest, STREAM[1], **EVENTS)
    with (
        limiter.acquire("m", tokens=2000),
        library.Client() as client,
        client.stream("POST", script.url, json=CALL) as response,
    ):
        pieces = response.iter_raw()
        assert next(pieces) == STREAM[0]
        assert len(script.given) == 1  # the rest does not exist yet
        rest.set()
        assert b"".join(pieces) == STREAM[1]
    assert used() == {"requests": 1, "tokens": 100}


async def test_the_usage_of_a_stream_is_read_at_its_end_in_async(observed, library, script, limiter, used):
    script(*STREAM, **EVENTS)
    async with (
        await limiter.aacquire("m", tokens=2000),
        library.AsyncClient() as client,
        client.stream("POST", script.url, json=CALL) as response,
    ):
        assert [piece async for piece in response.aiter_bytes()]
    assert used() == {"requests": 1, "tokens": 100}


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_is_left_stays_charged(observed, library, script, limiter, used, read):
    rest = threading.Event()
    script(STREAM[0], rest, STREAM[1], **EVENTS)
    with (
        limiter.acquire("m", tokens=2000),
        library.Client() as client,
        client.stream("POST", script.url, json=CALL) as response,
    ):
        assert len(list(itertools.islice(response.iter_raw(), read))) == read
    rest.set()
    assert used() == {"requests": 1, "tokens": 2000}


async def test_openais_stream_is_settled_by_its_usage(observed, provider_emulator, limiter, used):
    emulator = provider_emulator("groq", latency=0.01)
    async with (
        openai.AsyncOpenAI(api_key="k", base_url=emulator.base_url) as client,
        await limiter.aacquire("m", tokens=2000),
    ):
        stream = await client.chat.completions.create(
            **CALL, stream=True, stream_options={"include_usage": True}
        )
        told = [chunk.usage async for chunk in stream if chunk.usage]
    assert used() == {"requests": 1, "tokens": told[-1].total_tokens}


def test_what_was_settled_by_hand_stays(observed, library, script, limiter, used):
    script(ANSWER)
    with limiter.acquire("m", tokens=2000) as reservation, library.Client() as client:
        client.post(script.url + "/x", json=CALL)
        reservation.settle(tokens=500)
    assert used() == {"requests": 1, "tokens": 500}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_no_call(observed, library, script, limiter, method):
    script(status=500)
    with limiter.acquire("m") as reservation, library.Client() as client:
        client.request(method, script.url) if method != "HEAD" else None
        assert reservation.sends == 0


def test_asking_for_an_access_token_is_no_call(observed, library, script, limiter):
    script(ANSWER)
    with limiter.acquire("m") as reservation, library.Client() as client:
        client.post(script.url + "/oauth", data={"grant_type": "client_credentials"})
        assert reservation.sends == 0
        client.post(script.url + "/x", json=CALL)
        assert reservation.sends == 1


@pytest.mark.parametrize("plain", [False, True])
def test_a_credential_is_found_under_any_name_however_the_library_keeps_its_headers(plain, library, limiter):
    for name in ("Authorization", "X-API-Key", "api-key", "x-Goog-Api-Key"):
        request = library.Request("POST", "http://host/v1/x", headers={name: f"key of {name}"}, json=CALL)
        if plain:
            request.headers = SimpleNamespace(raw=request.headers.raw)
        with limiter.acquire(name) as reservation:
            exchange_of(request).begin(written)
            assert reservation.bucket.origin[0] == "host"
            assert reservation.bucket.origin[1]


def test_another_host_after_the_answer_is_no_call(observed, library, script, limiter):
    script(ANSWER)
    with limiter.acquire("m") as reservation, library.Client() as client:
        client.post(script.url + "/x", json=CALL)
        client.post(script.url.replace("127.0.0.1", "localhost") + "/log", json={})
        assert reservation.sends == 1


def test_a_connection_that_never_was_gives_the_hold_back(observed, library, closed_port, limiter, used):
    with limiter.acquire("m", tokens=2000), library.Client() as client, pytest.raises(library.ConnectError):
        client.post(closed_port, json=CALL)
    assert used() == {"requests": 0, "tokens": 0}


async def test_a_connection_that_never_was_gives_the_hold_back_in_async(
    observed, library, closed_port, limiter, used
):
    async with await limiter.aacquire("m", tokens=2000), library.AsyncClient() as client:
        with pytest.raises(library.ConnectError):
            await client.post(closed_port, json=CALL)
    assert used() == {"requests": 0, "tokens": 0}


@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize("tries", [1, 2])
def test_a_read_timeout_keeps_each_attempt_charged(library, provider_emulator, limiter, used, tries):
    emulator = provider_emulator(latency=5.0)
    with limiter.acquire("m", tokens=2000), library.Client(timeout=0.15) as client:
        for _ in range(tries):
            with pytest.raises(library.ReadTimeout):
                client.post(emulator.base_url + "/chat/completions", json=CALL)
    assert used() == {"requests": tries, "tokens": 2000 * tries}


def test_a_second_attempt_is_admitted_again(observed, library, script, limiter, used):
    script(b"{}", status=503)
    with limiter.acquire("m", tokens=100), library.Client() as client:
        script.answers.append((200, {}, (ANSWER,)))
        assert client.post(script.url, json=CALL).status_code == 503
        assert client.post(script.url, json=CALL).status_code == 200
    (bucket,) = [bucket for bucket in limiter.snapshot().buckets if bucket.admitted]
    assert (bucket.admitted, bucket.in_flight) == (2, 0)


def test_who_readmits_by_hand_is_not_admitted_twice(observed, library, script, limiter):
    script(b"{}", status=503)
    with limiter.acquire("m", tokens=100) as reservation, library.Client() as client:
        script.answers.append((200, {}, (ANSWER,)))
        refusal = client.post(script.url, json=CALL)
        reservation.observe(refusal.status_code, refusal.headers, refusal.text)
        reservation.readmit()
        assert client.post(script.url, json=CALL).status_code == 200
    (bucket,) = [bucket for bucket in limiter.snapshot().buckets if bucket.admitted]
    assert (bucket.admitted, bucket.in_flight) == (2, 0)


def test_a_retry_that_may_not_wait_returns_the_last_refusal(observed, library, script):
    script(b'{"error": "slow down"}', status=429, retry_after="0.01")
    limiter = Limiter(quotas=[{"unit": "requests", "limit": 1, "window": 100}], max_wait=0.2)
    with limiter.acquire("m"), library.Client() as client:
        first = client.post(script.url, json=CALL)
        again = client.post(script.url, json=CALL)
    assert again.status_code == 429
    assert again.headers["x-should-retry"] == "false"
    assert again.json() == first.json()
    assert len(script.seen) == 1


def test_without_a_refusal_to_return_ours_is_raised(observed, library, script):
    script(b"{}")
    limiter = Limiter(quotas=[{"unit": "requests", "limit": 1, "window": 100}], max_wait=0.2)
    with limiter.acquire("m"), library.Client() as client:
        client.post(script.url, json=CALL)
        with pytest.raises(CapacityExceededError):
            client.post(script.url, json=CALL)


def test_the_body_of_a_streamed_refusal_is_still_there(observed, library, script, limiter):
    script(b'{"error": {"message": "Rate limit reached"}}', status=429, retry_after="1")
    with (
        limiter.acquire("m"),
        library.Client() as client,
        client.stream("POST", script.url, json=CALL) as response,
    ):
        assert response.json()["error"]["message"] == "Rate limit reached"
        assert b"".join(response.iter_bytes())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b"null", b'{"error": 1e999}'])
def test_strange_bodies_pass_unchanged(observed, library, script, limiter, body):
    script(body, status=429)
    with limiter.acquire("m"), library.Client() as client:
        assert client.post(script.url, json=CALL).content == body


def test_threads_share_nothing(observed, library, script, limiter):
    script(ANSWER)
    with limiter.acquire("m") as reservation:

        async def elsewhere():
            async with library.AsyncClient() as client:
                assert current_reservation.get() is reservation
                await client.post(script.url, json=CALL)

        def in_a_thread():
            with library.Client() as client:
                client.post(script.url, json=CALL)

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        assert reservation.sends == 0
        asyncio.run(elsewhere())
        assert reservation.sends == 1


def test_openais_retries_are_admitted(observed, provider_emulator):
    emulator = provider_emulator("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    limiter = Limiter()
    with openai.OpenAI(api_key="k", base_url=emulator.base_url) as client:
        client.chat.completions.create(**CALL)  # takes the limit; nobody was told
        started = time.monotonic()
        with limiter.acquire("m"):
            client.chat.completions.create(**CALL)
    assert emulator.stats().refused == 1
    assert 0.5 < time.monotonic() - started < 3
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.refused, bucket.in_flight) == (2, 1, 0)


async def test_openais_retries_are_admitted_in_async(observed, provider_emulator):
    emulator = provider_emulator("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    limiter = Limiter()
    async with openai.AsyncOpenAI(api_key="k", base_url=emulator.base_url) as client:
        await client.chat.completions.create(**CALL)
        async with await limiter.aacquire("m"):
            await client.chat.completions.create(**CALL)
    assert emulator.stats().refused == 1


def test_anthropics_retries_are_admitted(observed, script):
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [], "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip
    script(b'{"type": "error", "error": {"type": "overloaded_error"}}', status=529, retry_after_ms="30")
    script(json.dumps(message).encode())
    limiter = Limiter()
    with anthropic.Anthropic(api_key="k", base_url=script.url) as client, limiter.acquire("m"):
        client.messages.create(**CALL, max_tokens=5)
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.refused, bucket.in_flight) == (2, 1, 0)


@pytest.mark.parametrize("fault", ["drop_before", 500])
def test_a_broken_connection_is_tried_again_after_admission(observed, provider_emulator, fault):
    emulator = provider_emulator(faults=[fault])
    limiter = Limiter()
    with openai.OpenAI(api_key="k", base_url=emulator.base_url) as client, limiter.acquire("m"):
        client.chat.completions.create(**CALL)
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (2, 0)
