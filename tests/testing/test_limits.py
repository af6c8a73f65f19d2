import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket, new_limit

NEVER = math.inf


def play(limit, rows):
    """Rows of (time, event, arguments, expectation)."""
    for at, event, *rest in rows:
        *arguments, expected = rest
        assert getattr(limit, event)(*arguments, at) == pytest.approx(expected), (at, event)


TABLES = {
    "a bucket starts full, refills evenly and not beyond its depth": (
        TokenBucket(60, 60),
        [
            (0, "remaining", 60),
            (0, "reset_after", 0),
            (0, "admit", 60, True),
            (0, "admit", 1, False),
            (0, "retry_after", 10, 10),
            (10, "admit", 10, True),
            (10, "reset_after", 60),
            (70, "reset_after", 0),
            (1000, "remaining", 60),
        ],
    ),
    "a shallow bucket holds burst seconds of refill": (
        TokenBucket(60, 60, burst=5),
        [
            (0, "remaining", 5),
            (0, "admit", 6, False),
            (0, "retry_after", 6, NEVER),
            (0, "admit", 5, True),
            (2.5, "remaining", 2.5),
            (9, "remaining", 5),
        ],
    ),
    "a bucket always holds one unit": (
        TokenBucket(1, 60, burst=0),
        [(0, "admit", 1, True), (0, "retry_after", 1, 60), (60, "admit", 1, True)],
    ),
    "a debt is paid before anything is admitted": (
        TokenBucket(10, 10),
        [
            (0, "charge", 15, None),
            (0, "balance", -5),
            (0, "remaining", 0),
            (0, "retry_after", 1, 6),
            (0, "reset_after", 15),
            (6, "admit", 1, True),
        ],
    ),
    "a raise of a bucket changes the rate at once and gives nothing": (
        TokenBucket(10, 10),
        [
            (0, "admit", 10, True),
            (0, "set_limit", 100, None),
            (0, "remaining", 0),
            (1, "remaining", 10),
            (1, "reset_after", 9),
            (1, "set_limit", 5, None),
            (1, "remaining", 5),
            (1, "admit", 6, False),
        ],
    ),
    "a refund fills a bucket at most": (
        TokenBucket(10, 10),
        [
            (0, "admit", 4, True),
            (0, "refund", 1, None),
            (0, "remaining", 7),
            (0, "refund", 50, None),
            (0, "remaining", 10),
        ],
    ),
    "refused requests drain a bucket without a debt": (
        TokenBucket(10, 10),
        [(0, "admit", 9, True), (0, "charge_refused", 5, None), (0, "balance", 0), (3, "balance", 3)],
    ),
    "time does not go backwards": (
        TokenBucket(10, 10),
        [(5, "admit", 10, True), (3, "remaining", 0), (6, "remaining", 1)],
    ),
    "a window opens with the first charge": (
        FixedWindow(2, 10),
        [
            (3, "reset_after", 0),
            (3, "admit", 1, True),
            (3, "reset_after", 10),
            (12.5, "admit", 1, True),
            (12.5, "admit", 1, False),
            (12.5, "retry_after", 1, 0.5),
            (12.5, "retry_after", 3, NEVER),
            (13, "remaining", 2),
            (20, "admit", 2, True),
            (20, "reset_after", 10),
        ],
    ),
    "aligned windows follow the clock": (
        FixedWindow(2, 10, aligned=True, epoch=1),
        [
            (3, "reset_after", 8),
            (3, "admit", 2, True),
            (10.9, "admit", 1, False),
            (11, "admit", 2, True),
            (11, "reset_after", 10),
            (57, "reset_after", 4),
        ],
    ),
    "what a fixed window has used stays used when the limit changes": (
        FixedWindow(4, 10),
        [
            (0, "admit", 3, True),
            (1, "set_limit", 2, None),
            (1, "remaining", 0),
            (1, "retry_after", 1, 9),
            (2, "set_limit", 10, None),
            (2, "remaining", 7),
            (2, "refund", 2, None),
            (2, "remaining", 9),
            (2, "refund", 20, None),
            (2, "remaining", 10),
        ],
    ),
    "refused requests count in a window": (
        FixedWindow(4, 10),
        [(0, "charge_refused", 5, None), (0, "balance", -1), (10, "balance", 4)],
    ),
    "a sliding window forgets each entry by itself": (
        SlidingWindow(3, 10),
        [
            (0, "reset_after", 0),
            (0, "admit", 1, True),
            (4, "admit", 2, True),
            (4, "reset_after", 6),
            (4, "admit", 1, False),
            (4, "retry_after", 1, 6),
            (4, "retry_after", 2, 10),
            (4, "retry_after", 4, NEVER),
            (10, "admit", 1, True),
            (13, "remaining", 0),
            (14, "remaining", 2),
        ],
    ),
    "a refund takes the newest entries": (
        SlidingWindow(10, 10),
        [
            (0, "admit", 4, True),
            (1, "admit", 4, True),
            (1, "refund", 6, None),
            (1, "remaining", 8),
            (10, "remaining", 10),
            (10, "refund", 3, None),
            (10, "remaining", 10),
        ],
    ),
    "what a sliding window has used stays used when the limit changes": (
        SlidingWindow(4, 10),
        [
            (0, "admit", 3, True),
            (1, "set_limit", 2, None),
            (1, "admit", 1, False),
            (2, "set_limit", 5, None),
            (2, "remaining", 2),
        ],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_table(name):
    play(*TABLES[name])


def test_an_unknown_algorithm_and_limits_without_sense_are_errors():
    with pytest.raises(ValueError, match="leaky"):
        new_limit("leaky", 1, 1)
    for limit, window in ((0, 60), (-1, 60), (math.inf, 60), (math.nan, 60), (1, 0), (1, math.inf)):
        with pytest.raises(ValueError, match="positive"):
            FixedWindow(limit, window)


REQUESTS = st.lists(
    st.tuples(st.floats(0, 8), st.integers(1, 12)), min_size=1, max_size=60
)  # seconds since the one before, cost


def admitted(limit, requests):
    now, log = 0.0, []
    for gap, cost in requests:
        now += gap
        if limit.admit(cost, now):
            log.append((now, cost))
    return log


@given(REQUESTS)
def test_no_interval_sees_more_than_depth_and_refill_of_a_bucket(requests):
    bucket = TokenBucket(10, 10, burst=6)
    log = admitted(bucket, requests)
    for i, (start, _) in enumerate(log):
        total = 0
        for at, cost in log[i:]:
            total += cost
            assert total <= bucket.capacity + bucket.rate * (at - start) + 1e-6


@given(REQUESTS)
def test_no_window_of_a_sliding_log_sees_more_than_the_limit(requests):
    log = admitted(SlidingWindow(10, 10), requests)
    for end, _ in log:
        assert sum(cost for at, cost in log if at + 10 - 1e-8 > end >= at) <= 10


@given(REQUESTS, st.floats(0, 20))
def test_no_aligned_window_sees_more_than_the_limit(requests, epoch):
    log = admitted(FixedWindow(10, 10, aligned=True, epoch=epoch), requests)
    windows = {}
    for at, cost in log:
        number = math.floor((at + 1e-9 - epoch) / 10)
        windows[number] = windows.get(number, 0) + cost
    assert max(windows.values(), default=0) <= 10


@given(REQUESTS)
def test_windows_from_the_first_request_see_no_more_than_the_limit(requests):
    start, used = -math.inf, 0
    for at, cost in admitted(FixedWindow(10, 10), requests):
        if at >= start + 10 - 1e-9:
            start, used = at, 0
        used += cost
        assert used <= 10


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
@given(REQUESTS, st.integers(1, 10))
def test_waiting_exactly_retry_after_is_enough(algorithm, requests, cost):
    limit = new_limit(algorithm, 10, 10)
    admitted(limit, requests)
    now = sum(gap for gap, _ in requests)
    wait = limit.retry_after(cost, now)
    assert 0 <= wait <= 10
    assert limit.fits(cost, now + wait)
    if wait > 1e-3:
        before = new_limit(algorithm, 10, 10)
        admitted(before, requests)
        assert not before.fits(cost, now + wait - 1e-4)


@pytest.mark.parametrize("limit", [FixedWindow(2, 10), SlidingWindow(2, 10)])
def test_a_wait_of_one_window_is_not_rounded_above_it(limit):
    """6.449562809591503 + 10 - 6.449562809591503 is above 10, and was told as "retry-after: 11"."""
    now = 6.449562809591503
    limit.charge(2, now)
    assert (limit.retry_after(1, now), limit.reset_after(now)) == (10, 10)
    assert limit.admit(1, now + 10)


def test_a_cost_of_all_there_is_fits_a_sliding_window_after_fractions():
    """The sum of fractions that leave was a little below the sum that was taken: told as "never fits"."""
    limit = SlidingWindow(0.7, 10)
    for n in range(7):
        limit.charge(0.1, n)
    wait = limit.retry_after(0.7, 7)
    assert wait == 9
    assert limit.admit(0.7, 7 + wait)


@given(st.floats(0, 1e6), st.floats(0.1, 100), st.floats(0, 1e6))
def test_an_aligned_window_ends_when_it_says(epoch, window, at):
    limit = FixedWindow(1, window, aligned=True, epoch=epoch)
    limit.charge(1, epoch + at)
    wait = limit.retry_after(1, epoch + at)
    assert 0 < wait <= window
    assert limit.fits(1, epoch + at + wait)
