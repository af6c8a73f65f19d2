"""What workers learn of answers, and of limits that nobody tells, all of them know."""

import pytest

from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.pool import LEASE
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.types import Refusal, RefusalKind


def answered(worker, calls, output, input_tokens=80.0, guessed=100.0):
    """So many calls, each answered with so many tokens."""
    for _ in range(calls):
        call = worker.call()
        call.guessed = guessed
        worker.bucket.settle(call, Usage(input_tokens=input_tokens, output_tokens=output), worker.world.now)
        worker.world.now += 0.05
        worker.settle_down()


def expected(worker):
    """Tokens of an answer, and of a prompt that looks like a hundred."""
    read, answered = worker.bucket.estimator.expected(100.0)
    return answered, read


PLENTY = Quota("requests", 60_000.0)


def test_what_one_worker_learns_of_answers_all_reserve(world):
    first, second = world.worker(PLENTY), world.worker(PLENTY)
    second.call()
    answered(first, 200, 700.0)
    world.now += LEASE
    first.call(), second.call()
    assert expected(first) == expected(second) == (pytest.approx(700, rel=0.1), pytest.approx(80, rel=0.1))


def test_what_was_learned_of_answers_survives_a_restart_of_all(world):
    first = world.worker(PLENTY)
    answered(first, 200, 700.0)
    first.world.pool.renew(first.lease.give_up(world.now), world.now)
    world.now += 3600.0
    second = world.worker(PLENTY)
    second.call()
    assert expected(second) == (pytest.approx(700, rel=0.1), pytest.approx(80, rel=0.1))
    assert second.bucket.estimator.output.count >= 200


def test_many_workers_that_learn_the_same_at_once_do_not_overshoot(world):
    workers = [world.worker(PLENTY) for _ in range(40)]
    for output in [300.0] * 40 + [900.0] * 80:
        for worker in workers:
            call = worker.call()
            worker.bucket.settle(call, Usage(output_tokens=output), world.now)
        world.now += 0.5
        assert all(worker.bucket.estimator.output.value <= 1100 for worker in workers)
    assert all(worker.bucket.estimator.output.value >= 800 for worker in workers)


def test_a_renewal_that_was_lost_teaches_once(world):
    first, second = world.worker(PLENTY), world.worker(PLENTY)
    answered(first, 20, 700.0)
    count = world.pool.learned[0].count
    renewal = first.lease.prepare(world.now)
    seen = sum(lesson.seen for lesson in renewal.lessons if lesson.name == world.pool.learned[0].name)
    for _ in range(3):
        world.pool.renew(renewal, world.now)
    assert world.pool.learned[0].count == count + seen
    second.call()
    assert expected(second)[0] == expected(first)[0]


REFUSED = Refusal(RefusalKind.RATE_LIMIT)


def untold(world, *workers, calls=100):
    """Each sends so many calls, of which the last is refused."""
    for worker in workers:
        for _ in range(calls):
            call = worker.call()
            worker.told(call, None, limit=None)
            worker.bucket.settle(call, Usage(), world.now)
            world.now += 0.3
            worker.settle_down()
    worker.told(worker.call(), None, limit=None, refusal=REFUSED)
    for worker in (*workers, *workers):
        world.now += LEASE
        worker.call()


def test_a_limit_that_only_refusals_tell_is_found_for_all(world):
    first, second = world.worker(), world.worker()
    untold(world, first, second)
    ((first_gauge,), (second_gauge,)) = first.lease.gauges(), second.lease.gauges()
    assert first_gauge.source == second_gauge.source == "inferred"
    assert first_gauge.limit == pytest.approx(second_gauge.limit, rel=0.01)
    assert first_gauge.limit == pytest.approx(200 * 60 / 60, rel=0.5)  # those of the last minute, or about
    assert not first.bucket.untold
    assert not second.bucket.untold


def test_a_limit_that_only_refusals_told_survives_a_restart_of_all(world):
    untold(world, world.worker(), world.worker())
    world.now += 3600.0
    third = world.worker()
    went = sum(third.call().hold is not None for _ in range(100))
    assert [gauge.source for gauge in third.lease.gauges()] == ["inferred"]
    assert went <= 4  # a second's worth


def test_headers_take_the_place_of_what_was_inferred(world):
    first, second = world.worker(), world.worker()
    untold(world, first, second)
    call = first.call()
    while call.hold is None:
        world.now += 0.1
        first.settle_down()
    first.told(call, 499.0, limit=500.0, reset_after=0.12)
    for worker in (first, second):
        world.now += LEASE
        worker.call()
        assert [(gauge.unit, gauge.limit) for gauge in worker.lease.gauges()] == [("requests", 500)]


def test_one_worker_alone_goes_on_finding_out_by_itself(world):
    worker = world.worker()
    untold(world, worker, calls=60)
    assert worker.lease.gauges() == []
    assert worker.bucket.untold
    assert worker.bucket.inferred_limits()
