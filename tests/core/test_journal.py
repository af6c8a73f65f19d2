"""Calls that are posted together: whoever looks sees the same as if each had been posted at once, and never more is left."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.core.hold import HoldState
from adaptive_rate_limiter.core.journal import LONGEST, MOST
from adaptive_rate_limiter.core.ledger import Ledger
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.types import QuotaReading

ALGORITHMS = ("token_bucket", "fixed_window", "sliding_window")
ROUNDING = 1e-6


def ledgers(*quotas):
    """One that keeps a journal, and one that does not."""
    kept, told_at_once = Ledger(quotas, 0.0), Ledger(quotas, 0.0)
    told_at_once.keeps_journal = False
    return kept, told_at_once


def admitted(ledger, cost, now):
    """As a bucket does: ask, then take."""
    return None if ledger.shortage(cost, now) else ledger.reserve(cost, now)


def left(ledger, now):
    return [gauge.available(now) for gauge in ledger.gauges]


def test_a_call_far_below_the_limit_is_only_noted_and_whoever_looks_sees_it():
    ledger, _ = ledgers(Quota("requests", 100))
    hold = admitted(ledger, {"requests": 1.0}, 0.0)
    assert not hold.posted
    assert ledger.gauges[0].available(0.0) == 99
    assert hold.posted


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_noted_never_takes_a_limit_below_the_half_that_is_kept_for_a_look(algorithm):
    ledger, _ = ledgers(Quota("requests", 1000, algorithm=algorithm))
    holds = [admitted(ledger, {"requests": 1.0}, 0.0) for _ in range(1001)]
    assert holds[-1] is None  # the thousand and first was asked for exactly
    assert all(hold.posted for hold in holds[600:1000])
    assert left(ledger, 0.0) == [0.0]


@pytest.mark.parametrize(("calls", "seconds"), [(MOST, 0.0), (2, LONGEST + 0.001)])
def test_a_journal_is_bounded_in_calls_and_in_time(calls, seconds):
    ledger, _ = ledgers(Quota("requests", 100_000))
    for number in range(calls):
        assert len(ledger.journal) == number
        last = admitted(ledger, {"requests": 1.0}, number * seconds)
    assert last.posted
    assert ledger.journal == []


def test_an_invitation_is_for_one_call_and_nothing_to_spare():
    ledger, _ = ledgers(Quota("requests", 100, window=600.0))
    gauge = ledger.gauges[0]
    gauge.take(100.0, 0.0)
    gauge.invitation = (1.0, 90.0)
    first = admitted(ledger, {"requests": 1.0}, 1.0)
    assert first.posted
    assert admitted(ledger, {"requests": 1.0}, 1.0) is None


def test_what_ended_in_the_journal_is_charged_with_what_it_used():
    ledger, _ = ledgers(Quota("tokens", 60_000, algorithm="fixed_window"))
    for _ in range(3):
        hold = admitted(ledger, {"tokens": 100.0}, 0.0)
        assert ledger.settle(hold, {"tokens": 30.0}, 0.01)
        assert not ledger.settle(hold, {"tokens": 0.0}, 0.01)
        assert not ledger.cancel(hold, 0.01)
    assert left(ledger, 0.02) == [60_000 - 90]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_used_more_than_it_had_reserved_is_charged_in_full(algorithm):
    ledger, at_once = ledgers(Quota("tokens", 60_000, algorithm=algorithm))
    for each in (ledger, at_once):
        for number in range(3):
            hold = admitted(each, {"tokens": 100.0}, 0.01 * number)
            each.settle(hold, {"tokens": 500.0}, 0.01 * number + 0.005)
    (kept,), (exact,) = left(ledger, 0.03), left(at_once, 0.03)
    assert (
        exact - LONGEST * 1000 <= kept <= exact
    )  # a bucket that is thought full for so long does not refill
    assert kept <= 60_000 - 1500 + 30


def test_what_is_cancelled_from_the_journal_comes_back_in_full():
    ledger, _ = ledgers(Quota("requests", 100, algorithm="sliding_window"))
    holds = [admitted(ledger, {"requests": 1.0}, 0.0) for _ in range(3)]
    assert ledger.cancel(holds[-1], 0.001)
    assert holds[-1].state is HoldState.CANCELLED
    assert left(ledger, 0.001) == [98.0]


def test_a_window_gives_back_what_was_posted_together_when_the_last_of_it_was_counted():
    ledger, _ = ledgers(Quota("requests", 1000, window=60.0, algorithm="sliding_window"))
    for now in (0.0, 0.01, 0.02, 0.03):
        hold = admitted(ledger, {"requests": 1.0}, now)
        ledger.settle(hold, {"requests": 1.0}, now + 0.005)
    assert left(ledger, 60.02) == [996.0]
    assert left(ledger, 60.06) == [1000.0]


def test_a_header_that_answers_a_call_in_the_journal_is_read_as_ever():
    ledger, at_once = ledgers()
    for each in (ledger, at_once):
        for number in range(200):
            now = 0.01 * number
            hold = admitted(each, {"requests": 1.0}, now)
            each.arrived(hold, now + 0.005)
            if number % 5 == 0:
                reading = QuotaReading("requests", 1000.0, 1000.0 - number - 1, 60.0 - now, 60.0)
                each.read((reading,), hold, now + 0.005)
            each.settle(hold, {"requests": 1.0}, now + 0.006)
    assert left(ledger, 2.0) == pytest.approx(left(at_once, 2.0), abs=5)
    assert ledger.gauges[0].algorithm == at_once.gauges[0].algorithm


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
    quotas = Quota("requests", 120, window, algorithm), Quota("tokens", 12_000, window, algorithm)
    pair = ledgers(*quotas)
    now, flying = 0.0, []
    for step, part, seconds in trace:
        now += seconds
        if step == "admit":
            cost = {"requests": 1.0, "tokens": 10 + 300 * part}
            if all(each.shortage(cost, now) is None for each in pair):
                flying.append(([each.reserve(cost, now) for each in pair], cost))
        elif flying:
            holds, cost = flying[int(part * (len(flying) - 1))]
            if step != "reply":
                flying.remove((holds, cost))
            for each, hold in zip(pair, holds, strict=True):
                if step == "reply":
                    each.arrived(hold, now)
                elif step == "settle":
                    each.settle(hold, {**cost, "tokens": cost["tokens"] * 1.2 * part}, now)
                elif step == "cancel":
                    each.cancel(hold, now)
                else:
                    each.lapse(hold)
    kept, at_once = pair
    assert all(mine <= its + ROUNDING for mine, its in zip(left(kept, now), left(at_once, now), strict=True))
    assert dict(kept.spent) == pytest.approx(dict(at_once.spent))
    for holds, _ in flying:
        for each, hold in zip(pair, holds, strict=True):
            each.lapse(hold)
    later = now + 2 * window + 5
    assert left(kept, later) == pytest.approx([120, 12_000])
    for gauge in kept.gauges:
        for level in gauge.models:
            assert level.available(later) == pytest.approx(
                level.initial + level.refilled + level.corrected - level.lost - level.taken
            )
