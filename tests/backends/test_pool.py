"""The pool of one bucket: time is an argument, and workers are names."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_rate_limiter.core.pool import FORGET, LEASE, LIVES, PATIENCE, Fact, Pool, Renewal, Use
from adaptive_rate_limiter.core.share import NEWS

MINUTE = Fact("requests", "requests", 60.0, 60.0, evidence=1e9)  # one a second
WINDOW = replace(MINUTE, algorithms="fs", evidence=1.0)
ONE = {"requests": 1.0}


class Told:
    """A pool, and the numbers of its workers."""

    def __init__(self, *facts):
        self.pool = Pool()
        self.numbers = {}
        self.facts = facts
        self.now = 1000.0

    def renew(self, worker, after=0.0, **renewal):
        self.now += after
        self.numbers[worker] = self.numbers.get(worker, 0) + 1
        if not self.pool.limits:
            renewal.setdefault("facts", self.facts)
        return self.pool.renew(Renewal(worker, self.numbers[worker], **renewal), self.now)

    def ask(self, worker, amount, after=0.0, uses=()):
        due = {"requests": amount}
        return amount_of(self.renew(worker, after, need={"requests": min(1.0, amount)}, due=due, uses=uses))


def amount_of(grant, key="requests"):
    return sum(limit.amount for limit in grant.limits if limit.key == key)


def left(grant, key="requests"):
    return next(limit.left for limit in grant.limits if limit.key == key)


def test_a_lone_worker_may_have_everything():
    assert Told(MINUTE).ask("a", 100) == 60


def test_an_empty_pool_says_when_to_come_again():
    told = Told(MINUTE)
    told.ask("a", 60)
    grant = told.renew("b", need={"requests": 1}, due={"requests": 1})
    assert amount_of(grant) == 0
    assert grant.retry_in == pytest.approx(1.0)
    assert told.ask("b", 1, after=grant.retry_in) == 1


def test_busy_workers_get_equal_parts_however_often_they_ask():
    told = Told(MINUTE)
    told.ask("a", 60)
    got = {"a": 0.0, "b": 0.0, "c": 0.0}
    for tick in range(1, 1201):  # each tenth of a second for two minutes
        told.now += 0.1
        for worker, every in (("a", 1), ("b", 3), ("c", 9)):
            if tick % every == 0:
                got[worker] += told.ask(worker, 5)
    assert sum(got.values()) == pytest.approx(120, abs=3)
    assert max(got.values()) - min(got.values()) <= 4


def test_weights_divide_what_busy_workers_get():
    told = Told(MINUTE)
    told.ask("a", 60)
    got = {"a": 0.0, "b": 0.0}
    for _ in range(1200):
        told.now += 0.1
        for worker, weight in (("a", 1.0), ("b", 3.0)):
            grant = told.renew(worker, need={"requests": 1}, due={"requests": 5}, weight=weight)
            got[worker] += amount_of(grant)
    assert got["b"] / got["a"] == pytest.approx(3, rel=0.1)


def test_large_calls_of_several_workers_do_not_wait_for_each_other():
    """Half of the limit each, from a pool that is never full: nobody may hold a part and wait for the rest."""
    told = Told(MINUTE)
    told.ask("z", 60)
    got = dict.fromkeys("abc", 0)
    for _ in range(400):
        told.now += 0.5
        for worker in got:
            got[worker] += amount_of(told.renew(worker, need={"requests": 30}, due={"requests": 30})) > 0
    assert min(got.values()) >= 2
    assert sum(got.values()) * 30 >= 0.9 * 200


def test_a_lease_that_is_not_renewed_comes_back_but_for_what_was_probably_sent():
    told = Told(MINUTE)
    told.renew("a", want={"requests": 50})
    told.renew("a", uses=(Use("requests", spent=10, kept=40, pace=8),))
    after = LIVES * LEASE + 0.1
    assert left(told.renew("b", after)) == pytest.approx(10 + after + 32)
    assert left(told.renew("b", 2 * FORGET)) == pytest.approx(60)


def test_what_was_sent_is_charged_though_its_lease_was_taken_back():
    told = Told(MINUTE)
    told.renew("a", want={"requests": 50})
    told.renew("b", 2 * LIVES * LEASE)
    assert left(told.renew("a", uses=(Use("requests", spent=50, kept=0),))) == pytest.approx(10)


def test_a_bucket_that_is_full_but_for_its_leases_does_not_refill():
    """What is leased is not sent yet, so the provider's bucket is full, and stays so."""
    told = Told(MINUTE)
    told.renew("a", want={"requests": 40})
    for _ in range(30):
        told.renew("a", 1.0, uses=(Use("requests", spent=0, kept=40),))
    assert told.ask("b", 60) == 20


def test_a_lease_across_the_turn_of_a_fixed_window_is_spent_in_the_new_one():
    told = Told(Fact("requests", "requests", 60.0, 60.0, algorithms="f", evidence=1e9))
    told.renew("a", want={"requests": 40})
    for _ in range(61):
        told.renew("a", 1.0, uses=(Use("requests", spent=0, kept=40),))
    assert left(told.renew("b")) == pytest.approx(20)


def test_what_strangers_took_is_taken_off_at_once_and_believed_when_a_header_tells_that_it_is_back():
    told = Told(MINUTE)
    grant = told.renew("a")
    mark = {"sent": grant.limits[0].sent, "refilled": grant.limits[0].refilled}
    less = Fact("requests", "requests", 60.0, 60.0, evidence=1e9, remaining=20.0, **mark)
    assert left(told.renew("a", facts=(less,))) == 20
    more = Fact("requests", "requests", 60.0, 60.0, evidence=1e9, remaining=50.0, **mark)
    assert left(told.renew("a", 0.001, facts=(more,))) == 50


def test_what_a_window_has_more_by_one_way_of_counting_is_kept_when_a_header_lifts_the_other():
    """Seven were back of a window that slid, and as many were then left of the fixed one that it might have been."""
    told = Told(WINDOW)
    told.renew("a", facts=(WINDOW, replace(WINDOW, ends_in=30.0)), uses=(Use("requests", spent=60.0),))
    mark = told.renew("a", 30.0).limits[0]
    seven = replace(WINDOW, remaining=7.0, sent=mark.sent, refilled=mark.refilled)
    assert left(told.renew("a", 0.1, facts=(seven,))) == 7
    (limit,) = told.pool.limits
    assert limit.limit - limit.used == 60


def test_what_was_sent_late_returns_to_a_sliding_window_as_much_later():
    told = Told(replace(MINUTE, algorithms="s"))
    assert told.ask("a", 60) == 60
    told.renew("a", after=5.0, uses=(Use("requests", late=40.0, admitted=5.0, sent=1.0),))
    assert left(told.renew("b", after=56.5)) == 20  # of which nobody said that it was late
    assert left(told.renew("b", after=3.5)) == 60


def test_after_a_told_reset_one_goes_and_the_others_come_when_its_header_may_have_come():
    told = Told(WINDOW)
    told.renew("a", facts=(WINDOW, replace(WINDOW, ends_in=0.5)), uses=(Use("requests", spent=60.0),))
    grants = [told.renew(name, need=ONE, due=ONE) for name in "ab"]
    assert [grant.retry_in for grant in grants] == pytest.approx([0.5, 0.5])
    grants = [told.renew(name, 0.5 * (name == "a"), need=ONE, due=ONE) for name in "ab"]
    assert [amount_of(grant) for grant in grants] == [1, 0]
    assert grants[1].retry_in == pytest.approx(NEWS)


def test_a_told_reset_that_passed_on_the_way_lets_one_call_go_and_an_older_one_none():
    """The reset of a sliding window that returns bit by bit is over when it is told: nothing went for half a minute."""
    told = Told(WINDOW)
    told.renew("a", facts=(WINDOW, replace(WINDOW, ends_in=0.5)), uses=(Use("requests", spent=60.0),))
    assert told.ask("a", 1.0, 1.0) == 1
    told.renew("a", 0.5, facts=(replace(WINDOW, ends_in=-0.6),))
    assert told.ask("a", 1.0, 0.01) == 0
    told.renew("a", facts=(replace(WINDOW, ends_in=-0.1),))
    assert told.ask("a", 1.0, 0.01) == 1


def away(told, worker, after=0.0, **renewal):
    """It comes back after ten seconds without the pool, and tells what it sent with its next renewal."""
    told.renew(worker, after, away=10.0, workers=3, pool=told.pool.born, **renewal)


def test_what_others_may_have_sent_without_the_pool_is_kept_back_until_they_tell():
    told = Told(MINUTE)
    for worker in "abc":
        told.renew(worker, uses=(Use("requests", spent=10.0),))
    away(told, "a", 10.0)
    assert told.ask("a", 60.0) == pytest.approx(60 - 30 + 10 - 2 / 3 * 10)
    told.renew("a")
    away(told, "b", 0.1)
    told.renew("b", uses=(Use("requests", spent=2.0),))
    assert told.ask("b", 60.0) == pytest.approx(2 / 3 * 10 + 0.1 - 2 - 1 / 3 * 10.1)


def test_who_does_not_come_back_from_an_outage_is_taken_to_be_dead():
    told = Told(MINUTE)
    for worker in "abc":
        told.renew(worker, uses=(Use("requests", spent=20.0),))
    away(told, "a", 10.0)
    told.renew("a")
    assert told.ask("a", 60.0, LIVES * LEASE) == pytest.approx(13)


def test_who_alone_lost_its_way_to_the_pool_has_nothing_kept_back_for_the_others():
    told = Told(MINUTE)
    told.renew("a"), told.renew("b", 10.0)
    away(told, "a")
    assert told.ask("a", 60.0) == pytest.approx(60)


def test_marks_of_a_pool_that_was_lost_say_nothing():
    """What had been sent in the lost one counted as sent in the new one, which believed itself full."""
    told = Told(MINUTE)
    told.renew("a", uses=(Use("requests", spent=50.0),))
    seen = Fact("requests", "requests", 60.0, 60.0, remaining=9.0, sent=900.0, refilled=800.0)
    assert left(told.renew("b", facts=(seen,), pool=7.0)) == 10


def test_what_other_workers_hold_is_not_taken_for_strangers():
    told = Told(MINUTE)
    grant = told.renew("a")
    told.renew("b", want={"requests": 30})
    seen = Fact(
        "requests", "requests", 60.0, 60.0, evidence=1e9, remaining=59.0, sent=grant.limits[0].sent,
        refilled=grant.limits[0].refilled,
    )  # fmt: skip
    assert left(told.renew("a", facts=(seen,))) == pytest.approx(30)


def test_sums_and_orders_are_what_the_workers_make_them():
    """They are kept step by step; here they are made anew."""
    told, rng = Told(MINUTE), random.Random(1)
    for _ in range(2000):
        use = Use(
            "requests",
            spent=rng.random(),
            kept=rng.choice([0.0, 2.5]),
            flying=rng.random(),
            pace=rng.choice([0, 1]),
        )
        told.renew(
            f"w{rng.randrange(60)}", rng.choice([0.0, 0.05, 0.2]), need={"requests": rng.choice([0.0, 1.0, 5.0])},
            due={"requests": rng.choice([0.0, 7.0])}, uses=(use,), weight=rng.choice([1.0, 2.5]),
        )  # fmt: skip
        roster, (limit,) = told.pool.roster, told.pool.limits
        workers = roster.workers.values()
        for sums, name in ((limit.leased, "leased"), (limit.flying, "flying"), (limit.waiting, "unmet")):
            assert sums == pytest.approx(
                sum(getattr(each, name).get("requests", 0.0) for each in workers), abs=1e-6
            )
        assert roster.alive == sum(not each.dead for each in workers)
        assert roster.busy == sum(each.busy for each in workers)
        assert roster.weights == pytest.approx(sum(each.weight for each in workers if each.busy), abs=1e-6)
        line = sorted((each.finish, each.name) for each in workers if each.unmet)
        assert roster.line.first(len(workers)) == line
        assert len(roster.lives) == len(workers)


def test_who_is_far_back_in_the_line_comes_rarely_and_who_is_at_its_front_within_a_lease_time():
    told = Told(MINUTE)
    told.ask("a", 60)
    waits = [told.renew(f"w{n:02}", need={"requests": 1}, due={"requests": 1}).retry_in for n in range(40)]
    assert max(waits[:10]) <= LEASE < waits[15] <= waits[39] == PATIENCE


def test_who_comes_when_it_was_told_is_not_taken_for_dead_and_keeps_its_place():
    told = Told(MINUTE)
    told.ask("a", 60)
    grants = {
        f"w{n:02}": told.renew(f"w{n:02}", need={"requests": 1}, due={"requests": 1}) for n in range(40)
    }
    last = grants["w39"]
    assert last.expires_in >= last.retry_in + LIVES * LEASE
    told.now += last.retry_in
    told.renew("b")
    assert not told.pool.roster.workers["w39"].dead
    assert told.pool.roster.line.first(40)[-1][1] == "w39"


def test_what_the_dead_waited_for_holds_up_nobody():
    told = Told(MINUTE)
    told.ask("a", 60)
    for number in range(5):
        told.renew(f"dead{number}", need={"requests": 30}, due={"requests": 30})
    told.renew("z", need={"requests": 1}, due={"requests": 1})
    told.now += 2 * LEASE + 0.1
    assert told.ask("z", 1) == 1


def test_what_comes_back_early_is_taken_within_a_lease_time_by_those_at_the_front():
    told = Told(MINUTE)
    told.ask("a", 60)
    waiting = {
        f"w{n:02}": told.renew(f"w{n:02}", need={"requests": 1}, due={"requests": 1}) for n in range(40)
    }
    told.renew("a", uses=(Use("requests", spent=-40.0),))  # its calls came to nothing
    got, comes = 0.0, {name: told.now + grant.retry_in for name, grant in waiting.items()}
    until = told.now + PATIENCE
    while comes and min(comes.values()) <= until:
        name = min(comes, key=comes.__getitem__)
        told.now = comes.pop(name)
        grant = told.renew(name, need={"requests": 1}, due={"requests": 1})
        got += amount_of(grant)
        if told.now <= until - PATIENCE + LEASE:
            early = got
        if grant.retry_in:
            comes[name] = told.now + grant.retry_in
    assert early >= 10
    assert got == 40


def test_what_others_were_let_go_before_the_limit_was_known_is_in_no_header_yet():
    """A thousand that start at once send one call each; the first header may count none but its own."""
    told = Told()
    for number in range(30):
        told.renew(f"w{number}", need={"requests": 1}, due={"requests": 2})
    fact = Fact("requests", "requests", 60.0, 60.0, remaining=59.0)
    grant = told.renew("w0", facts=(fact,))
    assert left(grant) == pytest.approx(30)


def test_what_was_granted_at_once_counts_as_sent_no_earlier_than_its_worker_says_so():
    """A header that came meanwhile does not count it: it would seem that there is more than there is."""
    told = Told(MINUTE)
    assert told.ask("a", 10) == 10
    (seen,) = told.renew("b").limits
    assert seen.sent == 0
    (seen,) = told.renew("a", uses=(Use("requests", flying=4.0),)).limits
    assert seen.sent == 6


steps = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.floats(0, 2),
        st.floats(0, 30),
        st.floats(0, 30),
        st.floats(0, 1),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps, st.sampled_from("bfs"))
def test_never_more_than_the_limit_is_out_or_spent(trace, algorithm):
    """Workers that spend what they were leased, return some, and at times are never heard of again."""
    told = Told(Fact("requests", "requests", 60.0, 60.0, algorithms=algorithm, evidence=1e9))
    held, renewed = dict.fromkeys("abcd", 0.0), dict.fromkeys("abcd", 0.0)
    sends = []
    for worker, passed, need, want, spends, keeps, dies in trace:
        told.now += passed
        if dies or told.now - renewed[worker] >= LIVES * LEASE:
            held[worker] = 0.0
        if dies:
            continue
        renewed[worker] = told.now
        spent = held[worker] * spends
        kept = (held[worker] - spent) * keeps
        grant = told.renew(
            worker, need={"requests": need}, due={"requests": need}, want={"requests": want},
            uses=(Use("requests", spent=spent, kept=kept),), facts=told.facts,
        )  # fmt: skip
        (limit,) = grant.limits
        held[worker] = kept + limit.amount - limit.due
        sends.append((told.now, spent + limit.due))
    for place, (start, _) in enumerate(sends):
        for window in (1.0, 30.0, 60.0):
            within = sum(amount for at, amount in sends[place:] if at < start + window)
            assert within <= {"b": 60 + window, "f": 120, "s": 60}[algorithm] + 1e-6


def test_who_hears_no_more_asks_for_one_where_the_last_header_told_of_more():
    """What headers counted was not sure, nobody sent another, and a window was waited out for nothing."""
    told = Told(WINDOW)
    assert told.ask("a", 60) == 60
    header = replace(WINDOW, remaining=20.0, sent=0.0, age=0.1)
    told.renew("a", after=1.0, facts=(header,), uses=(Use("requests"),))
    assert told.ask("b", 5) == 1
    assert told.ask("b", 5, after=0.5, uses=(Use("requests", flying=1.0),)) == 0


def test_of_headers_that_overtook_each_other_the_least_is_sure():
    told = Told(WINDOW)
    assert told.ask("a", 60) == 60
    for age, remaining in ((0.1, 20.0), (0.2, 0.0)):
        header = replace(WINDOW, remaining=remaining, sent=0.0, age=age)
        told.renew("a", facts=(header,), uses=(Use("requests"),))
    assert told.ask("b", 1, after=1.0) == 0


def test_what_was_let_go_blindly_counts_until_its_worker_has_told_it():
    """A header of somebody else's, from before it came, does not count it."""
    told = Told()
    told.renew("b", flying={"requests": 3.0})
    header = Fact("requests", "requests", 60.0, 60.0, algorithms="fs", remaining=59.0, evidence=1.0)
    assert left(told.renew("a", facts=(header,))) == 56
    told.renew("b", flying={"requests": 3.0})  # it hears of the limit
    assert left(told.renew("a", after=0.1, facts=(replace(header, sent=0.0),))) == 56
    spent = Use("requests", spent=3.0, flying=3.0)
    assert left(told.renew("b", uses=(spent,))) == pytest.approx(53)
    assert left(told.renew("a", after=0.1, facts=(replace(header, sent=0.0),))) == 56


def test_when_a_pause_ends_one_goes_and_its_reply_tells_the_others():
    """Each that had been refused went at that instant: of eight seven were refused again."""
    told = Told(replace(WINDOW, remaining=0.0))
    told.renew("a", pause=2.0)
    assert told.ask("a", 3, after=1.9) == 0
    assert told.ask("a", 3, after=0.2) == 1
    assert told.ask("b", 3) == 0


def test_what_is_kept_of_a_bucket_is_kept_of_nothing_else():
    """A window that may be a bucket as well had one left, and held it back for a minute."""
    told = Told(Fact("requests", "requests", 20.0, 60.0, algorithms="bs", evidence=1.0))
    assert told.ask("a", 19) == 19
    assert told.ask("b", 1, after=6.0) == 1
