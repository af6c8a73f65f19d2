"""The account: what lies above the lower bound was lost to a cause, or left."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.course import lower_bound
from adaptive_rate_limiter.core.gauge import Gauge
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.core.reports import AccountReport


@pytest.mark.parametrize(
    ("algorithm", "demand", "seconds"),
    [
        ("token_bucket", 60, 0.0),
        ("token_bucket", 61, 1.0),
        ("token_bucket", 240, 180.0),
        ("fixed_window", 60, 0.0),
        ("fixed_window", 61, 60.0),
        ("sliding_window", 180, 120.0),
        ("sliding_window", 181, 180.0),
    ],
)
def test_lower_bound(algorithm, demand, seconds):
    assert lower_bound(Gauge.stated(Quota("requests", 60, 60.0, algorithm), 0.0), demand) == seconds


def drive(bucket, calls, *, in_flight_for):
    """Submit `calls` at once; each ends `in_flight_for` seconds after its admission. The last instant."""
    admitted = []
    waiting = [Call({"requests": 1.0}, since=0.0) for _ in range(calls)]
    for call in waiting:
        bucket.submit(call, 0.0)
        if call.hold is not None:
            admitted.append((in_flight_for, call))
    now = 0.0
    while admitted or bucket.queue.count:
        while admitted and admitted[0][0] <= now:
            bucket.settle(admitted.pop(0)[1], Usage(), now)
        admitted += [(now + in_flight_for, call) for call in bucket.dispatch(now)]
        if not bucket.queue.count:
            break
        upcoming = [bucket.wake_at] + ([admitted[0][0]] if admitted else [])
        now = max(min(upcoming), now + 1e-3)
    return now


@given(
    calls=st.integers(61, 200),
    concurrency=st.integers(1, 80),
    in_flight_for=st.floats(0.1, 30.0),
)
def test_time_above_the_bound_is_lost_or_left(calls, concurrency, in_flight_for):
    bucket = Bucket("b", [Quota("requests", 60)], 0.0, max_concurrency=concurrency)
    end = drive(bucket, calls, in_flight_for=in_flight_for)
    report = bucket.account.report(bucket.ledger.gauges, end)
    assert report.binding == "requests"
    assert report.lower_bound == pytest.approx(calls - 60)
    assert report.elapsed >= report.lower_bound - 1e-6
    above = report.elapsed - report.lower_bound
    assert math.fsum(report.lost.values()) + report.left == pytest.approx(above, abs=1e-6)
    assert report.left == pytest.approx(bucket.ledger.gauges[0].available(report.elapsed), abs=0.01)


def test_lost_refill_is_put_down_to_its_cause():
    bucket = Bucket("b", [Quota("requests", 60)], 0.0, max_concurrency=10)
    end = drive(bucket, 100, in_flight_for=20.0)
    report = bucket.account.report(bucket.ledger.gauges, end)
    assert report.elapsed == pytest.approx(180.0, abs=0.1)  # ten at a time, twenty seconds each
    assert set(report.lost) == {"concurrency"}
    assert str(report).startswith("22% of what the limits allowed; requests bound; 50.0% lost to concurrency")


def test_nothing_asked_for_nothing_lost():
    bucket = Bucket("b", [Quota("requests", 60)], 0.0)
    assert str(bucket.account.report(bucket.ledger.gauges, 100.0)) == "no limit was reached"


def test_the_account_in_words():
    report = AccountReport(
        elapsed=100.0,
        lower_bound=97.0,
        share=0.97,
        binding="tokens",
        waited={"tokens": 81.0, "requests": 10.0},
        lost={"tokens": 2.0, "empty queue": 0.0},
        left=1.0,
    )
    assert str(report) == (
        "97% of what the limits allowed; tokens bound 81% of the time; "
        "2.0% lost to reservations that were too large; 1.0% left unused"
    )


def test_what_held_calls_back_is_said_where_no_limit_was_used_up():
    report = AccountReport(
        20.0, 0.0, 0.0, None, {"retry-after": 20.0, "tokens": 0.01, "undiscovered limit": 1.0}
    )
    assert (
        str(report) == "no limit was used up; held back 20.0 s by retry-after, 1.0 s by finding out the limit"
    )


def test_causes_are_named_as_a_person_would():
    report = AccountReport(10.0, 9.0, 0.9, "requests", {}, {"empty queue": 1.0})
    assert str(report) == "90% of what the limits allowed; requests bound; 10.0% lost to an empty line"


def test_of_requests_none_is_too_large():
    report = AccountReport(10.0, 9.9, 0.99, "requests", {}, {"requests": 0.1, "concurrency": 0.001})
    assert str(report) == "99% of what the limits allowed; requests bound; 1.0% lost to calls that went late"
