"""One worker's side of a shared bucket, without threads or waiting: the pool is asked whenever it is due."""

import math

import pytest

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.lease import Lease, Terms
from adaptive_rate_limiter.core.pool import LEASE, LIVES, Pool
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.core.renewal import Renewal
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind


class World:
    """A pool, its time, and the workers on it."""

    def __init__(self):
        self.pool, self.now, self.workers = Pool(), 1000.0, []

    def worker(self, *quotas, **terms):
        worker = Worker(self, f"w{len(self.workers)}", quotas, terms)
        self.workers.append(worker)
        return worker


class Worker:
    def __init__(self, world, name, quotas, terms):
        self.world, self.reachable, self.renewals = world, True, 0
        self.bucket = Bucket("b", quotas, world.now)
        self.lease = Lease(self.bucket, Terms(name, **terms), world.now)

    def call(self, requests=1.0, **costs):
        """A call that was put in line, and went if the pool would have it."""
        call = Call({"requests": requests, **costs}, since=self.world.now)
        self.bucket.submit(call, self.world.now)
        self.settle_down()
        return call

    def settle_down(self):
        for _ in range(20):
            now = self.world.now
            if self.lease.due_at(now) > now:
                break
            renewal = self.lease.prepare(now)
            self.renewals += 1
            if self.reachable:
                self.lease.apply(self.bucket, self.world.pool.renew(renewal, now), now, now)
            else:
                self.lease.fail(self.bucket, 0.5, now)
            self.bucket.dispatch(now)
        self.bucket.dispatch(self.world.now)

    def told(self, call, remaining, limit=100.0, reset_after=None, refusal=None):
        quotas = (QuotaReading("requests", limit, remaining, reset_after),) if limit else ()
        self.bucket.observe(call, RateLimitInfo(quotas=quotas, refusal=refusal), self.world.now)
        self.settle_down()

    def left(self):
        return self.lease.gauges()[0].available(self.world.now)


@pytest.fixture
def world():
    return World()


MINUTE = Quota("requests", 60.0)


def test_nobody_goes_before_the_pool_was_asked(world):
    worker = world.worker()
    call = Call({"requests": 1.0}, since=world.now)
    worker.bucket.submit(call, world.now)
    assert call.hold is None
    worker.settle_down()
    assert call.hold is not None


def test_two_workers_together_keep_a_stated_limit(world):
    first, second = world.worker(MINUTE), world.worker(MINUTE)
    went = sum(worker.call().hold is not None for _ in range(50) for worker in (first, second))
    assert went == 60


def test_a_limit_that_headers_tell_one_worker_binds_the_other(world):
    first, second = world.worker(), world.worker()
    first.told(first.call(), 99.0, reset_after=0.6)
    second.call()
    (gauge,) = second.lease.gauges()
    assert (gauge.unit, gauge.limit, gauge.source) == ("requests", 100, "shared")
    went = sum(second.call().hold is not None for _ in range(200))
    assert 90 <= went <= 99


def test_what_a_header_told_is_not_spent_before_the_pool_has_heard_of_it(world):
    """The others may hold all of it."""
    first, second = world.worker(), world.worker()
    early = second.call()
    first.told(first.call(), 10.0, reset_after=54.0)
    for _ in range(10):
        first.call()
    second.bucket.observe(early, RateLimitInfo(quotas=(QuotaReading("requests", 100.0, 9.0),)), world.now)
    late = Call({"requests": 1.0}, since=world.now)
    second.bucket.submit(late, world.now)
    assert late.hold is None
    assert second.lease.due_at(world.now) <= world.now


def test_the_pool_hears_of_what_was_sent_long_after_its_admission(world):
    worker = world.worker(Quota("requests", 60.0, algorithm="sliding_window"))
    prompt, late, other = [worker.call() for _ in range(3)]
    worker.bucket.begin(prompt, world.now, written=True)
    world.now += 2.0
    worker.bucket.resume(late, world.now)
    world.now += 0.5
    worker.bucket.begin(other, world.now, written=True)
    world.now += LEASE
    (use,) = worker.lease.prepare(world.now).uses
    assert (use.late, use.admitted, use.sent) == pytest.approx((2.0, 2.5 + LEASE, LEASE))


def test_who_comes_to_rest_gives_back_what_it_holds_and_does_so_once(world):
    first, second = world.worker(), world.worker()
    first.told(first.call(), 900.0, limit=1000.0, reset_after=6.0)
    second.call()
    calls = []
    for _ in range(30):
        world.now += 0.02
        calls.append(first.call())
    held = first.left()
    for call in calls:
        first.bucket.settle(call, Usage(), world.now)
    before = first.renewals
    world.now += LEASE / 2
    first.settle_down()
    assert held > 1
    assert first.left() == 0
    assert first.renewals == before + 1
    assert first.lease.due_at(world.now) == math.inf


def test_the_use_of_other_workers_is_not_taken_for_that_of_strangers(world):
    first, second = world.worker(), world.worker()
    first.told(first.call(), 99.0, reset_after=0.6)
    for _ in range(40):
        second.call()
    before = world.pool.limits[0].available()
    world.now += 0.01
    first.told(first.call(), 58.0, reset_after=25.2)
    assert before - world.pool.limits[0].available() <= 2


def test_what_headers_tell_both_workers_is_one_limit(world):
    first, second = world.worker(), world.worker()
    first.told(first.call(), 99.0, reset_after=0.6)
    second.told(second.call(), 98.0, reset_after=1.2)
    assert len(world.pool.limits) == 1
    assert [gauge.source for gauge in second.lease.gauges()] == ["told"]


def test_a_lower_limit_that_one_worker_is_told_binds_the_other(world):
    first, second = world.worker(), world.worker()
    for seen in range(12):
        world.now += 0.6
        first.told(first.call(), 99.0, reset_after=0.6 + seen * 1e-9)
    second.call()
    for _ in range(12):
        world.now += 1.2
        first.told(first.call(), 49.0, limit=50.0, reset_after=1.2)
    world.now += LEASE
    second.call()
    assert second.lease.gauges()[0].limit == 50


def test_a_refusal_pauses_every_worker(world):
    first, second = world.worker(MINUTE), world.worker(MINUTE)
    second.call()
    call = first.call()
    first.told(call, None, limit=None, refusal=Refusal(RefusalKind.RATE_LIMIT, retry_after=20.0))
    for _ in range(60):  # the next renewal hears of it
        if second.call().hold is None:
            break
    assert world.now + 19 < second.bucket.pause.until <= world.now + 20


def test_a_refusal_empties_the_limit_for_every_worker(world):
    first, second = world.worker(), world.worker()
    first.told(first.call(), 30.0, reset_after=42.0)
    second.call()
    world.now += 0.1
    call = first.call()
    first.told(
        call, None, limit=None, refusal=Refusal(RefusalKind.RATE_LIMIT, retry_after=0.5, unit="requests")
    )
    world.now += 0.1
    first.settle_down()
    assert world.pool.limits[0].available() < 5


def test_what_a_call_did_not_use_comes_back(world):
    worker = world.worker(MINUTE, Quota("tokens", 1000.0))
    call = worker.call(tokens=800.0)
    worker.bucket.settle(call, _usage(100.0), world.now)
    assert worker.call(tokens=800.0).hold is not None


def _usage(tokens):
    return Usage(input_tokens=tokens, output_tokens=0.0)


def test_a_call_that_is_larger_than_the_limit_is_refused(world):
    worker = world.worker(MINUTE)
    worker.call()
    call = Call({"requests": 61.0}, since=world.now, certain=True)
    with pytest.raises(CapacityExceededError, match="can never pass"):
        worker.bucket.submit(call, world.now)


def test_a_lease_ends_here_before_it_ends_there(world):
    worker = world.worker(MINUTE)
    for _ in range(10):
        worker.call()
    worker.lease.gauges()[0].paid = 5.0
    world.now += LIVES * LEASE * 0.95
    assert worker.left() == 0
    assert world.pool.limits[0].leased > 0


def test_an_unanswered_renewal_is_sent_again_as_it_was(world):
    worker = world.worker(MINUTE)
    worker.call()
    worker.reachable = False
    world.now += 10
    worker.call()
    sent = worker.lease.pending
    world.now += 1
    worker.settle_down()
    assert worker.lease.pending is sent
    worker.reachable = True
    world.now += 1
    worker.settle_down()
    assert worker.lease.pending is None
    assert not worker.lease.outage


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


def test_what_does_not_suffice_for_the_next_call_goes_back_to_the_pool(world):
    """Two workers held parts of the one request that a lowered limit had room for, and waited for ever."""
    worker = world.worker(MINUTE)
    for _ in range(60):
        worker.call()
    (gauge,) = worker.lease.gauges()
    gauge.paid = 0.9
    worker.bucket.submit(Call({"requests": 1.0}, since=world.now), world.now)
    assert worker.lease.prepare(world.now).uses[0].kept == 0
    assert gauge.paid == 0


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


def test_open_lets_everything_go(world):
    worker = world.worker(MINUTE, on_outage="open")
    worker.reachable = False
    assert all(worker.call().hold is not None for _ in range(100))
    assert worker.left() == math.inf


def test_one_call_goes_when_the_told_reset_has_passed_whatever_the_pool_has(world):
    """A bucket of 60 a minute that holds one looks, at first, like a window that others have used up."""
    worker = world.worker()
    worker.told(worker.call(), 0.0, limit=60.0, reset_after=0.7)
    waiting = worker.call()
    assert waiting.hold is None
    world.now += 1.05
    worker.settle_down()
    assert waiting.hold is not None
    world.now += 0.5
    assert worker.call().hold is None


def test_a_worker_that_is_surer_of_the_same_limit_says_so(world):
    """Or another, who guessed the window from one header, would change it for both."""
    first, second = world.worker(), world.worker()
    remaining = 100.0
    for _ in range(8):
        call = first.call()
        remaining -= 1
        world.now += 0.001
        first.told(call, remaining, reset_after=0.6 * (100.0 - remaining) + 0.0001)
    second.call()
    assert second.lease.gauges()[0].known.evidence >= 4


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


def test_a_figure_that_was_rounded_up_does_not_raise_what_is_left_beyond_what_is_sure(world):
    worker = world.worker()
    for remaining in (50_000.0, 90_000.0, 90_000.0):
        call = worker.call(tokens=100.0)
        quotas = (QuotaReading("tokens", 100_000.0, remaining, 30.0),)
        worker.bucket.observe(call, RateLimitInfo(quotas=quotas), world.now)
        worker.bucket.settle(call, Usage(tokens=100.0), world.now)
        world.now += LEASE
        worker.settle_down()
    assert 89_000 <= world.pool.limits[0].available() <= 89_500


def test_slow_traffic_asks_once_a_call(world):
    worker = world.worker(MINUTE)
    for _ in range(20):
        world.now += 2.0
        call = worker.call()
        world.now += 0.5
        worker.bucket.settle(call, _usage(0.0), world.now)
        worker.settle_down()
    assert worker.renewals <= 21


def test_steady_traffic_asks_seldom(world):
    worker = world.worker(Quota("requests", 60_000.0))
    for _ in range(3000):
        world.now += 0.01
        assert worker.call().hold is not None
    assert worker.renewals <= 3000 * 0.1


def answered(worker, calls, output, input_tokens=80.0, guessed=100.0):
    """So many calls, each answered with so many tokens."""
    for _ in range(calls):
        call = worker.call()
        call.guessed = guessed
        worker.bucket.settle(call, Usage(input_tokens=input_tokens, output_tokens=output), worker.world.now)
        worker.world.now += 0.05
        worker.settle_down()


def expected(worker):
    estimator = worker.bucket.estimator
    return estimator.output_tokens(None), estimator.input_tokens(100.0)


PLENTY = Quota("requests", 60_000.0)


def test_what_headers_tell_one_who_waits_goes_with_its_next_question(world):
    """A thousand that wait would renew once more for each call otherwise."""
    worker = world.worker()
    worker.told(worker.call(), remaining=50.0)
    calls = [worker.call() for _ in range(60)]
    for number in range(30):
        world.pool.renew(Renewal(f"a{number:02}", 1, {"requests": 1.0}, {"requests": 1.0}), world.now)
    world.now = worker.lease.retry_at
    worker.settle_down()
    last = [call for call in calls if call.hold is not None][-1]
    renewals = worker.renewals
    assert worker.lease.retry_at > world.now + LEASE
    worker.told(last, remaining=0.0)
    assert worker.lease.gauges()[0].reading is not None
    world.now = worker.lease.retry_at - 0.01
    worker.settle_down()
    assert worker.renewals == renewals
    world.now = worker.lease.retry_at
    worker.settle_down()
    assert worker.lease.gauges()[0].reading is None


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
