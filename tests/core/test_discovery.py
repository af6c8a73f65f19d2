"""Finding a limit that nobody tells."""

import math

import pytest
from tests.simulation.scenarios import limit_of, requests, sized
from tests.simulation.simulate import Provider, run

from adaptive_rate_limiter.core.discovery import (
    MOST_IN_DOUBT,
    REST,
    SETTLED,
    START_BUDGET,
    UNANSWERED,
    Discovery,
)
from adaptive_rate_limiter.core.hypotheses import (
    KEPT,
    AlignedFamily,
    BucketFamily,
    FixedFamily,
    History,
    Hypotheses,
    SlidingFamily,
)

ONE = {"requests": 1.0}


def as_many_as_may(discovery, now, waiting=1000, cost=ONE):
    trials = []
    while discovery.ready_at(cost, now, waiting) <= now and len(trials) < 5000:
        trials.append(discovery.sent(cost, now))
    return trials


def test_the_start_doubts_no_more_than_the_budget():
    discovery = Discovery()
    most, now = 0, 0.0
    while now < 5.0:
        trials = as_many_as_may(discovery, now)
        most = max(most, discovery.in_doubt)
        for trial in trials:
            discovery.passed(trial, now)
        now += 0.1
    assert START_BUDGET * 1000 <= most <= START_BUDGET * (1000 + discovery.sends) + 1
    assert discovery.sends > 200


def test_small_work_still_starts_with_two_and_large_work_has_a_bound():
    for waiting, bound in ((1, 2), (10**6, MOST_IN_DOUBT)):
        discovery = Discovery()
        for step in range(40):
            for trial in as_many_as_may(discovery, step, waiting):
                assert discovery.in_doubt <= bound
                discovery.passed(trial, step)


def test_many_workers_send_together_what_one_may_before_the_first_reply():
    discovery, sends = Discovery(), 0
    discovery.workers = 8
    for step in range(8):
        sends += len(as_many_as_may(discovery, step * SETTLED))
    assert sends == math.ceil((UNANSWERED + 7 * SETTLED) / 8)


def test_no_long_first_call_holds_the_start_back():
    discovery, sends = Discovery(), 0
    for step in range(240):
        sends += len(as_many_as_may(discovery, step * SETTLED))
    assert (
        UNANSWERED < sends <= UNANSWERED + 61
    )  # then one a second, until the first reply may tell the limit
    discovery.passed(discovery.sent(ONE, 60.0), 60.0)
    for step in range(40):
        sends += len(as_many_as_may(discovery, 60.3 + step * SETTLED))
    assert sends > UNANSWERED + 200


def test_silence_after_a_refusal():
    discovery = Discovery()
    (trial,) = as_many_as_may(discovery, 0.0)
    discovery.refused(trial, 0.05)
    assert discovery.ready_at(ONE, 0.06, 10) == pytest.approx(0.05 + REST)
    assert discovery.limits().get("requests", 1.0) > 0


def test_a_withdrawn_trial_leaves_no_trace():
    discovery = Discovery()
    trial = discovery.sent(ONE, 0.0)
    discovery.withdrawn(trial)
    discovery.withdrawn(trial)
    assert (discovery.in_doubt, discovery.ahead["requests"], len(discovery.pending)) == (0, 0.0, 0)


def test_a_refusal_that_comes_after_it_was_given_up_is_learned():
    discovery = Discovery()
    trial = discovery.sent(ONE, 0.0)
    discovery.ready_at(ONE, 5.0, 1)
    assert trial.passed is True
    discovery.refused(trial, 5.0)
    assert discovery.settled == 2.0  # refusals are slow here
    assert discovery.found


def test_a_refusal_that_names_its_unit_speaks_for_that_unit():
    cost = {"requests": 1.0, "tokens": 100.0}
    discovery = Discovery()
    for step in range(30):
        discovery.passed(discovery.sent(cost, step * 0.1), step * 0.1)
    discovery.refused(discovery.sent(cost, 3.0), 3.05, "tokens")
    discovery.ready_at(cost, 4.0, 1)
    weights = {unit: sum(f.weight for f in known.families) for unit, known in discovery.hypotheses.items()}
    assert weights["tokens"] > 0.9


def test_something_goes_at_last_whatever_is_believed():
    discovery = Discovery()
    now = 0.0
    for _ in range(6):  # all is refused
        while (ready := discovery.ready_at(ONE, now, 100)) > now:
            assert ready - now <= 400.0
            now = ready
        discovery.refused(discovery.sent(ONE, now), now + 0.05)
        now += 0.05
    assert now < 3600.0


def test_history_adds_up_and_forgets():
    history = History()
    for index in range(2 * KEPT + 10):
        history.add(1.0, float(index))
    assert history.total == 2 * KEPT + 10
    assert history.since(2 * KEPT + 4.0) == 5.0
    assert len(history.times) <= 2 * KEPT
    assert history.leaves_at(1e9) == -math.inf
    assert history.leaves_at(3.0) == 2 * KEPT + 6.0


def families():
    return [
        BucketFamily(1.0, 60.0, 60.0, 0.0),
        BucketFamily(1.0, 2.0, 8.0, 0.0),
        SlidingFamily(1.0),
        FixedFamily(1.0, 0.0),
        AlignedFamily(1.0, 0.0),
    ]


@pytest.mark.parametrize("family", families(), ids=lambda family: type(family).__name__)
def test_what_passed_and_what_was_refused_bound_the_limit(family):
    history = History()
    for index in range(50):
        at = index * 0.1
        family.passed(history, 1.0, at)
        history.add(1.0, at)
    assert family.share_above(family.low, 5.0) == 1.0
    assert family.share_above(family.low * 2, 5.0) == 0.5  # anything
    family.refused(history, 1.0, 5.0)
    assert 0 < family.low < family.high < math.inf
    assert family.share_above(family.high, 5.0) == 0.0
    assert family.low <= family.typical(5.0) <= family.high
    ready = family.ready_at(history, 1.0, family.low, 5.0)
    assert 5.0 <= ready <= 120.0
    assert family.chance(history, 1.0, ready + 0.3) == pytest.approx(1.0)
    assert family.ready_at(history, 1.0, 0.5, 5.0) > 60.0


@pytest.mark.parametrize("family", families(), ids=lambda family: type(family).__name__)
def test_bounds_that_contradict_each_other_give_way(family):
    history = History()
    for index in range(300):
        family.passed(history, 1.0, index * 1.0)
        history.add(1.0, index * 1.0)
    family.refused(history, 1.0, 300.0)
    before = family.low
    for index in range(60):  # far more passes than the bounds allow
        family.passed(history, 5.0, 301.0 + index)
        history.add(5.0, 301.0 + index)
    assert family.low > before
    assert family.low < family.high
    for index in range(5):  # and now next to nothing
        family.refused(history, 5.0, 365.0 + 12.0 * index)
        assert 0 <= family.low <= family.high


def test_a_bucket_that_was_idle_is_full_again():
    family = BucketFamily(1.0, 60.0, 60.0, 0.0)
    history = History()
    for index in range(60):
        family.passed(history, 1.0, index * 0.1)
        history.add(1.0, index * 0.1)
    family.refused(history, 1.0, 6.0)
    family.passed(history, 1.0, 500.0)
    assert family.full


def test_an_aligned_minute_is_pinned_down_by_what_passes():
    family, history = AlignedFamily(1.0, 0.0), History()
    for index in range(20):
        family.passed(history, 1.0, index * 0.1)
        history.add(1.0, index * 0.1)
    family.refused(history, 1.0, 2.0)
    assert family.earliest == 2.0
    family.refused(history, 1.0, 20.0)
    assert family.earliest == 20.0
    family.passed(history, 2.0, 30.0)
    assert (family.earliest, family.latest) == (20.0, 30.0)
    history.add(2.0, 30.0)
    assert 0.0 < family.chance(history, 19.5, 85.0) < 1.0
    assert family.ready_at(history, 18.5, 20.0, 85.0) == pytest.approx(90.1)
    assert family.ready_at(history, 20.5, 20.0, 85.0) == math.inf


def test_weights_follow_what_was_foreseen():
    known = Hypotheses(0.0)
    for index in range(60):
        known.learn(1.0, index * 0.05, passed=True, weigh=False)
    known.learn(1.0, 3.0, passed=False, weigh=True)
    known.learn(1.0, 6.0, passed=True, weigh=True)  # no window of a minute lets this pass
    weights = {type(family): family.weight for family in known.families}
    assert weights[SlidingFamily] < 0.1 * known.families[0].weight


@pytest.mark.parametrize("algorithm", ["bucket", "fixed", "sliding"])
def test_a_limit_of_sixty_is_found(algorithm):
    outcome = run(
        Provider({"requests": limit_of(algorithm, 60)}, tells=False), requests(300), latency=lambda rng: 0.5
    )
    assert outcome.lost == 0
    assert outcome.admitted == 300
    assert outcome.bucket.inferred_limits()["requests"] == pytest.approx(60.0, rel=0.15)


def test_tokens_are_found_to_be_the_limit():
    costs = sized(400)
    total = sum(cost["tokens"] for cost in costs)
    outcome = run(Provider({"tokens": limit_of("bucket", total / 2)}, tells=False), costs)
    assert outcome.lost == 0
    assert max(at for at, passed in outcome.sends if passed) < 75.0


# A limit that no header tells, and the words of a refusal do


def refused_after(passes, *, limit, named_at=30.0, invited=None, unit="requests", cost=ONE):
    """What is believed after so many calls, a second apart, and a refusal that names the limit."""
    discovery = Discovery()
    for index in range(passes):
        discovery.passed(discovery.sent(cost, float(index)), index + 0.5)
    trial = discovery.sent(cost, named_at)
    discovery.refused(trial, named_at + 0.05, unit, invited)
    discovery.named(trial, limit, named_at + 0.05)
    return discovery


def test_a_limit_that_words_name_is_believed_where_what_was_sent_explains_it():
    assert refused_after(20, limit=20.0).limits() == {"requests": 20.0}


def test_a_limit_that_words_name_is_not_all_ours_where_little_was_sent():
    assert refused_after(3, limit=20.0).limits().get("requests", 0.0) < 10


def test_a_limit_that_was_used_up_before_we_began_is_believed_from_the_told_time_on():
    assert refused_after(0, limit=20.0, invited=12.0).limits() == {"requests": 20.0}
    assert refused_after(0, limit=20.0).limits().get("requests", 0.0) < 10


def test_a_limit_on_input_tokens_that_words_name_is_believed_beside_one_on_tokens():
    cost = {"requests": 1.0, "tokens": 120.0, "input_tokens": 100.0}
    discovery = refused_after(9, limit=1000.0, invited=20.0, unit="input_tokens", cost=cost)
    assert discovery.limits() == {"input_tokens": 1000.0}
    unasked = refused_after(9, limit=1000.0, unit="input_tokens", cost=cost)  # nor said when to come again
    assert "input_tokens" not in unasked.limits()


def test_a_limit_on_what_a_call_does_not_take_is_nothing_to_it():
    assert "images" not in refused_after(9, limit=5.0, invited=20.0, unit="images").limits()


@pytest.mark.parametrize("names", [True, False])
def test_a_bucket_of_a_few_seconds_is_filled_once_words_have_named_its_limit(names):
    """Fifteen a minute of which one is there at once."""
    limit = limit_of("bucket", 15, depth=4)
    outcome = run(
        Provider({"requests": limit}, tells=False, names=names), requests(90), latency=lambda rng: 1.0
    )
    seconds = max(at for at, passed in outcome.sends if passed) / (89 * 4)
    assert outcome.lost == 0
    assert seconds < (1.9 if names else 3.0)
    if names:
        assert outcome.bucket.inferred_limits() == {"requests": 15.0}


def test_a_limit_that_was_named_and_then_raised_is_found_again():
    provider = Provider(
        {"requests": limit_of("fixed", 60)}, tells=False, names=True, changes=[(120.0, "requests", 120.0)]
    )
    outcome = run(provider, requests(1200), latency=lambda rng: 0.5)
    late = [at for at, passed in outcome.sends if passed and at > 400]
    assert len(late) / (late[-1] - late[0]) > 1.5  # of two a second
    assert outcome.refused_share < 0.02


def test_a_first_refusal_among_few_calls_was_followed_by_a_minute_of_silence():
    """It had spent the budget of 138 calls, so that no experiment was risked; the limit came back within a tenth of a
    second."""
    discovery = Discovery()
    for index in range(138):
        discovery.passed(discovery.sent({"requests": 1.0}, index / 14), index / 14 + 0.1)
    discovery.refused(discovery.sent({"requests": 1.0}, 10.0), 10.1)
    now = 10.1
    while (ready := discovery.ready_at({"requests": 1.0}, now, 7)) > now:
        now = ready
    assert now < 25.0
