"""The three ways of counting, as tables of (time, what happens, what is left)."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.core.levels import BucketLevel
from adaptive_rate_limiter.core.windows import SlidingLevel, WindowLevel

KINDS = {"bucket": BucketLevel, "fixed": WindowLevel, "sliding": SlidingLevel}


def level_of(kind, limit=60.0, window=60.0, now=0.0):
    return KINDS[kind](limit, window, now)


def test_a_window_that_ends_later_than_was_thought_gives_back_all_the_same():
    level = level_of("fixed")
    level.take(10.0, 0.0)
    level.ends_at = 61.0
    level.give(4.0, 5.0, taken_at=0.0)
    assert level.available(5.0) == 54.0


def play(level, table):
    for now, act, amount, left in table:
        if act == "take":
            level.take(amount, now)
        elif act == "correct":
            level.correct(amount, now)
        elif act.startswith("give "):
            level.give(amount, now, float(act[5:]))
        assert level.available(now) == pytest.approx(left), (now, act)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("bucket", [(0, "take", 60, 0), (30, "", 0, 30), (30, "take", 40, -10), (100, "", 0, 60)]),
        ("bucket", [(0, "take", 10, 50), (5, "give 0", 10, 60), (5, "correct", 5, 5), (4, "", 0, 5)]),
        ("bucket", [(0, "take", 60, 0), (10, "give 0", -20, -10), (20, "", 0, 0)]),
        (
            "fixed",
            [(5, "take", 60, 0), (64.9, "", 0, 0), (65, "", 0, 60), (70, "take", 10, 50), (130, "", 0, 60)],
        ),
        ("fixed", [(0, "take", 20, 40), (61, "take", 5, 55), (62, "give 0", 20, 55), (63, "give 61", 9, 60)]),
        ("fixed", [(0, "correct", 10, 10), (59, "", 0, 10), (60, "", 0, 60), (61, "give 61", -3, 57)]),
        ("sliding", [(0, "take", 30, 30), (20, "take", 30, 0), (60.2, "", 0, 30), (80.2, "", 0, 60)]),
        (
            "sliding",
            [(0, "take", 30, 30), (10, "give 0", 20, 50), (10, "give 0", 20, 60), (11, "give 0", -4, 56)],
        ),
        ("sliding", [(0, "take", 30, 30), (5, "take", 10, 20), (9, "correct", 45, 45), (9, "correct", 1, 1)]),
    ],
)
def test_what_is_left(kind, table):
    play(level_of(kind), table)


@pytest.mark.parametrize("kind", KINDS)
def test_ready_when_it_says(kind):
    level = level_of(kind)
    assert level.ready_at(60.0, 0.0) == 0.0
    level.take(60.0, 0.0)
    assert level.ready_at(60.1, 1.0) == math.inf
    ready = level.ready_at(20.0, 1.0)
    assert level.available(ready - 0.2) < 20.0 <= level.available(ready) + 1e-6


def test_a_bucket_may_be_shallower_than_its_limit_and_change():
    level = BucketLevel(60.0, 60.0, 0.0, burst=10.0)
    assert level.capacity == 10.0
    level.take(10.0, 0.0)
    level.deepen(20.0, 0.0)
    assert level.available(0.0) == pytest.approx(10.0)
    assert level.available(100.0) == 20.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_limit_keeps_what_was_used(kind):
    level = level_of(kind)
    level.take(50.0, 0.0)
    level.resize(100.0, 60.0, 0.0)
    assert level.available(0.0) == pytest.approx(50.0)
    level.resize(30.0, 10.0, 0.0)
    assert level.available(0.0) == pytest.approx(-20.0)
    assert level.capacity == 30.0
    assert level.available(30.0) == pytest.approx(30.0)


def test_a_full_bucket_does_not_refill_until_the_provider_counts():
    level = BucketLevel(60.0, 60.0, 0.0)
    level.take(60.0, 5.0)
    level.delay(60.0, 5.0, 7.0)
    level.delay(60.0, 5.0, 9.0)  # once
    assert level.available(10.0) == pytest.approx(3.0)


def test_a_fixed_window_ends_no_earlier_than_the_provider_may_have_opened_it():
    level = WindowLevel(60.0, 60.0, 0.0)
    level.take(60.0, 5.0)
    level.delay(60.0, 5.0, 7.0)
    level.delay(60.0, 6.0, 9.0)  # it opened nothing
    assert level.ready_at(1.0, 10.0) == 67.0
    assert level.opened_at(10.0) == 5.0


def test_a_sliding_window_gives_back_when_the_provider_may_have_counted():
    level = SlidingLevel(60.0, 60.0, 0.0)
    level.take(60.0, 5.0)
    level.delay(10.0, 5.0, 7.0)
    assert level.available(65.15) == pytest.approx(50.0)
    assert level.returning(67.2) == pytest.approx(10.0)
    assert level.available(67.2) == pytest.approx(60.0)
    level.delay(10.0, 5.0, 7.0)  # long gone


moves = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from(["take", "give", "correct", "delay", "resize"]),
        st.floats(-20, 80),
        st.floats(0, 40),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", KINDS)
@given(moves=moves)
@settings(max_examples=60, deadline=None)
def test_nothing_is_made_and_nothing_vanishes(kind, moves):
    level = level_of(kind)
    now = 0.0
    for elapsed, act, amount, ago in moves:
        now += elapsed
        if act == "take":
            level.take(abs(amount), now)
        elif act == "give":
            level.give(amount, now, now - ago)
        elif act == "correct":
            level.correct(amount, now)
        elif act == "delay":
            level.available(now)
            level.delay(abs(amount), now - ago, now)
        else:
            level.resize(abs(amount) + 1, 60.0 if ago < 20 else 10.0, now)
        left = level.available(now)
        sums = level.initial + level.refilled + level.corrected - level.lost - level.taken
        assert left == pytest.approx(sums, abs=1e-6)
        assert left <= level.capacity + 1e-6
        assert math.isfinite(left)


def test_a_full_bucket_does_not_refill_while_what_was_taken_is_on_its_way():
    level = BucketLevel(60.0, 60.0, 0.0)
    level.take(10.0, 0.0)
    level.on_the_way += 10.0
    assert level.available(5.0) == 50.0
    level.arrive(4.0, 6.0)
    assert level.available(9.0) == 53.0
    level.arrive(6.0, 12.0)
    assert level.available(13.0) == 55.0
    assert level.initial + level.refilled - level.lost - level.taken == level.available(13.0)
