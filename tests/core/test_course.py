"""A limit that changes counts for as long as it was in force, and the account is right about both times."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.core.course import MOST, Course, lower_bound, refill, refilled_at, window_bound
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.testing import FakeClock, FixedWindow, Gate, Rule, TokenBucket


def gauge(algorithm="token_bucket"):
    return Gauge.stated(Quota("requests", 60, 60.0, algorithm), 0.0)


TERMS = [(0.0, 60.0), (100.0, 240.0), (130.0, 30.0)]  # one a second, four, one in two seconds


@pytest.mark.parametrize(
    ("demand", "seconds"),
    [(60, 0.0), (110, 50.0), (160, 100.0), (200, 110.0), (280, 130.0), (281, 132.0), (290, 150.0)],
)
def test_a_bucket_refills_as_fast_as_the_limit_of_the_time_allows(demand, seconds):
    changed = gauge()
    changed.limit = 30.0  # the one of now; the bucket's depth went with it
    changed.active[0].resize(30.0, 60.0, 130.0)
    assert lower_bound(changed, demand, TERMS) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("demand", "seconds"),
    [
        (60, 0.0),
        (61, 60.0),
        (120, 60.0),
        (121, 100.0),  # raised within the window from 60
        (300, 100.0),
        (301, 120.0),
        (330, 120.0),  # lowered within the window from 120
        (331, 180.0),
        (390, 240.0),
        (391, 300.0),
    ],
)
def test_each_window_lets_through_what_the_limit_was_in_the_end(demand, seconds):
    assert window_bound(demand, 60.0, TERMS) == seconds


changes = st.lists(
    st.tuples(st.floats(0.5, 500.0), st.integers(1, 50)), max_size=6, unique_by=lambda change: change[0]
)


@given(st.integers(1, 50), changes, st.integers(1, 800))
def test_windows_in_one_go_and_one_by_one(first, later, demand):
    terms = [(0.0, float(first)), *((at, float(limit)) for at, limit in sorted(later))]
    left, turn = demand, 0
    while True:
        start, end = turn * 10.0, (turn + 1) * 10.0
        limit = [limit for at, limit in terms if at < end or at == start][-1]
        if left <= limit:
            break
        left, turn = left - limit, turn + 1
    assert start <= window_bound(demand, 10.0, terms) < end


@given(st.integers(1, 50), changes, st.floats(0.1, 800.0))
def test_what_has_flowed_in_by_then_is_what_was_asked_for(first, later, amount):
    terms = [(0.0, float(first)), *((at, float(limit)) for at, limit in sorted(later))]
    assert refill(refilled_at(amount, 60.0, terms), 60.0, terms) == pytest.approx(amount)


def test_a_window_that_proves_another_was_never_what_it_was_held_for():
    limit = gauge()
    course = Course(limit, 0.0)
    limit.limit = 120.0
    course.follow(limit, 5.0)
    limit.window = 1.0
    course.follow(limit, 10.0)
    assert course.since(0.0) == [(0.0, 120.0)]


def test_what_is_remembered_is_bounded_and_its_sum_is_kept():
    limit = gauge()
    course = Course(limit, 0.0)
    for second in range(1, 1001):
        limit.limit = 60.0 + second % 7
        course.follow(limit, float(second))
    exact = [(float(second), 60.0 + second % 7) for second in range(1001)]
    assert len(course.terms) == MOST
    assert refill(1000.0, 60.0, course.since(0.0)) == pytest.approx(refill(1000.0, 60.0, exact))


def run(limiter, clock, rule, calls, change):
    """As many calls as go, one after another; `change` is (seconds, limit). What the provider says is the least."""
    gate = Gate([rule])
    pending = [change]
    while calls:
        if pending and clock.now() >= pending[0][0]:
            rule.set_limit(pending.pop()[1], clock.now())
        reservation = limiter.try_acquire("m")
        if reservation is None:
            clock.advance(0.125)
            continue
        admitted = gate.admit({"requests": 1.0}, clock.now()).admitted
        gate.release()
        headers = {
            "x-ratelimit-limit-requests": f"{rule.limit.limit:.0f}",
            "x-ratelimit-remaining-requests": f"{math.floor(max(0.0, rule.limit.remaining(clock.now())))}",
            "x-ratelimit-reset-requests": f"{rule.limit.reset_after(clock.now()):.3f}s",
        }
        reservation.observe(200 if admitted else 429, headers)
        reservation.settle()
        calls -= admitted
    return gate.lower_bound()


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow])
@pytest.mark.parametrize(("first", "at", "then", "calls"), [(60, 121.0, 240, 400), (240, 90.0, 60, 560)])
def test_the_account_follows_a_limit_that_changed(kind, first, at, then, calls):
    clock = FakeClock()
    limiter = Limiter(clock=clock)
    bound = run(limiter, clock, Rule("requests", "requests", kind(first)), calls, (at, then))
    account = limiter.snapshot().buckets[0].account
    assert account.binding == "requests"
    assert account.lower_bound == pytest.approx(bound, rel=0.03)
    assert account.share == pytest.approx(bound / account.elapsed, rel=0.03)
    assert account.share > 0.9
    if kind is TokenBucket:
        assert math.fsum(account.lost.values()) + account.left == pytest.approx(
            account.elapsed - account.lower_bound
        )
