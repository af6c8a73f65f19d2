"""What a bucket does after refusals that come before, or against, everything that it knows."""

from __future__ import annotations

import itertools

import pytest

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind


def refusal(retry_after=None):
    return RateLimitInfo(refusal=Refusal(RefusalKind.RATE_LIMIT, retry_after))


def submit(bucket, now):
    call = Call({"requests": 1.0}, since=now)
    bucket.submit(call, now)
    return call


def admitted_at(bucket, call, now, horizon=300.0):
    """The instant at which `call`, now in line, is admitted."""
    while call.hold is None and now < horizon:
        bucket.dispatch(now)
        if call.hold is None:
            now = max(now + 1e-3, bucket.wake_at)
    return now


@pytest.mark.parametrize(
    ("retry_after", "soonest", "latest"), [(0.03, 0.3, 1.0), (5.0, 5.0, 5.1), (None, 0.3, 2.0)]
)
def test_the_first_call_of_all_is_refused_and_the_next_goes_soon(retry_after, soonest, latest):
    bucket = Bucket("b", (), 0.0)
    first = submit(bucket, 0.0)
    bucket.observe(first, refusal(retry_after), 0.05)
    second = submit(bucket, 0.05)
    assert soonest <= admitted_at(bucket, second, 0.05) <= latest


def test_nothing_ever_passes_and_tries_come_ever_more_seldom():
    bucket = Bucket("b", (), 0.0)
    now, tries = 0.0, []
    while now < 300.0:
        call = submit(bucket, now)
        now = admitted_at(bucket, call, now)
        tries.append(now)
        now += 0.05
        bucket.observe(call, refusal(), now)
    assert len(tries) <= 12
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries[1:])]
    assert gaps == sorted(gaps)


def test_two_refusals_against_the_told_limits_are_waited_out_the_third_is_learned_from():
    bucket = Bucket("b", (), 0.0)
    first = submit(bucket, 0.0)
    told = RateLimitInfo(quotas=(QuotaReading("requests", 1000, 999, 0.06, 60.0),))
    bucket.observe(first, told, 0.1)
    bucket.settle(first, Usage(), 0.1)
    now, waits = 1.0, []
    for _ in range(3):
        call = submit(bucket, now)
        now = admitted_at(bucket, call, now) + 0.05
        bucket.observe(call, refusal(), now)
        waits.append(bucket.pause.until - now)
    assert 1.0 <= waits[0] <= 1.25
    assert 2.0 <= waits[1] <= 2.5
    assert bucket.untold


def test_a_call_larger_than_a_limit_that_was_lowered_while_it_waited_is_turned_away():
    bucket = Bucket("b", (), 0.0)
    first = Call({"requests": 1.0, "tokens": 10.0}, since=0.0)
    bucket.submit(first, 0.0)
    told = RateLimitInfo(quotas=(QuotaReading("tokens", 1000, 0, 60.0, 60.0),))
    bucket.observe(first, told, 0.1)
    large = Call({"requests": 1.0, "tokens": 800.0}, since=0.2, certain=True)
    bucket.submit(large, 0.2)
    lowered = RateLimitInfo(quotas=(QuotaReading("tokens", 500, 0, 60.0, 60.0),))
    bucket.ledger.read(lowered.quotas, bucket.ledger.reserve({"requests": 1.0, "tokens": 0.0}, 0.3), 0.4)
    assert bucket.dispatch(0.5) == [large]
    assert large.error is not None
    assert large.error.retry_after is None
    assert bucket.queue.count == 0


def test_a_refusal_of_a_call_that_was_withdrawn_counts_nobody_twice():
    bucket = Bucket("b", (), 0.0)
    call = submit(bucket, 0.0)
    bucket.cancel(call, 0.01)
    bucket.observe(call, refusal(), 0.1)
    assert bucket.discovery.in_doubt == 0


def test_guessing_uses_up_no_iterator():
    words = iter(["one", "two"])
    assert guess_tokens(words) == 0.0
    assert list(words) == ["one", "two"]


def test_a_refused_call_does_not_carry_the_next_experiment():
    bucket = Bucket("b", (), 0.0)
    first = submit(bucket, 0.0)
    fresh = [submit(bucket, 0.01) for _ in range(3)]
    bucket.observe(first, refusal(), 0.05)
    retried = first.again()
    bucket.submit(retried, 0.6)
    now = 0.6
    while not any(call.hold for call in fresh):
        now = max(now + 1e-3, bucket.wake_at)
        bucket.dispatch(now)
    assert retried.hold is None
