"""The same with coroutines: what is under way ends with whoever waits for it."""

import asyncio

import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.batch.work import ENOUGH, FIRST


@pytest.fixture
def limiter():
    return Limiter()


async def test_outcomes_come_in_the_order_of_their_items(limiter):
    later = asyncio.Event()

    async def slow_first(item):
        if item == 0:
            await later.wait()
        later.set()
        return item * 10

    batch = limiter.amap(slow_first, range(1, -1, -1))
    assert [outcome.value async for outcome in batch] == [10, 0]
    assert batch.results() == [10, 0]


async def test_as_completed_yields_what_ends_first(limiter):
    later = asyncio.Event()

    async def slow_first(item):
        if item == "slow":
            await later.wait()

    seen = []
    async for outcome in limiter.amap(slow_first, ["slow", "fast"]).as_completed():
        seen.append(outcome.item)
        later.set()
    assert seen == ["fast", "slow"]


async def test_a_batch_can_be_awaited_again(limiter):
    ran = []

    async def ask(item):
        ran.append(item)
        return 6 // item

    batch = await limiter.amap(ask, [1, 0, 2])
    assert await batch is batch
    assert (ran, [type(outcome.error) for outcome in batch.failed]) == ([1, 0, 2], [ZeroDivisionError])
    again = await limiter.amap(ask, [1, 3, 2], earlier=batch)
    assert (again.results(), ran) == ([6, 2, 3], [1, 0, 2, 3])


async def test_what_is_under_way_is_cancelled_with_its_batch_and_run_the_next_time(limiter):
    begun, ended, hold, first = [], [], asyncio.Event(), asyncio.Event()

    async def ask(item):
        begun.append(item)
        first.set()
        if item:
            try:
                await hold.wait()
            finally:
                ended.append(item)
        return item

    batch = limiter.amap(ask, range(3))
    running = asyncio.ensure_future(batch.run())
    await first.wait()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (sorted(ended), batch.missing) == ([1, 2], [1, 2])
    hold.set()
    assert (await batch).results() == [0, 1, 2]
    assert sorted(begun) == [0, 1, 1, 2, 2]


async def test_a_break_leaves_a_batch_that_can_be_gone_on_with(limiter):
    async def ask(item):
        await asyncio.sleep(0)
        return item

    batch = limiter.amap(ask, range(20), concurrency=2)
    async for _ in batch:
        break
    assert (await batch).results() == list(range(20))


async def test_an_item_that_is_cancelled_by_itself_is_a_failure(limiter):
    async def ask(item):
        raise asyncio.CancelledError

    (failed,) = (await limiter.amap(ask, "a")).failed
    assert isinstance(failed.error, asyncio.CancelledError)


async def test_a_plain_function_fails_as_an_outcome(limiter):
    (failed,) = (await limiter.amap(lambda item: item, "a")).failed
    assert isinstance(failed.error, TypeError)


async def test_more_are_under_way_until_the_line_is_long_enough(clock):
    limiter = Limiter(quotas={"requests": 100}, clock=clock)
    running = []
    go = asyncio.Semaphore(0)

    async def call(item):
        await limiter.aacquire("m")
        running.append(item)
        await go.acquire()

    batch = limiter.amap(call, range(1000))
    task = asyncio.ensure_future(batch.run())

    async def settled():
        for _ in range(2000):
            await asyncio.sleep(0)

    await settled()
    assert (len(running), limiter.waiting) == (FIRST, 0)
    for _ in range(FIRST):
        go.release()
    await settled()
    assert (len(running), limiter.waiting) == (3 * FIRST, 0)  # each that ended was followed by two
    for _ in range(2 * FIRST):
        go.release()
    await settled()
    assert len(running) == 100  # and now the limit holds them back
    in_line = limiter.waiting
    assert ENOUGH <= in_line < 4 * FIRST
    clock.advance(3)  # five go, and end
    for _ in range(5):
        go.release()
    await settled()
    assert (len(running), limiter.waiting) == (105, in_line)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_an_earlier_time_gives_up_is_run_by_the_next(limiter):
    hold = asyncio.Event()

    async def ask(item):
        if item:
            await hold.wait()
        return item

    batch = limiter.amap(ask, range(3))
    left = batch.as_completed()
    await anext(left)
    running = asyncio.ensure_future(batch.run())
    await asyncio.sleep(0)
    await left.aclose()
    hold.set()
    assert (await running).results() == [0, 1, 2]
