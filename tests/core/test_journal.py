"""Calls that are posted together: whoever looks sees the same as if each had been posted at once, and never more is left."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.estimate import EARLY
from adaptive_rate_limiter.core.hold import HoldState
from adaptive_rate_limiter.core.journal import LONGEST, MOST
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo

ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")
ROUNDING = 1e-6


def bucket_of(*quotas, keeps_journal=True, learned=EARLY + 1):
    bucket = Bucket("b", quotas, 0.0)
    bucket.keeps_journal = keeps_journal
    for _ in range(learned):
        bucket.estimator.learn(0.0, 10.0, 10.0)
    return bucket


def pair_of(*quotas):
    """One that keeps a journal, and one that does not."""
    return bucket_of(*quotas), bucket_of(*quotas, keeps_journal=False)


def admitted(bucket, cost, now):
    """None if the limits cannot pay it now."""
    call = Call(cost, since=now)
    return call if bucket.try_submit(call, now) else None


def replied(bucket, call, now):
    """A success whose headers are not read."""
    call.replied_at = now
    bucket.pass_unread(call, now)


def left(bucket, now):
    return [gauge.available(now) for gauge in bucket.ledger.gauges]


def test_a_call_far_below_the_limit_is_only_noted_and_whoever_looks_sees_it():
    bucket = bucket_of(Quota("requests", 1000))
    asked, noted = (admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(2))
    assert (asked.noted, noted.noted, noted.hold) == (False, True, None)
    assert bucket.ledger.gauges[0].available(0.0) == 998
    assert noted.hold.state is HoldState.RESERVED
    assert bucket.concurrency.in_flight == bucket.account.admitted == 2


def test_after_somebody_has_looked_the_next_call_is_asked_for():
    bucket = bucket_of(Quota("requests", 1000))
    admitted(bucket, {"requests": 1.0}, 0.0)
    bucket.ledger.gauges[0].take(999.0, 0.0)
    assert admitted(bucket, {"requests": 1.0}, 0.0) is None


def test_a_call_of_which_the_journal_cannot_hold_so_many_is_asked_for():
    bucket = bucket_of(Quota("tokens", 64_000))
    calls = [admitted(bucket, {"tokens": tokens}, 0.0) for tokens in (1.0, 300.0, 600.0, 300.0)]
    assert [call.noted for call in calls] == [False, True, False, True]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_noted_never_takes_a_limit_below_the_half_that_is_kept_for_a_look(algorithm):
    bucket = bucket_of(Quota("requests", 1000, algorithm=algorithm))
    calls = [admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(1001)]
    assert calls[-1] is None  # the thousand and first was asked for exactly
    assert any(call.noted for call in calls[:400])
    assert not any(call.noted for call in calls[500:1000])
    assert left(bucket, 0.0) == [0.0]


@pytest.mark.parametrize(("calls", "seconds"), [(MOST, 0.0), (1, LONGEST + 0.001)])
def test_a_journal_is_bounded_in_calls_and_in_time(calls, seconds):
    bucket = bucket_of(Quota("requests", 100_000))
    asked = admitted(bucket, {"requests": 1.0}, 0.0)
    noted = [admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(calls)]
    assert [call.hold for call in noted] == [None] * calls
    last = admitted(bucket, {"requests": 1.0}, seconds)
    assert (asked.noted, last.noted) == (False, False)
    assert all(call.hold is not None for call in noted)
    assert not bucket.journal.calls


def test_nothing_is_only_noted_until_a_hundred_calls_have_told_what_they_use():
    bucket = bucket_of(Quota("requests", 100_000), learned=EARLY)
    first, second = (admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(2))
    bucket.settle(first, Usage(10.0, 10.0), 0.0)
    third, fourth = (admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(2))
    assert [call.noted for call in (first, second, third, fourth)] == [False, False, False, True]


def test_calls_in_flight_are_counted_one_by_one_where_their_number_is_limited():
    bucket = Bucket("b", [Quota("requests", 100_000)], 0.0, max_concurrency=2)
    for _ in range(EARLY + 1):
        bucket.estimator.learn(0.0, 10.0, 10.0)
    assert [admitted(bucket, {"requests": 1.0}, 0.0) is not None for _ in range(3)] == [True, True, False]


def test_an_invitation_is_for_one_call_and_nothing_to_spare():
    bucket = bucket_of(Quota("requests", 100, window=600.0))
    gauge = bucket.ledger.gauges[0]
    gauge.take(100.0, 0.0)
    gauge.invitation = (1.0, 90.0)
    assert admitted(bucket, {"requests": 1.0}, 1.0)
    assert admitted(bucket, {"requests": 1.0}, 1.0) is None


def test_what_ended_in_the_journal_is_charged_with_what_it_used():
    bucket = bucket_of(Quota("tokens", 60_000, algorithm="fixed_window"))
    for _ in range(3):
        call = admitted(bucket, {"tokens": 100.0}, 0.0)
        assert bucket.settle(call, Usage(tokens=30), 0.01)
        assert not bucket.settle(call, Usage(tokens=0), 0.01)
        assert not bucket.cancel(call, 0.01)
    assert left(bucket, 0.02) == [60_000 - 90]
    assert bucket.tally.overestimated == 210


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_used_more_than_it_had_reserved_is_charged_in_full(algorithm):
    pair = pair_of(Quota("tokens", 60_000, algorithm=algorithm))
    for bucket in pair:
        for number in range(3):
            call = admitted(bucket, {"tokens": 100.0}, 0.01 * number)
            bucket.settle(call, Usage(tokens=500), 0.01 * number + 0.005)
    (kept,), (exact,) = (left(bucket, 0.03) for bucket in pair)
    assert (
        exact - LONGEST * 1000 <= kept <= exact
    )  # a bucket that is thought full for so long does not refill
    assert kept <= 60_000 - 1500 + 30


def test_what_is_cancelled_from_the_journal_comes_back_in_full():
    bucket = bucket_of(Quota("requests", 1000, algorithm="sliding_window"))
    calls = [admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(3)]
    assert calls[-1].noted
    assert bucket.cancel(calls[-1], 0.001)
    assert calls[-1].hold.state is HoldState.CANCELLED
    assert left(bucket, 0.001) == [998.0]


def test_what_was_sent_from_the_journal_has_its_time_when_it_is_posted():
    bucket = bucket_of(Quota("requests", 1000))
    _, noted = (admitted(bucket, {"requests": 1.0}, 0.0) for _ in range(2))
    bucket.begin(noted, 0.02)
    replied(bucket, noted, 0.03)
    assert bucket.ledger.sends_told
    assert (noted.hold.sent_at, noted.hold.sent, noted.hold.counted_at) == (0.02, True, 0.03)


def test_a_window_gives_back_what_was_posted_together_when_the_last_of_it_was_counted():
    bucket = bucket_of(Quota("requests", 1000, window=60.0, algorithm="sliding_window"))
    for now in (0.0, 0.01, 0.02, 0.03):
        call = admitted(bucket, {"requests": 1.0}, now)
        bucket.settle(call, Usage(), now + 0.005)
    assert left(bucket, 60.02) == [996.0]
    assert left(bucket, 60.06) == [1000.0]


def test_a_header_that_answers_a_call_in_the_journal_is_read_as_ever():
    pair = pair_of()
    for bucket in pair:
        for number in range(200):
            now = 0.01 * number
            call = admitted(bucket, {"requests": 1.0}, now)
            replied(bucket, call, now + 0.005)
            if number % 5 == 0:
                reading = QuotaReading("requests", 1000.0, 1000.0 - number - 1, 60.0 - now, 60.0)
                bucket.observe(call, RateLimitInfo(quotas=(reading,)), now + 0.005)
            bucket.settle(call, Usage(), now + 0.006)
    kept, at_once = pair
    assert left(kept, 2.0) == pytest.approx(left(at_once, 2.0), abs=5)
    assert kept.ledger.gauges[0].algorithm == at_once.ledger.gauges[0].algorithm


steps = st.tuples(
    st.sampled_from(["admit", "reply", "settle", "cancel", "lapse"]),
    st.floats(0, 1),  # which of those in flight; how much of its reservation it used, and a little more
    st.one_of(st.floats(0, 0.02), st.floats(0, 5)),  # seconds since the last step
)


@settings(max_examples=200)
@given(
    algorithm=st.sampled_from(ALGORITHMS),
    window=st.sampled_from([3.0, 60.0]),
    trace=st.lists(steps, max_size=120),
)
def test_however_calls_end_no_more_is_left_than_without_a_journal_and_all_of_it_comes_back(
    algorithm, window, trace
):
    quotas = Quota("requests", 1200, window, algorithm), Quota("tokens", 120_000, window, algorithm)
    kept, at_once = pair = pair_of(*quotas)
    now, flying = 0.0, []
    for step, part, seconds in trace:
        now += seconds
        if step == "admit":
            cost = {"requests": 1.0, "tokens": 10 + 600 * part}
            calls = Call(cost, since=now), Call(cost, since=now)
            if kept.try_submit(calls[0], now):
                at_once.record(calls[1], now)
                flying.append(calls)
        elif flying:
            calls = flying[int(part * (len(flying) - 1))]
            if step != "reply":
                flying.remove(calls)
            for bucket, call in zip(pair, calls, strict=True):
                if step == "reply":
                    replied(bucket, call, now)
                elif step == "settle":
                    assert bucket.settle(call, Usage(tokens=call.cost["tokens"] * 1.2 * part), now)
                elif step == "cancel":
                    assert bucket.cancel(call, now)
                else:
                    assert bucket.lapse(call, now)
    assert all(mine <= its + ROUNDING for mine, its in zip(left(kept, now), left(at_once, now), strict=True))
    assert dict(kept.ledger.spent) == pytest.approx(dict(at_once.ledger.spent))
    assert kept.concurrency.in_flight == at_once.concurrency.in_flight == len(flying)
    assert kept.account.admitted == at_once.account.admitted
    for calls in flying:
        for bucket, call in zip(pair, calls, strict=True):
            bucket.lapse(call, now)
    later = now + 2 * window + 5
    assert left(kept, later) == pytest.approx([1200, 120_000])
    for gauge in kept.ledger.gauges:
        for level in gauge.models:
            assert level.available(later) == pytest.approx(
                level.initial + level.refilled + level.corrected - level.lost - level.taken
            )
