"""The provider's books, with time as an argument."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptive_rate_limiter.testing.admission import Admission, Terms
from adaptive_rate_limiter.testing.limits import ALGORITHMS

START = 1000.0


def books(terms=None, **limits):
    return Admission(Terms(**{"algorithm": "fixed_window", "window": 10, **(terms or {})}), limits)


def cost(tokens=1, **more):
    return {"requests": 1, "tokens": tokens, **more}


def send(admission, at, tokens=1, model="m"):
    admission.arrive(START + at)
    return admission.admit(model, cost(tokens), START + at)


def test_the_record_counts_from_the_first_request():
    admission = books(requests_per_minute=2)
    for at, tokens in ((0, 5), (1, 6), (2, 7)):
        send(admission, at, tokens)
    admission.release("m")
    admission.fault(9, START + 3)
    assert send(admission, 10, 8).admitted
    stats = admission.stats(START + 11)
    assert stats.timeline == (
        (0, "admitted", 5),
        (1, "admitted", 6),
        (2, "refused", 7),
        (3, "fault", 9),
        (10, "admitted", 8),
    )
    assert (stats.requests, stats.admitted, stats.refused, stats.faults) == (4, 3, 1, 1)
    assert (stats.first_at, stats.last_admitted_at, stats.lower_bound) == (0, 10, 10)
    assert (stats.in_flight, stats.concurrency_peak, stats.refused_by) == (2, 2, {"requests": 1})
    assert stats.charged == {"requests": 3, "tokens": 19}
    assert stats.remaining == {"requests": 1}


def test_nothing_has_happened_yet():
    stats = books(requests_per_minute=2).stats(START)
    assert (stats.first_at, stats.last_admitted_at, stats.lower_bound, stats.timeline) == (None, None, 0, ())


def test_changes_come_in_the_order_of_their_time_and_once():
    admission = books(requests_per_minute=1)
    admission.schedule(6, {"requests_per_minute": 4})
    admission.schedule(3, {"requests_per_minute": 2, "tokens_per_minute": 100})
    assert [send(admission, at).admitted for at in (0, 2.9, 3, 5.9, 6, 6)] == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]
    standings = admission.standings("m", START + 7)
    assert {name: (found.limit, found.remaining) for name, found in standings.items()} == {
        "requests": (4, 0),
        "tokens": (100, 97),  # the limit was new when three of the four were sent
    }


def test_a_model_that_comes_later_has_the_limits_of_now():
    admission = books({"per_model": True}, requests_per_minute=1)
    admission.schedule(5, {"requests_per_minute": 2})
    assert [send(admission, 0, model="a").admitted for _ in range(2)] == [True, False]
    assert [send(admission, 6, model=model).admitted for model in ("a", "b", "b", "b")] == [
        True,
        True,
        True,
        False,
    ]
    assert admission.stats(START + 6).remaining == {"a/requests": 0, "b/requests": 0}


def test_slices_are_enforced_and_not_told():
    admission = books({"window": 60, "slice_seconds": 1, "epoch": START}, requests_per_minute=120)
    assert [send(admission, at).admitted for at in (0, 0.1, 0.2, 1.0)] == [True, True, False, True]
    assert admission.standings("m", START + 1).keys() == {"requests"}
    assert admission.stats(START + 1).refused_by == {"requests_slice": 1}
    rare = books({"window": 60, "slice_seconds": 1, "epoch": START}, requests_per_minute=6)
    assert send(rare, 0).admitted  # never less than one


def test_a_change_of_the_limit_changes_its_slices():
    admission = books({"window": 60, "slice_seconds": 1, "epoch": START}, requests_per_minute=60)
    send(admission, 0)
    admission.set_limits({"requests_per_minute": 180}, START + 1)
    assert [send(admission, 1).admitted for _ in range(4)] == [True, True, True, False]


def test_strangers_go_on_between_requests():
    admission = books({"strangers": 0.5, "algorithm": "sliding_window"}, requests_per_minute=100)
    send(admission, 0)
    assert admission.stats(START + 5).remaining["requests"] == pytest.approx(100 - 1 - 25)
    assert admission.standings("m", START + 15)["requests"].remaining == pytest.approx(50, abs=1)


def test_charging_by_usage_is_seen_at_once():
    admission = books({"algorithm": "token_bucket"}, output_tokens_per_minute=100)
    admission.arrive(START)
    assert admission.admit("m", cost(output_tokens=0), START).admitted
    admission.produce("m", {"tokens": 150, "output_tokens": 150}, START)
    assert admission.standings("m", START)["output_tokens"].remaining == 0
    assert admission.admit("m", cost(output_tokens=0), START).retry_after == pytest.approx(5.1)


WORK = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 90), st.floats(0, 25)), min_size=1, max_size=8
)  # prompt, output, pause before
CHANGES = st.lists(st.tuples(st.floats(0, 60), st.integers(40, 90)), max_size=3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(WORK, CHANGES, st.sampled_from([0.0, 0.4]), st.booleans(), st.booleans())
def test_no_client_is_faster_than_the_lower_bound(algorithm, work, changes, strangers, aligned, per_model):
    """The client sends as soon as it is let in, never more than strangers leave; usage, strangers and changes of limits on schedule."""
    terms = {
        "algorithm": algorithm,
        "strangers": strangers,
        "aligned": aligned,
        "epoch": 3.0,
        "per_model": per_model,
    }
    admission = books(terms, requests_per_minute=4, tokens_per_minute=50)
    for at, limit in changes:
        admission.schedule(at, {"tokens_per_minute": limit})
    now = 0.0
    for n, (prompt, output, pause) in enumerate(work):
        now += pause if pause > 20 else 0.0
        model = f"m{n % 2}"
        tries = 0
        while not (verdict := send(admission, now, prompt, model)).admitted:
            now += verdict.retry_after + 1e-6
            tries += 1
            assume(tries < 1000)  # strangers may take what is left of a window for ever
        admission.produce(model, {"tokens": output}, START + now)
        stats = admission.stats(START + now)
        assert stats.lower_bound <= stats.last_admitted_at + 1e-6
