"""A full line says so, and loses nobody who is in it."""

import asyncio

import pytest

from adaptive_rate_limiter import QueueOverflowError

from .conftest import Api, request
from .test_scheduler_limits import ONE_A_SECOND


async def fill(scheduler, api, count, **fields):
    await scheduler.submit_request(request(**fields), api.call("first"))
    return [
        asyncio.create_task(scheduler.submit_request(request(**fields), api.call(n))) for n in range(count)
    ]


async def test_one_too_many_is_refused_and_the_rest_is_served(make, mode, turn, later):
    api = Api()
    async with make(mode, max_queue_size=3, quotas=ONE_A_SECOND) as scheduler:
        tasks = await fill(scheduler, api, 3)
        await turn()
        for _ in range(2):
            with pytest.raises(QueueOverflowError, match="max_queue_size is 3") as caught:
                await scheduler.submit_request(request(), api.call("too many"))
            assert caught.value.queue_key == ("account" if mode == "account" else "m")
        await later(10)
        assert await asyncio.gather(*tasks) == [0, 1, 2]
        assert await scheduler.submit_request(request(), api.call("later")) == "later"
    assert "too many" not in api.started


async def test_each_bucket_has_its_own_line(make, turn, later):
    api = Api()
    async with make(max_queue_size=1, quotas={"a": ONE_A_SECOND, "b": ONE_A_SECOND}) as scheduler:
        tasks = await fill(scheduler, api, 1, model_id="a") + await fill(scheduler, api, 1, model_id="b")
        await turn()
        with pytest.raises(QueueOverflowError):
            await scheduler.submit_request(request(model_id="a"), api.call())
        await later(5)
        assert await asyncio.gather(*tasks) == [0, 0]


async def test_the_oldest_is_dropped_where_that_is_the_policy(make, turn, later):
    api = Api()
    options = {"max_queue_size": 2, "overflow_policy": "drop_oldest", "quotas": ONE_A_SECOND}
    async with make("intelligent", **options) as scheduler:
        tasks = await fill(scheduler, api, 5)
        await turn()
        await later(10)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[3:] == [3, 4]
    assert all(isinstance(result, QueueOverflowError) for result in results[:3])
    assert api.started == ["first", 3, 4]


@pytest.mark.parametrize("mode", ["basic", "account"])
async def test_other_modes_reject(make, turn, mode):
    api = Api()
    options = {"max_queue_size": 1, "overflow_policy": "drop_oldest", "quotas": ONE_A_SECOND}
    async with make(mode, **options) as scheduler:
        tasks = await fill(scheduler, api, 1)
        await turn()
        with pytest.raises(QueueOverflowError):
            await scheduler.submit_request(request(), api.call())
        assert not tasks[0].done()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_leaves_makes_room(make, turn):
    api = Api()
    async with make(max_queue_size=1, quotas=ONE_A_SECOND) as scheduler:
        (one,) = await fill(scheduler, api, 1)
        await turn()
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        two = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await turn()
        assert not two.done()
        two.cancel()
        await asyncio.gather(two, return_exceptions=True)


async def test_dropped_at_the_moment_of_its_turn(make, later, turn, settled):
    """The one that is dropped has just been admitted: what it got is given back."""
    api = Api()
    options = {"max_queue_size": 1, "overflow_policy": "drop_oldest", "quotas": ONE_A_SECOND}
    async with make("intelligent", **options) as scheduler:
        (old,) = await fill(scheduler, api, 1)
        await turn()
        scheduler.limiter.clock.advance(1.0)  # admitted, and not yet awake
        new = asyncio.create_task(scheduler.submit_request(request(), api.call("new")))
        await later(5)
        results = await asyncio.gather(old, new, return_exceptions=True)
        assert "new" in results
        assert settled(scheduler)
