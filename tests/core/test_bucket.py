"""Decisions about calls that share one limit, with time as an argument."""

import math

import pytest

from adaptive_rate_limiter.core.balance import funds
from adaptive_rate_limiter.core.bucket import UNREAD, Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.gauge import TOGETHER
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.core.told import SURE_AFTER
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.testing.limits import TokenBucket
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo, Refusal, RefusalKind


def bucket_of(*quotas, **options):
    return Bucket("a-bucket", quotas, 0.0, **options)


def call(tokens=None, **fields):
    cost = {"requests": 1.0} if tokens is None else {"requests": 1.0, "tokens": float(tokens)}
    return Call(cost, since=fields.pop("since", 0.0), **fields)


def sent(bucket, now=0.0, **fields):
    made = call(**fields)
    bucket.submit(made, now)
    return made


def refusal(kind=RefusalKind.RATE_LIMIT, after=None, unit=None):
    return RateLimitInfo(refusal=Refusal(kind, after, unit=unit))


def test_admitted_at_once_or_in_line_until_its_time():
    bucket = bucket_of(Quota("requests", 2))
    first, second, third = (sent(bucket) for _ in range(3))
    assert [made.hold is not None for made in (first, second, third)] == [True, True, False]
    assert bucket.wake_at == 0.0
    assert bucket.dispatch(0.0) == []
    assert (bucket.wait.limit, bucket.wait.missing, bucket.wake_at) == ("requests", 1.0, 30.0)
    assert third.reason == "requests"
    assert bucket.dispatch(30.0) == [third]
    assert bucket.wake_at == math.inf


def test_those_who_could_go_within_milliseconds_go_together():
    bucket = bucket_of(Quota("requests", 2000, window=1))
    line = [sent(bucket) for _ in range(2020)][2000:]
    assert bucket.dispatch(0.0) == []
    assert bucket.wake_at == TOGETHER
    assert bucket.dispatch(TOGETHER) == line[:10]


@pytest.mark.parametrize("burst", [1, 2, 4])
def test_nothing_of_a_shallow_bucket_is_lost_by_going_together(burst):
    bucket = bucket_of(Quota("requests", 1000, window=1, burst=burst))
    line, now, done = [sent(bucket) for _ in range(burst + 100)][burst:], 0.0, []
    while len(done) < 100:
        done += bucket.dispatch(now)
        now = bucket.wake_at
    assert done == line
    assert bucket.ledger.gauges[0].active[0].lost < 1e-9
    assert now == math.inf


def test_nobody_jumps_the_line():
    bucket = bucket_of(Quota("requests", 1))
    sent(bucket)
    waiting = sent(bucket)
    late = sent(bucket, now=60.0)
    assert not late.hold
    assert not bucket.try_submit(call(), 60.0)
    assert bucket.dispatch(60.0) == [waiting]
    bucket.withdraw(late, 0.5)
    bucket.withdraw(late, 0.5)
    assert bucket.queue.count == 0
    assert bucket.try_submit(call(), 120.0)


def test_an_impossible_request_is_refused_at_once():
    bucket = bucket_of(Quota("tokens", 1000))
    with pytest.raises(CapacityExceededError, match="2,000 tokens can never pass a-bucket") as caught:
        sent(bucket, tokens=2000, certain=True) and sent(bucket, tokens=2000, certain=True)
    assert caught.value.bucket_id == "a-bucket"


def test_an_estimate_that_is_too_large_goes_alone_and_leaves_debt():
    bucket = bucket_of(Quota("tokens", 1000))
    assert sent(bucket, tokens=2000).hold
    waiting = sent(bucket, tokens=500)
    bucket.dispatch(0.0)
    assert bucket.wait.until == pytest.approx(90.0)
    assert bucket.dispatch(90.0) == [waiting]


def test_a_deadline_that_cannot_be_met_is_answered_at_once():
    bucket = bucket_of(Quota("requests", 1))
    sent(bucket)
    sent(bucket)
    with pytest.raises(CapacityExceededError, match="deadline") as caught:
        sent(bucket, deadline=100.0)
    assert caught.value.retry_after == pytest.approx(120.0)
    patient = sent(bucket, deadline=130.0)
    assert patient.in_line


def test_a_deadline_that_comes_while_waiting_is_answered_then():
    bucket = bucket_of(Quota("requests", 1))
    sent(bucket)
    waiting = sent(bucket, deadline=70.0)
    bucket.ledger.gauges[0].take(2.0, 1.0)
    bucket.dispatch(1.0)
    assert bucket.wake_at == 70.0
    assert bucket.dispatch(70.0) == [waiting]
    assert waiting.error is not None
    assert waiting.error.retry_after > 0


def test_a_pause_longer_than_max_pause_is_answered_at_once():
    bucket = bucket_of(Quota("requests", 100), max_pause=60.0)
    first, second = sent(bucket), sent(bucket)
    bucket.ledger.gauges[0].take(97.5, 0.0)
    waiting = sent(bucket)
    bucket.observe(first, refusal(after=73192.0), 0.1)
    assert bucket.dispatch(0.1) == [waiting]
    assert waiting.error.retry_after == pytest.approx(73192.0)
    with pytest.raises(CapacityExceededError, match="max_pause=60") as caught:
        sent(bucket, now=1.0)
    assert caught.value.retry_after > 73000
    assert bucket.settle(second, Usage(), 2.0)


def test_two_thousand_calls_in_line_are_progress_and_no_pause():
    bucket = bucket_of(Quota("requests", 60))
    calls = [sent(bucket) for _ in range(2000)]
    now, admitted = 0.0, sum(call.hold is not None for call in calls)
    while bucket.queue.count:
        done = bucket.dispatch(now)
        assert all(call.error is None for call in done)
        admitted += len(done)
        now = max(now, bucket.wake_at) if bucket.queue.count else now
    assert admitted == 2000
    assert now == pytest.approx(1940.0, rel=0.01)


def test_an_overloaded_provider_is_left_alone_for_longer_each_time():
    bucket = bucket_of(Quota("requests", 100))
    pauses = []
    now = 0.0
    for _ in range(9):
        made = sent(bucket, now=now)
        bucket.observe(made, refusal(RefusalKind.OVERLOAD), now)
        pauses.append(bucket.pause.until - now)
        now = bucket.pause.until
    for pause, least in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert least <= pause <= 1.25 * least  # jitter only adds
    made = sent(bucket, now=now)
    bucket.observe(made, refusal(RefusalKind.OVERLOAD, after=7.0), now)
    assert 7.0 <= bucket.pause.until - now <= 8.75
    bucket.observe(sent(bucket, now=now + 20), RateLimitInfo(), now + 20)
    assert bucket.failures == 0


def test_a_concurrency_refusal_shrinks_the_window_and_passes_widen_it():
    bucket = bucket_of(Quota("requests", 1000), max_concurrency=10)
    calls = [sent(bucket) for _ in range(11)]
    assert not calls[10].hold
    assert bucket.dispatch(0.0) == []
    assert (bucket.wait.limit, bucket.wait.until) == ("concurrency", math.inf)
    bucket.observe(calls[0], refusal(RefusalKind.CONCURRENCY), 0.1)
    assert bucket.concurrency.window == 8.0
    assert bucket.dispatch(0.1) == []
    for made in calls[1:4]:
        bucket.observe(made, RateLimitInfo(), 0.2)
        bucket.settle(made, Usage(), 0.2)
    assert bucket.concurrency.window > 8.3
    assert bucket.dispatch(0.2) == [calls[10]]


@pytest.mark.parametrize(("after", "pause"), [(None, 3600.0), (100.0, 100.0)])
def test_a_spent_quota_stops_everything(after, pause):
    bucket = bucket_of(Quota("requests", 100))
    bucket.observe(sent(bucket), refusal(RefusalKind.QUOTA_EXHAUSTED, after), 1.0)
    assert (bucket.pause.until, bucket.pause.reason) == (1.0 + pause, "quota exhausted")


def test_a_refusal_that_no_wait_cures_changes_nothing_but_the_hold():
    bucket = bucket_of(Quota("requests", 100))
    made = sent(bucket)
    bucket.observe(made, refusal(RefusalKind.NOT_ENTITLED), 0.1)
    assert bucket.concurrency.in_flight == 0
    assert bucket.pause.until < 0
    assert not bucket.settle(made, Usage(), 0.2)


def test_every_way_out_ends_a_hold_once():
    bucket = bucket_of(Quota("requests", 100))
    one, two, three = sent(bucket), sent(bucket), sent(bucket)
    assert [bucket.settle(one, Usage(tokens=5), 0.1), bucket.cancel(one, 0.1)] == [True, False]
    assert [bucket.cancel(two, 0.1), bucket.settle(two, Usage(), 0.1)] == [True, False]
    assert [bucket.lapse(three, 0.2), bucket.lapse(three, 0.2)] == [True, False]
    assert bucket.concurrency.in_flight == 0
    never = call()
    ways = [bucket.cancel(never, 0.2), bucket.lapse(never, 0.2), bucket.settle(never, Usage(), 0.2)]
    assert ways == [False] * 3
    bucket.observe(never, RateLimitInfo(), 0.2)


def test_headers_end_the_search():
    bucket = bucket_of()
    made = sent(bucket)
    assert bucket.untold
    assert made.trial is not None
    bucket.observe(made, RateLimitInfo(quotas=(QuotaReading("requests", 60, 59, 1.0),)), 0.1)
    assert not bucket.untold
    assert bucket.inferred_limits() == {}


def test_a_refusal_against_all_that_is_told_reveals_another_limit():
    bucket = bucket_of(Quota("requests", 1000))
    for at in (0.0, 10.0, 20.0):  # two are waited out, the third is learned from
        assert not bucket.untold
        bucket.observe(sent(bucket, at), refusal(unit="tokens"), at + 0.1)
    assert bucket.untold
    assert bucket.discovery.refusals == 1


def test_cancelling_a_trial_withdraws_it():
    bucket = bucket_of()
    made = sent(bucket)
    bucket.cancel(made, 0.01)
    assert not bucket.discovery.pending
    bucket.observe(made, refusal(RefusalKind.OVERLOAD), 0.2)


def test_the_eta_counts_the_line():
    bucket = bucket_of(Quota("requests", 60))
    for _ in range(90):
        sent(bucket)
    assert bucket.eta({"requests": 1.0}, 0.0) == pytest.approx(31.0)
    assert bucket.largest("requests") == 60.0
    assert bucket.largest("tokens") == math.inf


def test_a_balance_needs_requests_and_tokens():
    bucket = bucket_of(Quota("requests", 60), Quota("tokens", 6000))
    assert funds(bucket.ledger.gauges, 0.0).prefer_large
    assert funds(bucket_of(Quota("requests", 60)).ledger.gauges, 0.0) is None
    assert funds(bucket_of(Quota("requests", 60), Quota("requests", 900, 3600.0)).ledger.gauges, 0.0) is None


def test_the_eta_of_an_untold_limit_goes_by_what_is_believed():
    bucket = bucket_of()
    now = 0.0
    calls = []
    for _ in range(40):
        now += 0.3
        made = sent(bucket, now=now)
        bucket.observe(made, RateLimitInfo(), now)
        bucket.settle(made, Usage(), now)
        calls.append(made)
    refused = sent(bucket, now=now + 0.1)
    bucket.observe(refused, refusal(), now + 0.15)
    for _ in range(50):
        sent(bucket, now=now + 0.2)
    bucket.dispatch(now + 0.5)
    limit = bucket.inferred_limits()["requests"]
    assert limit > 0
    assert bucket.eta({"requests": 1.0}, now + 0.5) >= now + 0.5 + 60.0 * 49 / limit


def answered(bucket, now, remaining, limit=1000.0):
    made = sent(bucket, now)
    bucket.observe(made, RateLimitInfo(quotas=(QuotaReading("requests", limit, remaining, None, 60.0),)), now)
    bucket.settle(made, Usage(), now)


def test_far_from_all_limits_headers_may_stay_unread_for_a_moment():
    bucket = bucket_of()
    for reply in range(SURE_AFTER):
        answered(bucket, 2.0 * reply, 999.0)
        assert bucket.unread_until < 2.0 * reply
    now = 2.0 * SURE_AFTER
    answered(bucket, now, 999.0)
    assert bucket.unread_until == now + UNREAD
    for _ in range(100):  # what is not read is counted all the same
        made = sent(bucket, now)
        bucket.pass_unread(made, now)
        bucket.settle(made, Usage(), now)
    assert bucket.ledger.gauges[0].available(now) <= 900.0


@pytest.mark.parametrize(
    ("remaining", "limit"), [(400.0, 1000.0), (900.0, 950.0)], ids=["near the limit", "the limit has changed"]
)
def test_near_a_limit_or_a_new_one_every_header_is_read(remaining, limit):
    bucket = bucket_of()
    for reply in range(SURE_AFTER + 1):
        answered(bucket, 2.0 * reply, 999.0)
    now = 2.0 * SURE_AFTER + 0.01
    assert bucket.unread_until > now
    answered(bucket, now, remaining, limit)
    assert bucket.unread_until < now
    gauge = bucket.ledger.gauges[0]
    assert gauge.available(now) <= remaining
    assert gauge.limit == limit


def test_after_a_refusal_the_next_header_is_read():
    bucket = bucket_of()
    for reply in range(SURE_AFTER + 1):
        answered(bucket, 2.0 * reply, 999.0)
    now = 2.0 * SURE_AFTER + 0.01
    bucket.observe(sent(bucket, now), refusal(RefusalKind.RATE_LIMIT), now)
    assert bucket.unread_until < now


def test_what_was_refused_is_given_back_at_once_where_strangers_were_seen():
    """Nine tenths of it stayed charged: the next call went twice as late as it could (found in a benchmark)."""
    bucket, provider = bucket_of(), TokenBucket(80_000.0)

    def record(now, tokens):
        made = call(tokens=tokens)
        bucket.record(made, now)
        passed = provider.admit(tokens, now)
        reading = QuotaReading("tokens", 80_000.0, provider.remaining(now), provider.reset_after(now))
        return made, RateLimitInfo(
            quotas=(reading,), refusal=None if passed else refusal(unit="tokens").refusal
        )

    for now in (0.0, 1.0, 2.0, 3.0, 4.0):
        bucket.observe(*record(now, 10_000), now + 0.3)
    provider.charge(1000, 5.0)
    bucket.observe(*record(5.0, 10_000), 5.3)
    under_way = record(5.6, 10_000)
    refused = record(5.6, 25_000)
    bucket.observe(*refused, 5.7)
    bucket.observe(*under_way, 6.0)
    left = bucket.ledger.gauges[0].bucket.available(6.0)
    assert refused[1].refusal
    assert left == pytest.approx(provider.remaining(6.0), abs=500)
