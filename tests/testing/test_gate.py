import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter.testing.gate import Gate, Rule, Strangers, bucket_bound, window_bound
from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket, new_limit


def gate(requests=None, tokens=None, output_tokens=None, **kwargs):
    limits = {"requests": requests, "tokens": tokens, "output_tokens": output_tokens}
    return Gate([Rule(unit, unit, limit) for unit, limit in limits.items() if limit], **kwargs)


def cost(tokens, **more):
    return {"requests": 1, "tokens": tokens, **more}


def test_all_limits_admit_or_none_is_charged():
    both = gate(TokenBucket(10, 10), TokenBucket(100, 10))
    assert both.admit(cost(90), 0).admitted
    refused = both.admit(cost(30), 0)
    assert (refused.admitted, refused.refused_by, refused.retry_after) == (False, "tokens", pytest.approx(2))
    assert [rule.limit.remaining(0) for rule in both.rules] == [9, 10]


def test_the_longest_wait_is_told():
    both = gate(TokenBucket(1, 10), TokenBucket(100, 20))  # full again after 10 s and 20 s
    both.admit(cost(100), 0)
    assert both.admit(cost(10), 0).refused_by == "requests"
    assert both.admit(cost(99), 9.5).refused_by == "tokens"


def test_a_request_above_a_limit_is_too_large():
    verdict = gate(TokenBucket(10, 10), SlidingWindow(100, 10)).admit(cost(101), 0)
    assert verdict.too_large
    assert verdict.refused_by == "tokens"


def test_concurrency_is_refused_without_a_time_and_freed_by_release():
    two = gate(TokenBucket(10, 10), max_concurrency=2)
    assert two.admit(cost(1), 0).admitted
    assert two.admit(cost(1), 0).admitted
    verdict = two.admit(cost(1), 0)
    assert (verdict.refused_by, verdict.retry_after, verdict.too_large) == ("concurrency", None, False)
    two.release()
    assert two.admit(cost(1), 0).admitted


def test_usage_is_charged_late_and_blocks_while_in_debt():
    late = gate(TokenBucket(10, 10), None, TokenBucket(10, 10))
    assert late.admit(cost(1, output_tokens=0), 0).admitted
    late.produce({"output_tokens": 15}, 0)
    assert late.admit(cost(1, output_tokens=0), 5).retry_after == pytest.approx(1)
    assert late.admit(cost(1), 5).admitted  # embeddings produce nothing
    assert late.admit(cost(1, output_tokens=0), 6).admitted


def test_refused_requests_count_when_asked():
    strict = gate(FixedWindow(2, 10), FixedWindow(10, 10), count_refused=True)
    assert not strict.admit(cost(11), 0).admitted
    assert strict.admit(cost(10), 0).admitted
    assert strict.admit(cost(1), 0).refused_by == "requests"
    assert [rule.limit.balance(0) for rule in strict.rules] == [-1, 0]


@pytest.mark.parametrize(
    ("algorithm", "left"),
    [
        ("token_bucket", 100 + 10 * 70),  # the depth
        ("fixed_window", 100 + 9 * 70),  # the first window, before they ask
        ("sliding_window", 100 + 9 * 70),
    ],
)
def test_strangers_take_their_share_and_only_that(algorithm, left):
    """In windows, an eager client crowded them out."""
    limit = new_limit(algorithm, 100, 10)
    others = Strangers(limit, 0.3)
    others.catch_up(0)
    taken, now = 0, 0.0
    while now < 100:
        others.catch_up(now)
        taken += limit.admit(1, now)
        now += 0.0625
    assert left - 30 <= taken <= left + 1


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
def test_a_client_that_leaves_them_room_is_never_refused_by_strangers(algorithm):
    limit = new_limit(algorithm, 100, 10)
    others = Strangers(limit, 0.3)
    for n in range(650):
        now = n / 6.5
        others.catch_up(now)
        assert limit.admit(1, now)


def test_strangers_who_found_nothing_left_go_first_when_a_window_opens():
    window = FixedWindow(100, 10)
    others = Strangers(window, 0.3)
    others.catch_up(0)
    window.charge(100, 0)
    others.catch_up(9.99)
    assert window.remaining(9.99) == 0
    others.catch_up(10.01)
    assert window.remaining(10.01) == pytest.approx(70)


def test_strangers_leave_a_bucket_almost_full_when_nobody_else_sends():
    bucket = TokenBucket(100, 10)
    others = Strangers(bucket, 0.5)
    for now in (0, 3, 500):
        others.catch_up(now)
        assert bucket.remaining(now) >= 99


@pytest.mark.parametrize("share", [-0.1, 1, math.nan])
def test_strangers_cannot_take_everything(share):
    with pytest.raises(ValueError, match="share"):
        Strangers(TokenBucket(1, 1), share)


BOUNDS = [  # total, depth, rates, expected
    (10, 10, [(0, 1)], 0),
    (25, 10, [(0, 1)], 15),
    (25, 10, [(0, 1), (5, 2)], 10),
    (25, 10, [(0, 2), (5, 1), (6, 4)], 7),
    (10, 10, [(0, 1), (0, 5)], 0),
]


@pytest.mark.parametrize(("total", "depth", "rates", "expected"), BOUNDS)
def test_bound_of_a_bucket(total, depth, rates, expected):
    assert bucket_bound(total, depth, rates) == pytest.approx(expected)


WINDOWS = [  # total, limits, first, expected
    (0, [(0, 10)], None, 0),
    (10, [(0, 10)], None, 0),
    (11, [(0, 10)], None, 60),
    (30, [(0, 10)], None, 120),
    (30, [(0, 10)], 5, 65),
    (30, [(0, 10), (61, 20)], None, 60),
    (35, [(0, 20), (30, 10)], None, 120),
]


def test_bound_of_windows_with_strangers():
    assert window_bound(100, 10, [(0, 100)], strangers=0.3) == 0
    assert window_bound(169, 10, [(0, 100)], strangers=0.3) == 10
    assert window_bound(171, 10, [(0, 100)], strangers=0.3) == 20


@pytest.mark.parametrize(("total", "limits", "first", "expected"), WINDOWS)
def test_bound_of_windows(total, limits, first, expected):
    assert window_bound(total, 60, limits, first=first) == expected


def rules(algorithm, aligned):
    return [
        Rule(unit, unit, new_limit(algorithm, top, 10, aligned=aligned, epoch=-3))
        for unit, top in (("requests", 4), ("tokens", 50))
    ]


@pytest.mark.parametrize(
    ("algorithm", "aligned"),
    [("token_bucket", False), ("fixed_window", False), ("fixed_window", True), ("sliding_window", False)],
)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(0, 40), st.integers(50, 90)), max_size=3),
)
def test_nobody_is_faster_than_the_lower_bound(algorithm, aligned, costs, changes):
    """The client that always waits exactly as told, while the limit on tokens changes."""
    both, now = Gate(rules(algorithm, aligned)), 0.0
    due = sorted(changes)
    for tokens in costs:
        while not (verdict := both.admit(cost(tokens), now)).admitted:
            now += verdict.retry_after + 1e-9
            while due and due[0][0] <= now:
                at, limit = due.pop(0)
                both.rules[1].set_limit(limit, at)
    assert both.lower_bound() <= now + 1e-6


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
@given(
    st.sampled_from([0.0, 0.3, 0.8]),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 80), st.floats(0, 30)), min_size=1, max_size=20),
)
def test_usage_beyond_the_limit_and_strangers_keep_the_lower_bound_a_bound(algorithm, share, requests):
    """What a window is charged beyond its limit was counted, though it is forgotten when the window ends; and
    strangers were thought to take their share also while they stood aside in a debt.
    """
    one = Gate([Rule("tokens", "tokens", new_limit(algorithm, 50, 10), share)])
    now = last = 0.0
    for prompt, output, pause in requests:
        while not (verdict := one.admit(cost(prompt), now)).admitted:
            now += verdict.retry_after + 1e-6
        last = now
        assert one.lower_bound() <= last + 1e-6
        one.produce({"tokens": output}, now)
        now += pause if pause > 15 else 0.0
    assert one.lower_bound() <= last + 1e-6


@given(st.lists(st.integers(1, 5), min_size=20, max_size=60))
def test_the_bound_is_reached_by_an_eager_client(costs):
    one, now = gate(tokens=TokenBucket(10, 10)), 0.0
    for tokens in costs:
        now += one.admit(cost(tokens), now).retry_after or 0.0
        one.admit(cost(tokens), now)
    assert one.lower_bound() <= now + 1e-6
