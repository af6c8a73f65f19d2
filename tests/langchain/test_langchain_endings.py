"""However a call ends, its hold ends with it."""

import asyncio

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import CapacityExceededError, Quota
from langchain_adaptive_rate_limiter import AdaptiveLimiter
from langchain_adaptive_rate_limiter.announcement import announced

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}
SLOW = PLENTY | {"latency": 0.4, "output_tokens": 200}


class BoomError(Exception):
    pass


def test_break_ends_the_hold_and_keeps_it_charged(lab, client, limiter, left):
    emulator = lab.provider(**SLOW)
    stream = lab.chat(emulator, client, limiter, max_tokens=200).stream("hello")
    next(stream)
    stream.close()
    assert left() == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_an_exception_in_the_readers_loop_ends_the_hold(lab, client, limiter, left):
    emulator = lab.provider(**PLENTY)

    def read():
        for _ in lab.chat(emulator, client, limiter).stream("hello"):
            raise BoomError

    with pytest.raises(BoomError):
        read()
    collect()
    assert left()["requests"] == 999


def test_an_error_of_the_provider_ends_the_hold(lab, client, limiter, bucket_of):
    emulator = lab.provider(faults=[500], **PLENTY)
    llm = lab.chat(emulator, client, limiter, max_retries=0)
    with pytest.raises(Exception, match="500"):
        llm.invoke("hello")
    assert bucket_of().in_flight == 0


async def test_leaving_an_async_stream_ends_the_hold(lab, async_client, limiter, left):
    emulator = lab.provider(**SLOW)
    stream = lab.chat(emulator, async_client, limiter, max_tokens=200).astream("hello")
    await anext(stream)
    await stream.aclose()
    assert left()["requests"] == 999


@pytest.mark.parametrize("form", ["ainvoke", "astream", "astream_events"])
async def test_a_task_cancelled_in_flight_leaves_no_hold(form, lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**SLOW)
    llm = lab.chat(emulator, async_client, limiter, max_tokens=200)

    async def call():
        if form == "ainvoke":
            await llm.ainvoke("hello")
        else:
            stream = llm.astream("hello") if form == "astream" else llm.astream_events("hello", version="v2")
            async for _ in stream:
                pass

    task = asyncio.ensure_future(call())
    await _until(lambda: emulator.stats().admitted)
    assert bucket_of().in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as kept:  # its traceback keeps the frames alive
        await task
    await _until(lambda: bucket_of().in_flight == 0)
    assert bucket_of().admitted == 1
    assert kept


async def test_a_call_that_runs_into_a_timeout_leaves_no_hold(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**SLOW)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(lab.chat(emulator, async_client, limiter).ainvoke("hello"), 0.1)
    await _until(lambda: bucket_of().in_flight == 0)


async def test_a_task_cancelled_while_it_waits_takes_nothing(lab, async_client, bucket_of, limiter):
    emulator = lab.provider(**PLENTY)
    limiter = AdaptiveLimiter(quotas={"requests": 1})
    llm = lab.chat(emulator, async_client, limiter)
    await llm.ainvoke("hello")
    waiting = [asyncio.ensure_future(llm.ainvoke("hello")) for _ in range(3)]
    snapshot = limiter.limiter.snapshot
    await _until(lambda: snapshot().waiting == 3)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*waiting, return_exceptions=True)
    )
    (bucket,) = snapshot().buckets
    assert (bucket.waiting, bucket.in_flight, bucket.admitted) == (0, 0, 1)
    assert emulator.stats().requests == 1


def test_a_stream_that_nobody_reads_on_leaves_no_hold(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter)
    next(llm.stream("hello"))  # dropped at once
    collect()
    assert bucket_of().in_flight == 0


def test_a_call_that_may_not_wait_is_refused_and_forgotten(lab, client):
    emulator = lab.provider(**PLENTY)
    limiter = AdaptiveLimiter(quotas={"requests": 1}, max_wait=0.5)
    llm = lab.chat(emulator, client, limiter)
    llm.invoke("hello")
    for run in (llm.invoke, lambda text: list(llm.stream(text))):
        with pytest.raises(CapacityExceededError) as refused:
            run("hello")
        assert refused.value.retry_after > 0.5
    assert emulator.stats().requests == 1
    assert not announced.get()


def test_a_stream_without_usage_is_charged_by_its_text(lab, client, bucket_of, limiter):
    emulator = lab.provider(output_tokens=400, headers=False, charge="usage", **PLENTY)
    llm = lab.chat(
        emulator,
        client,
        limiter := AdaptiveLimiter(quotas=[Quota("tokens", 100_000, 86_400.0)]),
        max_tokens=None,
    )
    message = None
    for chunk in llm.stream("hello " * 40, stream_usage=False):
        message = chunk if message is None else message + chunk
    assert not message.usage_metadata
    (bucket,) = limiter.limiter.snapshot().buckets
    (tokens,) = [limit for limit in bucket.limits if limit.source == "stated"]
    assert 100_000 - tokens.remaining == pytest.approx(460, rel=0.1)


async def _until(true):
    while not true():  # noqa: ASYNC110 - another thread's doing; pytest's time limit is the bound
        await asyncio.sleep(0.005)
