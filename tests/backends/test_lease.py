"""One worker's side of a shared bucket: what it asks for, and what it tells."""

import math

import pytest

from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.pool import LEASE, LIVES
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.core.renewal import Renewal
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind

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
        world.now += 0.1  # of its client: no lateness worth telling
        worker.bucket.begin(call, world.now, written=True)
        world.now += 0.4
        worker.bucket.settle(call, _usage(0.0), world.now)
        worker.settle_down()
    assert worker.renewals <= 21


def test_steady_traffic_asks_seldom(world):
    worker = world.worker(Quota("requests", 60_000.0))
    for _ in range(3000):
        world.now += 0.01
        assert worker.call().hold is not None
    assert worker.renewals <= 3000 * 0.1


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
