"""The SDKs of the providers, unchanged but for the transport: limited, settled, and not delayed by a byte."""

import inspect
import os
import sys
import threading

import httpx
import pytest
from tests.sdks.clients import BOUND, INPUT, MODEL, OUTPUT, SDKS, TEXT

from adaptive_rate_limiter import CapacityExceededError, ConfigurationError, Limiter
from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport

REAL = {"requests": 1, "tokens": INPUT + OUTPUT}


@pytest.mark.skipif("COMPAT" in os.environ or sys.version_info < (3, 11), reason="not all can be installed")
def test_every_sdk_is_here():
    assert len(SDKS) == 9


@pytest.fixture(params=SDKS.values(), ids=SDKS.keys())
def sdk(request):
    return request.param


@pytest.fixture
def client(sdk, wire, limiter):
    with AdaptiveTransport(limiter) as transport:
        yield sdk.client(wire.url, transport)


@pytest.fixture
async def async_client(sdk, wire, limiter):
    async with AsyncAdaptiveTransport(limiter) as transport:
        yield sdk.async_client(wire.url, transport)


async def _astream(sdk, client):
    """Some SDKs return the stream, others a coroutine that does."""
    stream = sdk.ask_stream(client)
    return await stream if inspect.isawaitable(stream) else stream


def _was_known_from_the_request(sdk, wire, books):
    ((path, _),) = wire.asked
    assert path.startswith(sdk.path)
    assert MODEL in books.bucket.bucket_id
    (reserved,) = wire.reserved
    assert reserved["requests"] == 1
    assert BOUND <= reserved["tokens"] <= BOUND + 50


def _raised(call):
    """Each SDK has its own errors, and some have none."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - of any kind
        return error
    return None


def test_a_call(sdk, client, wire, books):
    wire.answers(sdk.answer)
    assert sdk.read(sdk.ask(client)) == TEXT
    _was_known_from_the_request(sdk, wire, books)
    assert books.settled() == REAL


async def test_a_call_in_async(sdk, async_client, wire, books):
    wire.answers(sdk.answer)
    assert sdk.read(await sdk.ask(async_client)) == TEXT
    _was_known_from_the_request(sdk, wire, books)
    assert books.settled() == REAL


def test_a_stream_comes_as_it_is_written_and_is_settled_at_its_end(sdk, client, wire, books):
    rest = threading.Event()
    first = next(at for at, chunk in enumerate(sdk.stream, 1) if b"one" in chunk)
    wire.answers(*sdk.stream[:first], rest, *sdk.stream[first:], content_type=sdk.stream_type)
    pieces = filter(None, map(sdk.piece, sdk.ask_stream(client)))
    said = next(pieces)
    assert said == "one "
    assert wire.written == first  # the rest does not exist yet
    assert books.used()["tokens"] >= BOUND
    rest.set()
    assert said + "".join(pieces) == TEXT
    _was_known_from_the_request(sdk, wire, books)
    assert books.settled() == REAL


async def test_a_stream_in_async(sdk, async_client, wire, books):
    rest = threading.Event()
    first = next(at for at, chunk in enumerate(sdk.stream, 1) if b"one" in chunk)
    wire.answers(*sdk.stream[:first], rest, *sdk.stream[first:], content_type=sdk.stream_type)
    said = ""
    async for part in await _astream(sdk, async_client):
        if not said and sdk.piece(part):
            assert sdk.piece(part) == "one "
            assert wire.written == first
            assert books.used()["tokens"] >= BOUND
            rest.set()
        said += sdk.piece(part)
    assert said == TEXT
    _was_known_from_the_request(sdk, wire, books)
    assert books.settled() == REAL


def test_a_stream_cut_in_the_middle_stays_charged(sdk, client, wire, books):
    """The SDK says so in its own way, and nothing is in flight any more."""
    cut = next(at for at, chunk in enumerate(sdk.stream, 1) if b"one" in chunk)
    wire.answers(*sdk.stream[:cut], content_type=sdk.stream_type)
    wire.cut = True
    with pytest.raises(Exception, match=r"(?i)incomplete|closed|connection|peer"):
        list(sdk.ask_stream(client))
    assert books.settled()["requests"] == 1


async def test_a_stream_cut_in_the_middle_stays_charged_in_async(sdk, async_client, wire, books):
    cut = next(at for at, chunk in enumerate(sdk.stream, 1) if b"one" in chunk)
    wire.answers(*sdk.stream[:cut], content_type=sdk.stream_type)
    wire.cut = True
    with pytest.raises(Exception, match=r"(?i)incomplete|closed|connection|peer"):
        [part async for part in await _astream(sdk, async_client)]
    assert books.settled()["requests"] == 1


def test_a_reply_that_is_no_json_is_the_sdks_to_judge(sdk, client, wire, books):
    wire.answers(b"<html>gateway</html>")
    assert not isinstance(_raised(lambda: sdk.read(sdk.ask(client))), CapacityExceededError)
    assert len(wire.asked) == 1
    assert books.settled()["tokens"] >= BOUND  # no usage was told: what was reserved stays charged


def test_a_refusal_is_the_sdks_own_error(sdk, client, wire, books):
    wire.answers(
        b'{"error": {"message": "Rate limit reached"}, "message": "no"}', status=429, retry_after="1"
    )
    with pytest.raises(Exception) as raised:
        sdk.ask(client)
    assert not isinstance(raised.value, CapacityExceededError)
    assert "429" in f"{raised.value} {vars(raised.value)}"
    assert books.bucket.refused >= 1
    assert books.bucket.in_flight == 0


@pytest.fixture
def spent():
    """One call is all there is, and nobody may wait for more."""
    return Limiter(quotas=[{"unit": "requests", "limit": 1, "window": 100}], max_wait=0.2)


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_a_call_that_may_not_wait_is_not_sent(sdk, wire, spent):
    """The limiter's error, or the SDK's with that as its cause."""
    wire.answers(sdk.answer)
    with AdaptiveTransport(spent) as transport:
        client = sdk.client(wire.url, transport)
        sdk.ask(client)
        with pytest.raises(Exception) as raised:
            sdk.ask(client)
    (ours, *_) = [cause for cause in _causes(raised.value) if isinstance(cause, CapacityExceededError)]
    assert ours.retry_after > 50
    assert len(wire.asked) == 1


async def test_an_async_client_on_the_sync_transport_is_told_so(sdk, wire, limiter):
    with AdaptiveTransport(limiter) as transport, pytest.raises(Exception) as raised:
        await sdk.ask(sdk.async_client(wire.url, transport))
    said = " ".join(str(cause) for cause in _causes(raised.value))
    assert "transport must be AsyncAdaptiveTransport() for httpx" in said
    assert "got AdaptiveTransport()" in said
    assert limiter.snapshot().buckets == ()


async def test_a_sync_client_on_the_async_transport_is_told_so(sdk, wire, limiter):
    async with AsyncAdaptiveTransport(limiter) as transport:
        with pytest.raises(Exception) as raised:
            sdk.ask(sdk.client(wire.url, transport))
    said = " ".join(str(cause) for cause in _causes(raised.value))
    assert "transport must be AdaptiveTransport() for httpx" in said


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptiveTransport("redis"), "limiter must be a Limiter, got 'redis'"),
        (lambda: AdaptiveTransport(transport=AdaptiveTransport()), "transport is limited already"),
        (lambda: AsyncAdaptiveTransport(transport=AsyncAdaptiveTransport()), "transport is limited already"),
        (lambda: AdaptiveTransport(transport=httpx.AsyncHTTPTransport()), "must have handle_request"),
        (lambda: AsyncAdaptiveTransport(transport=httpx.HTTPTransport()), "must have handle_async_request"),
        (lambda: AdaptiveTransport(transport="http://proxy"), "transport .* got 'http://proxy'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()
