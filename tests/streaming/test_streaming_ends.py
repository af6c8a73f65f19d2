"""A stream's reservation ends exactly once, whatever ends the stream, and is charged by what was told until then."""

import asyncio
import contextlib
import weakref

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import Limiter, RateLimitedAsyncIterator, StreamingReservationContext
from adaptive_rate_limiter.reservation import current_reservation
from adaptive_rate_limiter.streaming import is_stream, wrap
from adaptive_rate_limiter.testing import FakeClock

RESERVED = 1000
USAGE = {"usage": {"prompt_tokens": 20, "completion_tokens": 22, "total_tokens": 42}}


class Stream:
    """An SDK's stream: chunks, an error at the end perhaps, attributes of its own."""

    def __init__(self, *chunks, error=None):
        self.chunks = list(chunks)
        self.error = error
        self.response = "the response"
        self.closed = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.chunks:
            chunk = self.chunks.pop(0)
            if chunk == "forever":
                await asyncio.Event().wait()
            return chunk
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def close(self):
        self.closed += 1


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def limiter(clock):
    return Limiter(quotas={"tokens": 10_000, "requests": 100}, clock=clock)


@pytest.fixture
def opened(limiter):
    """A stream in a limiter's reservation; the list gets what its callbacks were told."""

    def opened(stream, **callbacks):
        reservation = limiter.acquire("m", tokens=RESERVED)
        context = StreamingReservationContext("res-1", "m", "req-1", RESERVED, reservation, **callbacks)
        return RateLimitedAsyncIterator(stream, context)

    return opened


@pytest.fixture
def charged(limiter, clock):
    def charged():
        clock.advance(0)  # what the garbage collector put off
        (bucket,) = limiter.snapshot().buckets
        assert bucket.in_flight == 0
        return 10_000 - next(limit.remaining for limit in bucket.limits if limit.unit == "tokens")

    return charged


async def read_all(stream):
    return [chunk async for chunk in stream]


async def read_one(stream):
    return await anext(stream)


async def drop(stream):
    await read_one(stream)


async def never(stream):
    pass


async def close(stream):
    await read_one(stream)
    await stream.aclose()
    await stream.close()


async def leave(stream):
    async with stream as same:
        assert same is stream
        await read_one(stream)


async def break_off(stream):
    async for _ in stream:
        break
    await stream.aclose()


async def fail(stream):
    async def reader():
        async with stream:
            async for _ in stream:
                raise KeyError

    with pytest.raises(KeyError):
        await reader()


async def cancel(stream):
    await read_one(stream)
    task = asyncio.create_task(read_all(stream))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def time_out(stream):
    await read_one(stream)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read_one(stream), 0.01)


ENDS = [drop, never, close, leave, break_off, fail, cancel, time_out]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize(
    ("first", "cost"),
    [
        ("a chunk", RESERVED),  # nothing was told: it stays charged
        (USAGE, 42),
    ],
)
async def test_every_end_that_breaks_off(opened, charged, end, first, cost):
    failures = []
    stream = opened(Stream(first, "forever"), error_metrics_callback=failures.append)
    await end(stream)
    if end is never:
        cost = RESERVED
    del stream
    collect()
    assert charged() == cost
    assert failures == ["m"]


async def test_the_end(opened, charged):
    reports = []
    stream = opened(Stream("a", "b", USAGE), metrics_callback=lambda *told: reports.append(told))
    assert await read_all(stream) == ["a", "b", USAGE]
    assert await read_all(stream) == []
    await stream.aclose()
    assert charged() == 42
    ((reserved, used, told, bucket, seconds),) = reports
    assert (reserved, used, told, bucket) == (RESERVED, 42, True, "m")
    assert seconds >= 0


async def test_the_end_of_a_stream_that_told_nothing(opened, charged):
    reports = []
    await read_all(opened(Stream("a"), metrics_callback=lambda *told: reports.append(told)))
    assert charged() == RESERVED
    assert reports[0][:3] == (RESERVED, RESERVED, False)


async def test_an_error_of_the_stream(opened, charged):
    with pytest.raises(ConnectionError):
        await read_all(opened(Stream("a", error=ConnectionError())))
    assert charged() == RESERVED


async def test_a_refusal_within_the_stream_is_learned(opened, limiter):
    error = ConnectionError()
    error.status_code, error.headers = 429, {"retry-after": "30"}
    with pytest.raises(ConnectionError):
        await read_all(opened(Stream("a", error=error)))
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.paused_for, bucket.in_flight) == (1, 30.0, 0)


async def test_more_than_was_reserved_is_charged(opened, charged):
    await read_all(opened(Stream({"usage": {"total_tokens": 5000}})))
    assert charged() == 5000


@pytest.mark.parametrize(
    ("usages", "to_the_end", "cost"),
    [
        ((10, 20, 30), True, 30),
        ((10, 20, 30), False, RESERVED),  # so far: more may have been used
        ((10, 2000), False, 2000),
        ((10,), False, 10),
    ],
)
async def test_usage_that_is_told_again_and_again(opened, charged, usages, to_the_end, cost):
    stream = opened(Stream(*({"usage": {"total_tokens": total}} for total in usages)))
    for _ in usages:
        await anext(stream)
    await (read_all(stream) if to_the_end else stream.aclose())
    assert charged() == cost


async def test_an_abandoned_stream_takes_no_lock(opened, limiter, charged):
    """The garbage collector may come while the bucket is locked, even by another thread."""
    stream = opened(Stream(USAGE))
    await anext(stream)
    (bucket,) = limiter._backend.buckets("")
    await asyncio.to_thread(bucket._lock.acquire)
    del stream
    collect()
    assert bucket.bucket.concurrency.in_flight == 1
    bucket._lock = type(bucket._lock)()
    assert charged() == 42


async def test_inner_stream_is_closed(opened):
    inner = Stream("a", "b")
    stream = opened(inner)
    await stream.aclose()
    assert inner.closed == 1


async def test_a_stream_that_cannot_be_closed_ends_all_the_same(opened, charged):
    class Bare:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return "a chunk"

    stream = opened(Bare())
    async with stream:
        await anext(stream)
    assert charged() == RESERVED


async def test_a_generator_is_closed(opened):
    closed = []

    async def chunks():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    stream = opened(chunks())
    await anext(stream)
    await stream.aclose()
    assert closed == [True]


async def test_an_inner_context_is_entered_and_left(opened):
    steps = []

    class Session(Stream):
        async def __aenter__(self):
            steps.append("in")
            return self

        async def __aexit__(self, kind, error, trace):
            steps.append(kind)

    async with opened(Session("a")) as stream:
        await read_all(stream)
    assert steps == ["in", None]


async def test_chunks_are_not_kept(opened):
    class Chunk:
        pass

    stream = opened(Stream(Chunk(), Chunk(), Chunk()))
    seen = [weakref.ref(chunk) async for chunk in stream]
    collect()
    assert [chunk() for chunk in seen] == [None] * 3


async def test_attributes_of_the_stream_stay_reachable(opened):
    stream = opened(Stream("a"))
    assert stream.response == "the response"
    assert stream.context.request_id == "req-1"
    with pytest.raises(AttributeError):
        stream.nothing_of_the_kind  # noqa: B018
    await stream.aclose()


def test_an_instance_that_was_never_made_is_harmless():
    blank = RateLimitedAsyncIterator.__new__(RateLimitedAsyncIterator)
    with pytest.raises(AttributeError):
        blank.anything  # noqa: B018
    del blank


async def test_a_request_that_the_stream_sends_belongs_to_its_reservation(opened):
    seen = []

    async def chunks():
        seen.append(current_reservation.get())
        yield 1

    stream = opened(chunks())
    await read_all(stream)
    assert seen == [stream.context.reservation]
    assert current_reservation.get() is None


@pytest.mark.parametrize("callback", ["metrics_callback", "error_metrics_callback"])
async def test_a_failing_callback_is_reported_and_stops_nothing(opened, charged, caplog, callback):
    def broken(*_):
        raise RuntimeError("broken")

    stream = opened(Stream("a", "b"), **{callback: broken})
    if callback == "metrics_callback":
        assert await read_all(stream) == ["a", "b"]
    else:
        await stream.aclose()
    assert charged() == RESERVED
    assert "a callback of stream res-1 failed" in caplog.text


# The context by itself


def test_context_defaults():
    context = StreamingReservationContext("res", "bucket", "req", 500)
    assert (context.final_tokens, context.chunk_count, context.last_chunk_at) == (None, 0, None)
    assert context.duration_seconds is None
    assert context.actual_tokens_for_release == 500
    context.record_chunk()
    assert context.chunk_count == 1
    assert context.duration_seconds >= 0
    context.complete()
    assert context.ended


@pytest.mark.parametrize(
    ("given", "actual"),
    [
        (0, 0),
        (7, 7),
        (-1, 500),
        (None, 500),
        ("7", 500),
        (True, 500),
        (float("nan"), 500),
        (float("inf"), 500),
    ],
)
def test_final_tokens(given, actual):
    context = StreamingReservationContext("res", "bucket", "req", 500)
    context.set_final_tokens(given)
    assert context.actual_tokens_for_release == actual


async def test_tokens_that_a_reader_counted_itself(limiter, charged):
    context = StreamingReservationContext("r", "m", "q", RESERVED, limiter.acquire("m", tokens=RESERVED))
    context.set_final_tokens(30)
    await read_all(RateLimitedAsyncIterator(Stream("a"), context))
    assert charged() == 30


# What is a stream


async def generator():
    yield 1


class Holder:
    def __init__(self):
        self.inner = generator()

    def get_iterator(self):
        return self.inner

    def set_iterator(self, iterator):
        self.inner = iterator


class Pages:
    def __aiter__(self): ...


@pytest.mark.parametrize(
    ("made", "stream"),
    [
        (generator, True),
        (Stream, True),
        (Holder, True),
        (Pages, False),
        (lambda: iter([1]), False),
        (dict, False),
        (object, False),
        (lambda: None, False),
        (lambda: Stream, False),
    ],
)
def test_what_is_a_stream(made, stream):
    assert is_stream(made()) is stream


async def test_a_response_that_holds_its_stream_stays_itself():
    holder = Holder()
    context = StreamingReservationContext("res", "bucket", "req", 500)
    assert wrap(holder, context) is holder
    assert isinstance(holder.get_iterator(), RateLimitedAsyncIterator)
    assert await read_all(holder.get_iterator()) == [1]
    assert context.ended


async def test_reading_on_after_the_end_of_the_account(opened, charged):
    """Who stops the accounting does not stop the stream."""
    stream = opened(Stream("a", "b"))
    stream.context.fail()
    assert charged() == RESERVED
    assert await read_all(stream) == ["a", "b"]
    with contextlib.suppress(StopAsyncIteration):
        await anext(stream)
