"""The goals, on the scenarios that take least time; `python -m tests.simulation` prints all."""

import pytest
from tests.simulation import scenarios
from tests.simulation.simulate import Provider, run

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket

LATENCY = {"0.05 s": 0.05, "1 s": 1.0, "log-normal": 4.0}  # what a first reply may take


def last_of(outcome):
    return max(at for at, passed in outcome.sends if passed)


def turn_of(scenario):
    """A window that began before the first call is found out at its first turn, by one call and its reply."""
    rounded = 1.5 if "whole" in scenario.name else 0.0
    return LATENCY[scenario.latency] + rounded if "aligned" in scenario.name else 0.0


TOLD = [
    each
    for each in scenarios.told()
    if "300/min  600" in each.name or ("60/min 1500" in each.name and each.latency == "log-normal")
]


@pytest.mark.parametrize("scenario", TOLD, ids=lambda each: f"{each.name} {each.latency}")
def test_told_limits_are_filled_and_never_passed(scenario):
    outcome = scenario.run()
    assert outcome.admitted == len(scenario.costs)
    assert outcome.refused_share <= (0.002 if scenario.latency == "log-normal" else 0.001)
    assert last_of(outcome) <= 1.03 * scenario.least + LATENCY[scenario.latency] + turn_of(scenario)


@pytest.mark.parametrize("scenario", [*scenarios.used(), *scenarios.tokens()], ids=lambda each: each.name)
def test_tokens_and_limits_used_before(scenario):
    outcome = scenario.run()
    assert outcome.lost == 0
    assert outcome.refused_share <= (0.01 if "untold" in scenario.name else 0.001)
    assert last_of(outcome) <= 1.05 * scenario.least + 5.0 + turn_of(scenario)


# A sliding window can be no faster in its second minute than the search was in the first, and the search
# must not have more in doubt than the budget of refusals: five sends in a quarter of a second. A bucket that
# holds no more than seconds of its refill is found after the budget is spent, and slowly.
UNTOLD = {
    ("bucket", "0.05 s"): 1.10,
    ("bucket", "1 s"): 1.10,
    ("bucket", "log-normal"): 1.10,
    ("bucket 10 s", "1 s"): 1.10,
    ("bucket 1 s", "log-normal"): 1.30,
    ("fixed", "0.05 s"): 1.10,
    ("fixed", "1 s"): 1.10,
    ("fixed", "log-normal"): 1.10,
    ("sliding", "0.05 s"): 1.10,
    ("sliding", "1 s"): 1.35,
    ("sliding", "log-normal"): 1.35,
}


@pytest.mark.parametrize("scenario", list(scenarios.untold()), ids=lambda each: f"{each.name} {each.latency}")
def test_untold_limits_are_found_within_the_budget(scenario):
    outcome = scenario.run()
    assert outcome.lost == 0
    assert outcome.admitted == len(scenario.costs)
    assert outcome.refused_share <= 0.015
    kind = scenario.name.split(" 300/min")[0]
    most = UNTOLD.get((kind, scenario.latency))
    if most is not None:
        assert outcome.refused_share <= 0.01
        assert last_of(outcome) <= most * scenario.least


@pytest.mark.parametrize("scenario", list(scenarios.changing()), ids=lambda each: each.name)
def test_limits_that_change_are_followed(scenario):
    outcome = scenario.run()
    assert outcome.lost == 0
    assert outcome.refused_share <= 0.06  # a window's burst meets a limit that was cut unseen
    assert last_of(outcome) <= 1.5 * scenario.least


@pytest.mark.parametrize("scenario", list(scenarios.strangers()), ids=lambda each: each.name)
def test_strangers_on_the_key_cost_few_refusals(scenario):
    outcome = scenario.run()
    assert outcome.lost == 0
    assert outcome.refused_share <= (0.06 if "60%" in scenario.name else 0.025)
    assert last_of(outcome) <= 1.05 * scenario.least


@pytest.mark.parametrize("whole_seconds", [True, False])
@pytest.mark.parametrize(("overhead", "jitter"), [(0.005, 0.05), (0.005, 0.2), (0.008, 0.5), (0.0015, 0.6)])
def test_a_sliding_window_is_not_taken_for_a_fixed_one_when_sends_are_spread(whole_seconds, overhead, jitter):
    provider = Provider({"requests": SlidingWindow(300, 60.0)}, whole_seconds=whole_seconds)
    outcome = run(
        provider,
        [{"requests": 1.0, "tokens": 100.0}] * 900,
        latency=lambda rng: rng.uniform(0.2, 0.6),
        overhead=overhead,
        jitter=jitter,
        seed=5,
    )
    assert outcome.refused == 0
    assert last_of(outcome) <= 1.06 * 120


@pytest.mark.parametrize("algorithm", [FixedWindow, SlidingWindow, TokenBucket])
@pytest.mark.parametrize("seed", range(2))
def test_the_least_that_was_told_counts_headers_that_were_not_read(algorithm, seed):
    """While much is left most headers stay unread; a reply that had overtaken those then told more than was left, and
    twenty callers had up to seven calls of 300 refused, and waited for another window."""
    outcome = run(
        Provider({"requests": algorithm(300, 60.0)}), scenarios.requests(900),
        latency=lambda rng: rng.uniform(0.05, 0.2), jitter=0.05, overhead=0.003, callers=20, seed=seed,
    )  # fmt: skip
    assert outcome.refused == 0
    assert last_of(outcome) <= 1.03 * 120 + 3.0


@pytest.mark.parametrize("whole_seconds", [True, False])
@pytest.mark.parametrize("algorithm", ["bucket", "fixed", "sliding"])
def test_a_reset_that_is_longer_than_the_window_makes_the_window_longer(algorithm, whole_seconds):
    """A limit in five minutes that was taken for one in a minute: of 3,000 calls 595 were lost."""
    limit = scenarios.limit_of(algorithm, 300, window=300.0, depth=300.0)
    outcome = run(
        Provider({"requests": limit}, whole_seconds=whole_seconds), scenarios.requests(900),
        bucket=Bucket("simulated", (), 0.0, max_pause=600.0),
    )  # fmt: skip
    assert outcome.lost == 0
    assert outcome.refused <= 3
    assert last_of(outcome) <= 1.03 * 600


@pytest.mark.parametrize("aligned", [True, False])
def test_the_first_reply_of_a_window_bounds_its_end_whatever_is_rounded(aligned):
    """Resets in whole seconds cost more than a second at each turn, and a window that began before us all of its first."""
    limit = FixedWindow(300, 60.0, aligned=aligned, epoch=-35.0)
    outcome = run(
        Provider({"requests": limit}, whole_seconds=True), scenarios.requests(900),
        latency=lambda rng: rng.uniform(0.2, 0.6),
    )  # fmt: skip
    assert outcome.refused == 0
    assert last_of(outcome) <= (85.0 if aligned else 120.0) + 2.5


@pytest.mark.parametrize("seed", range(4))
def test_a_reset_cut_to_whole_seconds_does_not_let_a_burst_go_too_early(seed):
    provider = Provider({"requests": FixedWindow(300, 60.0)}, whole_seconds=True, cuts=True)
    outcome = run(
        provider,
        scenarios.requests(900),
        latency=lambda rng: rng.uniform(0.2, 0.6),
        overhead=0.008,
        jitter=0.1,
        seed=seed,
    )
    assert outcome.refused == 0
    assert last_of(outcome) <= 1.04 * 120


@pytest.mark.parametrize(("used", "window"), [(1.4, 10.0), (1.8, 10.0), (2.9, 10.0), (1.4, 300.0)])
def test_a_first_header_that_others_blurred_leaves_no_wrong_window_behind(used, window):
    """Remaining is cut to whole numbers, so after little use a reset fits the window only roughly."""
    bucket = TokenBucket(100, window)
    bucket.charge(used, 0.0)
    outcome = run(
        Provider({"requests": bucket}),
        scenarios.requests(300),
        latency=lambda rng: rng.uniform(0.02, 0.2),
        overhead=0.02,
    )
    assert outcome.bucket.ledger.gauges[0].window == window
    assert outcome.refused == 0
    assert last_of(outcome) <= 1.1 * 2 * window


@pytest.mark.parametrize("latency", list(scenarios.LATENCIES))
@pytest.mark.parametrize("per_minute", [20, 60])
def test_a_bucket_that_holds_one_unit_is_seen_though_nothing_is_ever_left(per_minute, latency):
    """Each reply told that none of the limit was left: it was taken for a window, and of 60 calls 25 were lost."""
    depth = 60.0 / per_minute  # seconds of its refill
    outcome = run(
        Provider({"requests": scenarios.limit_of("bucket", per_minute, depth=depth)}),
        scenarios.requests(60),
        latency=scenarios.LATENCIES[latency],
    )
    assert outcome.lost == 0
    assert outcome.refused <= 2
    assert outcome.bucket.ledger.gauges[0].algorithm == "token_bucket"
    # A full bucket refills from when a call is counted, at the latest; and it takes a few replies to find it out.
    on_its_way = min(1.0, LATENCY[latency])
    assert last_of(outcome) <= 60 * (depth + on_its_way) + 6.0 + 2 * LATENCY[latency]


@pytest.mark.parametrize("whole_seconds", [True, False])
@pytest.mark.parametrize("per_window", [10, 50])
@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
def test_the_first_call_of_all_tells_how_long_the_window_is_that_it_opened(
    algorithm, per_window, whole_seconds
):
    """A sliding window of ten seconds was taken for a fixed one of a minute: of 400 calls 33 were lost."""
    limit = scenarios.limit_of(algorithm, per_window, window=10.0)
    outcome = run(
        Provider({"requests": limit}, whole_seconds=whole_seconds), scenarios.requests(8 * per_window),
        latency=lambda rng: rng.uniform(0.2, 0.6),
    )  # fmt: skip
    assert outcome.refused == 0
    assert last_of(outcome) <= 70.0 + 7 * 0.4 + 0.6


@pytest.mark.parametrize("window", [1.0, 10.0])
def test_a_bucket_of_ten_seconds_with_a_small_limit_is_not_taken_for_a_shallow_one(window):
    """What remained, cut to whole numbers, fitted no window well, and a depth by chance: 32 calls of 80 were refused."""
    outcome = run(
        Provider({"requests": TokenBucket(10, window)}),
        scenarios.requests(80),
        latency=lambda rng: rng.uniform(0.2, 0.6),
    )
    assert outcome.refused == 0
    assert outcome.bucket.ledger.gauges[0].window == window
    assert last_of(outcome) <= 7 * window + 2.5
