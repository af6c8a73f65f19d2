"""A caller may give up at any point: no hold is left behind, and those who wait go on."""

import asyncio

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import CapacityExceededError, Limiter
from adaptive_rate_limiter.testing import FakeClock


async def test_cancelled_while_waiting_leaves_the_line(limiter, bucket, clock, turn):
    first = await limiter.aacquire("m")
    waiting = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(3)]
    await turn()
    assert bucket().waiting == 3

    waiting[0].cancel()
    await turn()
    assert bucket().waiting == 2

    first.settle()
    clock.advance(2.0)
    await turn()
    assert waiting[0].cancelled()
    assert [task.done() for task in waiting[1:]] == [True, True]
    for task in waiting[1:]:
        task.result().settle()
    assert bucket().in_flight == 0


async def test_cancelled_at_the_instant_of_admission_gives_everything_back(limiter, bucket, clock, turn):
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    clock.advance(1.0)  # admitted; its coroutine has not run since
    assert (bucket().waiting, bucket().in_flight) == (0, 1)

    task.cancel()
    await turn()

    assert task.cancelled()
    assert bucket().in_flight == 0
    assert limiter.try_acquire("m") is not None  # what it had taken is there again


async def test_cancelled_at_admission_lets_the_next_go_at_once(limiter, clock, turn):
    (await limiter.aacquire("m")).settle()
    task, heir = (asyncio.ensure_future(limiter.aacquire("m")) for _ in range(2))
    await turn()
    clock.advance(1.0)
    task.cancel()
    await turn()
    assert heir.done()
    assert clock.now() == 1.0
    heir.result().settle()


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_at_every_await_point(limiter, bucket, clock, turns):
    """Admission happens between `turns` steps of the loop, and the cancellation right after it."""

    async def call():
        async with await limiter.aacquire("m"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0)
    clock.advance(1.0)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (bucket().waiting, bucket().in_flight) == (0, 0)


async def test_wait_for_gives_up_without_a_trace(limiter, bucket, clock, turn):
    (await limiter.aacquire("m")).settle()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(limiter.aacquire("m"), 0.01)
    assert (bucket().waiting, bucket().in_flight) == (0, 0)
    clock.advance(1.0)
    assert limiter.try_acquire("m") is not None


async def test_wait_for_that_is_in_time_returns_the_reservation(limiter, bucket, clock, turn):
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(asyncio.wait_for(limiter.aacquire("m"), 10))
    await turn()
    clock.advance(1.0)
    reservation = await task
    assert bucket().in_flight == 1
    reservation.settle()


async def test_gather_that_fails_cancels_the_others_cleanly(limiter, bucket, clock, turn):
    async def fail():
        await asyncio.sleep(0)
        raise RuntimeError("one of them")

    (await limiter.aacquire("m")).settle()
    tasks = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(5)]
    with pytest.raises(RuntimeError):
        await asyncio.gather(fail(), *tasks)
    for task in tasks:
        task.cancel()
    await turn()
    assert (bucket().waiting, bucket().in_flight) == (0, 0)


def test_a_loop_that_closes_over_its_waiters_leaves_nothing(limiter, bucket, clock):
    limiter.acquire("m").settle()

    async def main():
        tasks = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    asyncio.run(main())  # cancels whatever still runs
    assert (bucket().waiting, bucket().in_flight) == (0, 0)


def test_a_loop_closed_without_cancelling_does_not_hold_up_the_others(
    limiter, bucket, clock, until, in_thread
):
    """Its waiters are admitted in their turn, found to be gone, and everything they took is given back."""
    limiter.acquire("m").settle()
    loop = asyncio.new_event_loop()
    dead = [limiter.aacquire("m") for _ in range(3)]
    for coroutine in dead:
        loop.call_soon(coroutine.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert bucket().waiting == 3

    admitted = []
    in_thread(lambda: admitted.append(limiter.acquire("m")))
    until(lambda: bucket().waiting == 4)
    clock.advance(1.0)
    until(lambda: admitted)
    assert clock.now() == 1.0  # nobody stood in its way for longer than its own turn
    assert bucket().in_flight == 1
    admitted[0].settle()
    for coroutine in dead:
        coroutine.close()
    assert (bucket().waiting, bucket().in_flight) == (0, 0)


def test_a_collected_coroutine_leaves_the_line(limiter, bucket):
    limiter.acquire("m").settle()

    async def main():
        coroutine = limiter.aacquire("m")
        coroutine.send(None)  # it stands in line
        assert bucket().waiting == 1
        del coroutine
        collect()
        assert (bucket().waiting, bucket().in_flight) == (0, 0)

    asyncio.run(main())


async def test_timeout_of_a_waiting_call_is_kept_to_the_instant(clock, turn):
    """Nobody knows when concurrency comes free: the deadline comes by the clock."""
    limiter = Limiter(max_concurrency=1, quotas={"requests": 600}, clock=clock)
    holder = await limiter.aacquire("m")
    task = asyncio.ensure_future(limiter.aacquire("m", timeout=5))
    await turn()
    clock.advance(4.9)
    await turn()
    assert not task.done()
    clock.advance(0.1)
    await turn()
    with pytest.raises(CapacityExceededError, match="deadline") as caught:
        task.result()
    assert caught.value.bucket_id == "default/m"
    holder.settle()


async def test_many_random_cancellations_conserve_every_unit():
    """Whatever was cancelled and when, the end is: nobody waits, nothing is held, and all is refilled."""
    clock = FakeClock()
    limiter = Limiter(quotas={"requests": 60, "tokens": 6000}, clock=clock)

    async def call(index):
        async with await limiter.aacquire("m", 100 + index % 7, tenant=str(index % 3)) as reservation:
            await asyncio.sleep(0)
            if index % 4 == 0:
                reservation.cancel()

    tasks = [asyncio.ensure_future(call(index)) for index in range(300)]
    for step in range(200):
        await asyncio.sleep(0)
        tasks[(step * 7) % 300].cancel()
        if step % 3 == 0:
            clock.advance(1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    (only,) = limiter.snapshot().buckets
    assert (only.waiting, only.in_flight) == (0, 0)
    clock.advance(120.0)
    assert [limit.remaining for limit in limiter.snapshot().buckets[0].limits] == [60, 6000]
