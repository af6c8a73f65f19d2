"""Streams of a scheduler hold their slot and their reservation until they end, and not for ever."""

import asyncio
import logging

import pytest
from tests.garbage import collect

from adaptive_rate_limiter.scheduler import streams as streams_module

from .conftest import Api, request

PLENTY = {"tokens": 1_000_000}


async def chunks(count=3):
    for _ in range(count):
        yield {"usage": {"total_tokens": 42}}


async def opened(scheduler, **fields):
    return await scheduler.submit_request(request(**fields), chunks)


async def test_an_open_stream_counts_as_a_request_under_way(make, mode, turn):
    async with make(mode, max_concurrent_executions=1) as scheduler:
        stream = await opened(scheduler)
        task = asyncio.create_task(scheduler.submit_request(request(), Api("next").call()))
        await turn()
        assert not task.done()
        assert [chunk async for chunk in stream]
        assert await task == "next"


@pytest.mark.parametrize("end", ["drop", "close", "never read"])
async def test_a_stream_that_is_not_read_on_lets_the_next_one_go(make, mode, settled, clock, turn, end):
    async with make(mode, max_concurrent_executions=1) as scheduler:
        stream = await opened(scheduler)
        if end != "never read":
            await anext(stream)
        if end == "close":
            await stream.aclose()
        del stream
        collect()
        clock.advance(1.0)  # of what is never read, no refusal can come any more
        await turn()
        assert await scheduler.submit_request(request(), Api("next").call()) == "next"
        assert settled(scheduler)


async def test_usage_of_a_stream_is_charged(make, mode):
    async with make(mode, quotas={"tokens": 1000}) as scheduler:
        assert len([chunk async for chunk in await opened(scheduler, estimated_tokens=500)]) == 3
        (bucket,) = scheduler.limiter.snapshot().buckets
    assert bucket.limits[0].remaining == 1000 - 42


async def test_without_an_estimate_a_stream_reserves_what_earlier_ones_used(make):
    async with make(quotas=PLENTY) as scheduler:
        first = await opened(scheduler, estimated_tokens=None)
        assert first.context.reserved_tokens == 0
        assert len([chunk async for chunk in first]) == 3
        second = await opened(scheduler, estimated_tokens=None)
        assert second.context.reserved_tokens == 42
        await second.aclose()


async def test_a_request_id_may_be_used_again(make, mode, settled):
    async with make(mode, quotas=PLENTY) as scheduler:
        first, second = await opened(scheduler), await opened(scheduler)
        assert scheduler.get_metrics()["open_streams"] == 2
        for stream in (first, second):
            assert len([chunk async for chunk in stream]) == 3
        assert settled(scheduler)


async def test_a_forgotten_stream_is_ended_and_one_that_is_read_is_not(make, monkeypatch, caplog, settled):
    monkeypatch.setattr(streams_module, "LONGEST_SILENCE", 0.05)
    monkeypatch.setattr(streams_module, "LOOK_EVERY", 0.01)
    async with make(quotas=PLENTY) as scheduler:
        forgotten, read = await opened(scheduler), await opened(scheduler)
        with caplog.at_level(logging.WARNING):
            while not forgotten.context.ended:
                read.context.record_chunk()
                await asyncio.sleep(0.005)
        assert "is taken for forgotten" in caplog.text
        assert not read.context.ended
        assert len([chunk async for chunk in forgotten]) == 3
    assert settled(scheduler)


def test_a_stream_that_outlives_its_loop(make, clock, settled):
    scheduler, kept = make(), []

    async def forget():
        await scheduler.start()
        kept.append(await opened(scheduler))

    asyncio.run(forget())
    kept.clear()
    collect()
    clock.advance(0)
    assert settled(scheduler)
