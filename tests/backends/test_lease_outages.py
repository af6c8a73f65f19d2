"""A lease while its pool cannot be reached, and after the pool was lost."""

import math

import pytest

from adaptive_rate_limiter.core.pool import LEASE, Pool
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota

MINUTE = Quota("requests", 60.0)


def test_while_the_pool_cannot_be_reached_each_takes_its_part_and_tells_of_it_later(world):
    first, second = world.worker(MINUTE), world.worker(MINUTE)
    first.call(), second.call(), first.call()
    for worker in (first, second):
        worker.reachable = False
    world.now += 0.001
    first.call(), second.call()
    went = 0
    for _ in range(300):
        world.now += 0.1
        went += sum(worker.call().hold is not None for worker in (first, second))
        for worker in (first, second):
            for call in worker.bucket.queue.calls():
                worker.bucket.withdraw(call, world.now)
    assert 24 <= went <= 31  # thirty seconds at one a second in all
    for worker in (first, second):
        worker.reachable = True
        world.now += 1
        worker.settle_down()
        worker.call()
    assert world.pool.limits[0].taken >= went


def test_after_an_outage_what_others_may_have_sent_is_kept_back_until_they_are_heard_of(world):
    workers = [world.worker(MINUTE) for _ in range(4)]
    for worker in workers * 4:
        worker.call()
    went = 16
    for reachable in (False, True):
        for worker in workers:
            worker.reachable = reachable
            world.now += 0.5
            waiting = [worker.call() for _ in range(30)]
            assert all(lease.outage is not reachable for lease in [worker.lease])
            went += sum(call.hold is not None for call in waiting)
    assert went <= 60
    before = sum(worker.bucket.queue.count for worker in workers)
    for _ in range(100):
        world.now += 0.1
        for worker in workers:
            worker.settle_down()
    # What the bucket held, and what flows in: nothing is kept back for longer than it takes to hear of all.
    assert before - sum(worker.bucket.queue.count for worker in workers) >= 8
    assert all(gauge.fallback is None for worker in workers for gauge in worker.lease.gauges())


def test_what_a_header_told_to_be_left_is_not_sent_by_each_of_those_that_are_out_of_reach(world):
    workers = [world.worker() for _ in range(4)]
    for worker in workers * 2:
        worker.told(worker.call(), 6.0, reset_after=25.3)
    for worker in workers:
        worker.reachable = False
    waiting = [(worker, worker.call()) for worker in workers * 10]
    left = 6.0
    for _ in range(100):
        world.now += 0.2
        for worker in workers:
            worker.settle_down()
        went = [(worker, call) for worker, call in waiting if call.hold is not None]
        waiting = [(worker, call) for worker, call in waiting if call.hold is None]
        left -= len(went)
        for worker, call in went:
            worker.told(call, max(0.0, left), reset_after=25.3)
    assert 0 <= left <= 4


def test_what_is_sent_late_while_the_pool_cannot_be_reached_is_not_gathered(world):
    """An outage may be long, and what was sent in it counts from when it is told."""
    worker = world.worker(MINUTE)
    worker.call()
    worker.reachable = False
    call = worker.call()
    world.now += 2.0
    worker.settle_down()
    assert call.hold is not None
    worker.bucket.begin(call, world.now + 1.0, written=True)
    assert not worker.lease.ledger.late


def test_open_lets_everything_go(world):
    worker = world.worker(MINUTE, on_outage="open")
    worker.reachable = False
    assert all(worker.call().hold is not None for _ in range(100))
    assert worker.left() == math.inf


def test_a_pool_that_was_lost_is_told_again(world):
    worker = world.worker()
    worker.told(worker.call(), 40.0, reset_after=36.0)
    world.pool = Pool()
    for _ in range(30):
        worker.call()
    world.now += LEASE
    worker.settle_down()
    assert [limit.limit for limit in world.pool.limits] == [100]


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
def test_a_pool_that_was_lost_is_told_what_all_spent_of_a_stated_limit(world, algorithm):
    workers = [world.worker(Quota("requests", 60, 60.0, algorithm)) for _ in range(3)]
    went = sum(worker.call().hold is not None for worker in workers * 6)
    world.pool = Pool()
    for _ in range(40):
        world.now += 0.01
        went += sum(worker.call().hold is not None for worker in workers)
    assert 40 <= went <= 61


def test_nothing_goes_between_the_loss_of_a_pool_and_its_being_told_again(world):
    """Each worker believed to be alone then, and sent all that its own headers had left."""
    worker = world.worker()
    worker.told(worker.call(), 40.0, reset_after=36.0)
    world.pool = Pool()
    world.now += 1.1
    waiting = [worker.bucket.submit(Call({"requests": 1.0}, since=world.now), world.now) for _ in range(5)]
    renewal = worker.lease.prepare(world.now)
    worker.lease.apply(worker.bucket, world.pool.renew(renewal, world.now), world.now, world.now)
    assert worker.bucket.dispatch(world.now) == []
    worker.settle_down()
    assert worker.bucket.queue.count < len(waiting)
