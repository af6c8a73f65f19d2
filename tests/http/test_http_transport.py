"""Transports: a client that uses one is limited with no other change."""

import asyncio
import gzip
import json
import threading
import time

import anthropic
import httpx
import httpx2
import openai
import pytest
from tests.garbage import collect

from adaptive_rate_limiter import CapacityExceededError, Limiter
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport, observe_http

CALL = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
USAGE = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
ANSWER = json.dumps({"usage": USAGE}).encode()
EVENTS = "text/event-stream"
PLENTY = {
    "requests_per_minute": 1000,
    "tokens_per_minute": 100_000,
    "algorithm": "fixed_window",
    "latency": 0.01,
}


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


SPOKEN = [event(choices=[{"delta": {"content": word}}]) for word in ("one", "two", "three")]
STREAM = [*SPOKEN, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


@pytest.fixture
def client(library, limiter):
    with library.Client(transport=AdaptiveTransport(limiter), timeout=10) as client:
        yield client


@pytest.fixture
async def async_client(library, limiter):
    async with library.AsyncClient(transport=AsyncAdaptiveTransport(limiter), timeout=10) as client:
        yield client


def test_a_call_is_settled_by_its_body(client, script, used):
    script(ANSWER)
    assert client.post(script.url + "/v1/x", json=CALL).json() == {"usage": USAGE}
    assert used() == {"requests": 1, "tokens": 100}


async def test_a_call_is_settled_by_its_body_in_async(async_client, script, used):
    script(ANSWER)
    assert (await async_client.post(script.url + "/v1/x", json=CALL)).json() == {"usage": USAGE}
    assert used() == {"requests": 1, "tokens": 100}


def test_a_response_that_is_there_as_a_whole_is_settled_at_once(library, limiter, used):
    """Nobody reads the stream of what a cache answers: its call stayed in flight until it was collected."""
    cache = library.MockTransport(lambda _: library.Response(200, content=ANSWER))
    with library.Client(transport=AdaptiveTransport(limiter, cache)) as client:
        response = client.post("http://provider.test/v1/x", json=CALL)
        assert used() == {"requests": 1, "tokens": 100}
        assert limiter.snapshot().buckets[0].in_flight == 0
        assert response.json() == {"usage": USAGE}


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_compressed_body_tells_its_usage(encoding, client, script, used):
    script(gzip.compress(ANSWER) if encoding == "gzip" else ANSWER, content_encoding=encoding)
    assert client.post(script.url, json=CALL).json() == {"usage": USAGE}
    assert used()["tokens"] == 100


def test_a_body_that_lies_about_its_encoding_is_the_clients_error(library, client, script, limiter):
    script(b"not compressed at all", content_encoding="gzip")
    with pytest.raises(library.DecodingError):
        client.post(script.url, json=CALL)
    assert limiter.snapshot().buckets[0].in_flight == 0


@pytest.mark.parametrize("compressed", [False, True])
def test_a_stream_is_settled_at_its_end(compressed, client, script, used):
    whole = b"".join(STREAM)
    if compressed:
        packed = gzip.compress(whole)
        script(packed[:20], packed[20:], content_type=EVENTS, content_encoding="gzip")
    else:
        script(*STREAM, content_type=EVENTS)
    with client.stream("POST", script.url, json=CALL) as response:
        assert b"".join(response.iter_bytes()) == whole
        assert used() == {"requests": 1, "tokens": 100}


async def test_a_stream_is_settled_at_its_end_in_async(async_client, script, used):
    script(*STREAM, content_type=EVENTS)
    async with async_client.stream("POST", script.url, json=CALL) as response:
        assert b"".join([chunk async for chunk in response.aiter_bytes()]) == b"".join(STREAM)
        assert used() == {"requests": 1, "tokens": 100}


def test_no_byte_is_delayed(client, script):
    """The first piece is here before the server makes the second."""
    rest = threading.Event()
    script(SPOKEN[0], rest, *STREAM[1:], content_type=EVENTS)
    with client.stream("POST", script.url, json=CALL) as response:
        pieces = response.iter_raw()
        assert next(pieces) == SPOKEN[0]
        assert len(script.given) == 1
        rest.set()
        assert b"".join(pieces) == b"".join(STREAM[1:])


async def test_no_byte_is_delayed_in_async(async_client, script):
    rest = threading.Event()
    script(SPOKEN[0], rest, *STREAM[1:], content_type=EVENTS)
    async with async_client.stream("POST", script.url, json=CALL) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == SPOKEN[0]
        assert len(script.given) == 1
        rest.set()
        assert b"".join([piece async for piece in pieces]) == b"".join(STREAM[1:])


@pytest.mark.parametrize("ending", ["close", "unread"])
def test_leaving_a_stream_ends_the_call_and_keeps_it_charged(ending, client, script, limiter, used):
    rest = threading.Event()
    script(SPOKEN[0], rest, *STREAM[1:], content_type=EVENTS)
    with client.stream("POST", script.url, json=CALL) as response:
        if ending == "close":
            pieces = response.iter_raw()
            next(pieces)
        assert limiter.snapshot().buckets[0].in_flight == 1
    rest.set()
    assert used()["requests"] == 1
    assert used()["tokens"] > 0


async def test_a_task_cancelled_in_a_stream_ends_the_call(async_client, script, limiter, used):
    rest = threading.Event()
    script(SPOKEN[0], rest, content_type=EVENTS)
    begun = asyncio.Event()

    async def read():
        async with async_client.stream("POST", script.url, json=CALL) as response:
            async for _ in response.aiter_raw():
                begun.set()

    task = asyncio.ensure_future(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rest.set()
    assert used()["requests"] == 1


def test_a_response_that_is_dropped_ends_the_call(library, script, limiter):
    script(ANSWER)
    transport = AdaptiveTransport(limiter)
    response = transport.handle_request(library.Request("POST", script.url, json=CALL))
    inner = response.stream._stream
    del response
    collect()
    limiter.acquire("other").cancel()
    bucket = next(b for b in limiter.snapshot().buckets if "other" not in b.bucket_id)
    _wait_for(
        lambda: next(b for b in limiter.snapshot().buckets if b.bucket_id == bucket.bucket_id).in_flight == 0
    )
    inner.close()
    transport.close()


def _wait_for(true):
    while not true():
        time.sleep(0.002)


def test_anthropics_first_event_is_not_the_usage(client, script, limiter, used):
    """It counts one token of the answer; a stream that breaks there keeps what was reserved for the rest."""
    start = event(type="message_start", message={"usage": {"input_tokens": 50, "output_tokens": 1}})
    script(start, content_type=EVENTS)
    client.post(script.url + "/v1/messages", json=CALL | {"max_tokens": 200})
    assert used()["tokens"] >= 150


def test_an_error_passes_unchanged(client, script, used):
    script(b'{"error": {"message": "nope"}}', status=500, x_mine="yes")
    response = client.post(script.url, json=CALL)
    assert (response.status_code, response.headers["x-mine"]) == (500, "yes")
    assert response.json() == {"error": {"message": "nope"}}
    assert used()["requests"] == 1


def test_a_failed_connection_passes_and_gives_back(library, client, closed_port, used):
    with pytest.raises(library.ConnectError):
        client.post(closed_port, json=CALL)
    assert used() == {"requests": 0, "tokens": 0}


async def test_a_failed_connection_passes_and_gives_back_in_async(library, async_client, closed_port, used):
    with pytest.raises(library.ConnectError):
        await async_client.post(closed_port, json=CALL)
    assert used() == {"requests": 0, "tokens": 0}


def test_a_get_is_not_limited(client, script, limiter):
    script(ANSWER)
    client.get(script.url)
    assert limiter.snapshot().buckets == ()


async def test_a_get_is_not_limited_in_async(async_client, script, limiter):
    script(ANSWER)
    await async_client.get(script.url)
    assert limiter.snapshot().buckets == ()


def test_a_call_that_may_not_wait_is_refused_before_it_is_sent(library, script):
    script(ANSWER)
    limiter = Limiter(quotas=[{"unit": "requests", "limit": 1, "window": 100}], max_wait=0.2)
    with library.Client(transport=AdaptiveTransport(limiter)) as client:
        client.post(script.url, json=CALL)
        with pytest.raises(CapacityExceededError):
            client.post(script.url, json=CALL)
    assert len(script.seen) == 1


def test_a_reservation_of_ones_own_counts_once(library, client, script, limiter, used):
    script(ANSWER)
    with observe_http(), limiter.acquire("m", tokens=500):
        client.post(script.url, json=CALL)
    assert used() == {"requests": 1, "tokens": 100}


def test_the_transport_below_is_used_and_closed(library, limiter):
    class Below(library.MockTransport):
        closed = False

        def close(self):
            self.closed = True

    below = Below(lambda request: library.Response(200, content=ANSWER))
    with library.Client(transport=AdaptiveTransport(limiter, below)) as client:
        assert client.post("http://nowhere", json=CALL).content == ANSWER
    assert below.closed


def test_a_body_that_is_no_json_counts_one_request(client, script, used):
    script(b"fine")
    client.post(script.url, content=b"\x00\x01")
    assert used() == {"requests": 1, "tokens": 0}


OPENAI = {"openai on httpx": httpx, "openai on httpx2": httpx2}
if issubclass(openai.DefaultHttpxClient, httpx.Client):  # before 3.0 it knew no httpx2
    del OPENAI["openai on httpx2"]


@pytest.mark.parametrize("sdk", OPENAI)
def test_openai_is_paced(sdk, provider_emulator):
    emulator = provider_emulator("azure", requests_per_minute=8, window=1.0, latency=0.01)
    limiter = Limiter()
    started = time.monotonic()
    with openai.OpenAI(
        api_key="k",
        base_url=emulator.url + "/v1",
        http_client=OPENAI[sdk].Client(transport=AdaptiveTransport(limiter)),
    ) as client:
        for _ in range(14):
            client.chat.completions.create(**CALL)
    assert emulator.stats().refused == 0
    assert time.monotonic() - started >= 0.6


@pytest.mark.parametrize("sdk", OPENAI)
async def test_openai_streams_in_async(sdk, provider_emulator, limiter, used):
    emulator = provider_emulator(**PLENTY)
    http = OPENAI[sdk].AsyncClient(transport=AsyncAdaptiveTransport(limiter))
    async with openai.AsyncOpenAI(api_key="k", base_url=emulator.base_url, http_client=http) as client:
        stream = await client.chat.completions.create(
            **CALL, stream=True, stream_options={"include_usage": True}
        )
        told = [chunk.usage async for chunk in stream if chunk.usage]
    assert told[0].total_tokens <= 2 + 20
    assert used() == {
        "requests": 1,
        "tokens": pytest.approx(2 + 20, abs=2),
    }  # max_tokens is kept: OpenAI's habit


def test_openais_embeddings_and_responses(provider_emulator, limiter, used):
    emulator = provider_emulator(**PLENTY)
    http = httpx.Client(transport=AdaptiveTransport(limiter))
    with openai.OpenAI(api_key="k", base_url=emulator.base_url, http_client=http) as client:
        client.embeddings.create(model="m", input=["word" * 100])
        assert used() == {"requests": 1, "tokens": 100}
        client.responses.create(model="m", input="word" * 100, max_output_tokens=30)
        assert used() == {"requests": 2, "tokens": 230}


def test_anthropic_is_settled_by_its_usage(provider_emulator, limiter, used):
    emulator = provider_emulator("anthropic", output_tokens=12, **PLENTY)
    library = httpx if issubclass(anthropic.DefaultHttpxClient, httpx.Client) else httpx2
    http = library.Client(transport=AdaptiveTransport(limiter))
    with anthropic.Anthropic(api_key="k", base_url=emulator.base_url, http_client=http) as client:
        client.messages.create(**CALL)
        one = used()["tokens"]
        with client.messages.stream(**CALL) as stream:
            assert stream.get_final_text()
    assert one == 2 + 12
    assert used() == {"requests": 2, "tokens": 2 * one}


def test_a_refusal_that_no_wait_cures_is_tried_once(script):
    script(
        b'{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}', status=429
    )
    http = httpx.Client(transport=AdaptiveTransport())
    with (
        openai.OpenAI(api_key="k", base_url=script.url, http_client=http) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.chat.completions.create(**CALL)
    assert len(script.seen) == 1


async def test_many_tasks_are_paced(provider_emulator):
    emulator = provider_emulator("azure", requests_per_minute=40, window=1.0, latency=0.01)
    async with httpx.AsyncClient(transport=AsyncAdaptiveTransport(), timeout=10) as client:
        url = emulator.url + "/v1/chat/completions"
        await client.post(url, json=CALL)
        replies = await asyncio.gather(*(client.post(url, json=CALL) for _ in range(70)))
    assert sum(reply.status_code == 429 for reply in replies) <= 1
