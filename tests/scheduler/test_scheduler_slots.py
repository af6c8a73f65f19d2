"""So many requests at once over all buckets: who waits for a place goes by rank, and not for ever."""

import asyncio

import pytest

from adaptive_rate_limiter import CapacityExceededError
from adaptive_rate_limiter.scheduler.line import Slots

from .conftest import Api, request


def submit(scheduler, api, name, **fields):
    return asyncio.create_task(scheduler.submit_request(request(**fields), api.call(name)))


async def test_who_leaves_while_others_have_all_slots_was_never_sent(make, turn, settled):
    """Its bucket has let it in, and other buckets' requests are under way: all is given back."""
    api = Api().hold()
    async with make(max_concurrent_executions=1, quotas={"tokens": 1000}) as scheduler:
        first = asyncio.create_task(scheduler.submit_request(request(model_id="a"), api.call()))
        second = asyncio.create_task(scheduler.submit_request(request(model_id="b"), api.call()))
        await turn()
        second.cancel()
        api.gate.set()
        await asyncio.gather(first, second, return_exceptions=True)
        left = {b.bucket_id: b.limits[0].remaining for b in scheduler.limiter.snapshot().buckets}
        assert left == {"default/a": 990, "default/b": 1000}
        assert settled(scheduler)


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_concurrency_is_bounded_over_all_buckets(make, mode, turn, limit):
    api = Api().hold()
    async with make(mode, max_concurrent_executions=limit, quotas={"requests": 10_000}) as scheduler:
        tasks = [
            asyncio.create_task(scheduler.submit_request(request(model_id=f"m{n % 3}"), api.call(n)))
            for n in range(30)
        ]
        await turn()
        assert len(api.started) == limit
        api.gate.set()
        assert await asyncio.gather(*tasks) == list(range(30))


@pytest.fixture
def taken(make):
    """A scheduler whose one place is taken by a request of another bucket, until `api` lets it go."""

    def taken(api, **options):
        return make(max_concurrent_executions=1, quotas={"tokens": 1000}, **options)

    return taken


async def test_a_request_that_waits_for_a_place_keeps_its_deadline(taken, turn, settled):
    """It was admitted by its bucket and waited for ever, whatever its timeout."""
    api = Api().hold()
    async with taken(api) as scheduler:
        first = submit(scheduler, api, "first", model_id="a")
        await turn()
        with pytest.raises(CapacityExceededError, match="max_concurrent_executions=1") as caught:
            await submit(scheduler, api, "late", model_id="b", timeout=0.02)
        assert (caught.value.bucket_id, caught.value.retry_after) == ("b", 0.0)
        api.gate.set()
        await first
        left = {b.bucket_id: b.limits[0].remaining for b in scheduler.limiter.snapshot().buckets}
        assert left == {"default/a": 990, "default/b": 1000}
        assert settled(scheduler)
    assert api.started == ["first"]


async def test_a_deadline_that_is_far_away_changes_nothing(taken, turn):
    api = Api().hold()
    async with taken(api) as scheduler:
        first = submit(scheduler, api, "first", model_id="a")
        await turn()
        second = submit(scheduler, api, "second", model_id="b", timeout=3600)
        await turn()
        api.gate.set()
        assert await asyncio.gather(first, second) == ["first", "second"]


async def test_priority_counts_between_buckets_too(taken, turn):
    """They went in the order in which their buckets had admitted them."""
    api = Api().hold()
    async with taken(api) as scheduler:
        tasks = []
        for name, priority in (("a", 0), ("b", 0), ("c", 9), ("d", -1), ("e", 0)):
            tasks.append(submit(scheduler, api, name, model_id=name, priority=priority))
            await turn()
            scheduler.limiter.clock.advance(0.001)
        api.gate.set()
        await asyncio.gather(*tasks)
    assert api.started == ["a", "c", "b", "e", "d"]


async def test_places_pass_by_rank_and_survive_those_who_leave(turn):
    slots, got = Slots(1), []

    async def take(name, rank):
        if not slots.try_take():
            await slots.take(rank)
        got.append(name)

    ranks = {"a": 0, "b": 1, "c": 1, "d": 1, "first": 0.5}
    tasks = {name: asyncio.create_task(take(name, rank)) for name, rank in ranks.items()}
    await turn()
    assert got == ["a"]
    tasks["b"].cancel()
    await turn()
    slots.give()
    slots.give()
    await turn()
    assert got == ["a", "first", "c"]
    slots.give()
    tasks["d"].cancel()  # it is its turn, and it leaves: the place is not lost
    await turn()
    assert (got, slots.free) == (["a", "first", "c"], 1)
