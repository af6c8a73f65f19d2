"""What headers teach: the order they count in, what they may undo, and which way of counting they betray."""

import pytest
from tests.simulation.scenarios import limit_of, requests
from tests.simulation.simulate import Provider, run

from adaptive_rate_limiter.core.evidence import betrayed_window
from adaptive_rate_limiter.core.ledger import Ledger
from adaptive_rate_limiter.types import QuotaReading, Refusal, RefusalKind

ONE = {"requests": 1.0}


def told(remaining, reset=None, limit=100.0):
    return (QuotaReading("requests", limit, remaining, reset),)


def reply(ledger, hold, now, remaining, limit=100.0):
    ledger.arrived(hold, now)
    ledger.read(told(remaining, limit=limit), hold, now)
    ledger.settle(hold, ONE, now)


def left(ledger, now):
    return ledger.gauges[0].available(now)


def test_the_first_header_counts_all_that_is_in_flight():
    ledger = Ledger()
    holds = [ledger.reserve(ONE, 0.0) for _ in range(10)]
    reply(ledger, holds[0], 1.0, 50.0)
    assert left(ledger, 1.0) <= 41.0


def test_a_late_header_never_undoes_newer_knowledge():
    ledger = Ledger()
    holds = [ledger.reserve(ONE, 0.0) for _ in range(3)]
    reply(ledger, holds[0], 0.5, 99.0)
    reply(ledger, holds[2], 1.0, 5.0)
    before = left(ledger, 1.0)
    reply(ledger, holds[1], 1.0, 98.0, limit=500.0)
    assert left(ledger, 1.0) <= before + 1.0
    assert ledger.gauges[0].limit == 100.0


def test_down_at_once_and_up_slowly_where_strangers_were_seen():
    ledger = Ledger()
    reply(ledger, ledger.reserve(ONE, 0.0), 0.1, 99.0)
    reply(ledger, ledger.reserve(ONE, 0.2), 0.3, 40.0)
    low = left(ledger, 0.3)
    assert low <= 40.0
    assert ledger.gauges[0].floor(0.3) > 1.0
    reply(ledger, ledger.reserve(ONE, 0.4), 0.5, 90.0)
    assert low - 2 <= left(ledger, 0.5) < 50.0


def test_the_floor_for_strangers_fades():
    ledger = Ledger()
    reply(ledger, ledger.reserve(ONE, 0.0), 0.1, 99.0)
    reply(ledger, ledger.reserve(ONE, 0.2), 0.3, 40.0)
    gauge = ledger.gauges[0]
    assert gauge.floor(60.3) == pytest.approx(gauge.floor(0.3) / 2, rel=0.2)


def test_without_strangers_a_surplus_is_believed_at_once():
    ledger = Ledger()
    hold = ledger.reserve({"tokens": 90.0}, 0.0)
    ledger.read((QuotaReading("tokens", 100.0, 10.0),), hold, 0.1)
    ledger.settle(hold, {"tokens": 90.0}, 0.1)
    second = ledger.reserve({"tokens": 5.0}, 0.2)
    ledger.read((QuotaReading("tokens", 100.0, 80.0),), second, 0.3)
    ledger.read((QuotaReading("tokens", 100.0, 80.0),), ledger.reserve({"tokens": 1.0}, 0.4), 0.5)
    assert left(ledger, 0.5) > 5.0


def test_limits_are_accepted_in_both_directions():
    ledger = Ledger()
    reply(ledger, ledger.reserve(ONE, 0.0), 0.1, 99.0)
    reply(ledger, ledger.reserve(ONE, 0.2), 0.3, 30.0, limit=40.0)
    assert ledger.gauges[0].limit == 40.0
    reply(ledger, ledger.reserve(ONE, 0.4), 0.5, 380.0, limit=400.0)
    assert ledger.gauges[0].limit == 400.0


def test_remaining_above_the_believed_limit_raises_it():
    ledger = Ledger()
    ledger.read((QuotaReading("requests", None, 10.0),), ledger.reserve(ONE, 0.0), 0.1)
    ledger.read((QuotaReading("requests", None, 25.0),), ledger.reserve(ONE, 0.2), 0.3)
    assert ledger.gauges[0].limit == 25.0


def test_a_refusal_beyond_all_expectation_is_a_stranger():
    ledger = Ledger()
    reply(ledger, ledger.reserve(ONE, 0.0), 0.1, 99.0)
    reply(ledger, ledger.reserve(ONE, 0.1), 0.2, 98.0)
    hold = ledger.reserve(ONE, 0.2)
    ledger.refuse(hold, 0.3, counts=False)
    assert not ledger.empty(Refusal(RefusalKind.RATE_LIMIT, 3.0), ONE, 0.3)  # another limit, not told
    holds = [ledger.reserve(ONE, 0.3) for _ in range(60)]
    ledger.refuse(holds[0], 0.4, counts=False)
    assert ledger.empty(Refusal(RefusalKind.RATE_LIMIT, 3.0), ONE, 0.3)
    gauge = ledger.gauges[0]
    assert gauge.available(0.3) < 1.0
    assert gauge.floor(0.3) > 1.0


@pytest.mark.parametrize(
    ("triple", "window"),
    [
        ((3500, 3499, 0.017), 60.0),  # OpenAI, as recorded
        ((5000, 4999, 0.012), 60.0),
        ((160000, 159976, 0.009), 60.0),
        ((14400, 14390, 59.9), 86400.0),
        ((100, 86, 1.34), 10.0),  # remaining was cut: 13.4 were used, and no other window is possible
        ((100, 98, 0.13), None),  # with little used, many are
        ((100, 50, 17.3), None),  # no window that providers use
        ((100, 100, 0.0), None),
    ],
)
def test_a_buckets_triple_betrays_its_window(triple, window):
    limit, remaining, reset = triple
    assert betrayed_window(QuotaReading("requests", limit, remaining, reset)) == window


def test_a_told_window_is_taken_where_arithmetic_says_nothing():
    ledger = Ledger()
    ledger.read((QuotaReading("requests", 100, 50, 17.3, 3600.0),), ledger.reserve(ONE, 0.0), 0.1)
    assert ledger.gauges[0].window == 3600.0


def test_one_reading_does_not_make_an_hour_of_a_minute():
    """A fixed window that began before us told 298 of 300 and 24.174 s: as a bucket that is full again after an hour
    would. Later calls failed, since that was more than they would wait."""
    ledger = Ledger()
    ledger.read(told(298.0, 24.174, limit=300.0), ledger.reserve(ONE, 0.0), 0.1)
    assert ledger.gauges[0].window == 60.0


@pytest.mark.parametrize("first", [(99.0, 0.1), (96.0, 0.343)])
def test_a_bucket_of_ten_seconds_is_not_taken_for_one_of_a_minute_where_little_is_used(first):
    """Remaining is cut, so that its resets betray no window; but they do not fit the minute that a name presumes."""
    ledger = Ledger()
    figures = [
        first,
        *[(95.0, 0.443), (97.0, 0.21), (95.0, 0.43), (93.0, 0.61)] * 5,
        (60.0, 3.98),
        (30.0, 6.96),
    ]
    for now, (remaining, reset) in enumerate(figures):
        hold = ledger.reserve(ONE, now)
        ledger.arrived(hold, now + 0.1)
        ledger.read((QuotaReading("requests", 100.0, remaining, reset, 60.0),), hold, now + 0.1)
        ledger.settle(hold, ONE, now + 0.1)
    assert (ledger.gauges[0].window, ledger.gauges[0].algorithm) == (10.0, "token_bucket")


@pytest.mark.parametrize("latency", [0.05, 1.0])
@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("bucket", "token_bucket"), ("aligned", "fixed_window"), ("sliding", "sliding_window")],
)
def test_the_way_of_counting_is_named(algorithm, name, latency):
    provider = Provider({"requests": limit_of(algorithm, 120)})
    outcome = run(provider, requests(300), latency=lambda rng: latency, arrivals=lambda index: index * 0.4)
    assert outcome.refused <= 1
    assert outcome.bucket.ledger.gauges[0].algorithm == name


def test_a_bucket_less_deep_than_its_limit_is_found_out():
    provider = Provider({"requests": limit_of("bucket", 300, depth=10.0)})
    outcome = run(provider, requests(300), latency=lambda rng: 0.05)
    assert outcome.refused_share <= 0.01
    assert outcome.bucket.ledger.gauges[0].capacity == pytest.approx(50.0, rel=0.05)


def test_another_window_is_taken_once_readings_at_different_levels_agree():
    ledger = Ledger()
    cost = {"requests": 20.0}
    ledger.read((QuotaReading("requests", 14400, 14390, 60.0),), ledger.reserve(cost, 0.0), 0.1)
    gauge = ledger.gauges[0]
    assert gauge.window == 60.0  # a reset in whole seconds is too coarse to tell
    for used, window in ((20.0, 300.0), (21.0, 300.0), (40.0, 86400.0)):  # no reset is longer than its window
        reading = QuotaReading("requests", 14400, 14400 - used, used * 6.0 - 0.1)
        ledger.read((reading,), ledger.reserve(cost, 1.0), 1.1)
        assert gauge.window == window


def test_a_window_that_is_told_without_figures_needs_two_readings():
    ledger = Ledger()
    ledger.read((QuotaReading("requests", 100, None, None, 60.0),), ledger.reserve(ONE, 0.0), 0.1)
    for seen in (60.0, 10.0):
        ledger.read((QuotaReading("requests", 100, None, None, 10.0),), ledger.reserve(ONE, 1.0), 1.1)
        assert ledger.gauges[0].window == seen


@pytest.mark.parametrize("seed", range(3))
def test_a_reset_that_has_passed_invites_nobody_once_others_were_sent(seed):
    """One call in a batch of embeddings was refused, a minute after the bucket was last full (found in a benchmark)."""
    limits = {"requests": limit_of("bucket", 10_000), "tokens": limit_of("bucket", 80_000)}
    outcome = run(
        Provider(limits),
        [{"requests": 1.0, "tokens": 10_000.0}] * 20,
        latency=lambda rng: rng.uniform(0.2, 0.6),
        arrivals=lambda index: 0.3 if index else 0.0,
        seed=seed,
    )
    assert outcome.refused == 0
    assert outcome.seconds <= 1.03 * 90.0


@pytest.mark.parametrize("seed", [2, 17, 30])
def test_what_returned_while_a_reply_was_on_its_way_is_counted_once(seed):
    """Taken for strangers' use, it made a fixed window of a sliding one, and 142 refusals; counted twice, one."""
    outcome = run(
        Provider({"requests": limit_of("sliding", 150)}), requests(600),
        latency=lambda rng: rng.uniform(0.2, 0.6), jitter=0.005, seed=seed,
    )  # fmt: skip
    assert outcome.refused == 0
    assert outcome.seconds < 185


def test_a_window_that_was_foreseen_whole_and_is_gone_is_not_waited_out():
    """A fixed window was thought to have begun anew, told to be empty, and waited for: for a minute."""
    outcome = run(
        Provider({"requests": limit_of("sliding", 300)}, whole_seconds=True, cuts=True), requests(900),
        latency=lambda rng: rng.uniform(0.2, 0.6), overhead=0.004, jitter=0.01, seed=7,
    )  # fmt: skip
    assert outcome.refused == 0
    assert outcome.seconds < 128
