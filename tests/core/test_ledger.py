"""Conservation: whatever happens to a ledger, nothing is made, nothing vanishes, and a hold ends once."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from adaptive_rate_limiter.core.hold import HoldState
from adaptive_rate_limiter.core.ledger import Ledger
from adaptive_rate_limiter.core.quota import Quota
from adaptive_rate_limiter.types import QuotaReading, Refusal, RefusalKind

QUOTAS = (
    Quota("requests", 20.0),
    Quota("tokens", 5000.0, algorithm="fixed_window"),
    Quota("tokens", 900.0, window=10.0, algorithm="sliding_window"),
)
amounts = st.floats(0, 6000)
numbers = st.one_of(st.none(), st.floats(0, 6000), st.just(0.0), st.floats(0, 1e18))


class LedgerMachine(RuleBasedStateMachine):
    holds = Bundle("holds")
    ended = Bundle("ended")

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.ledger = Ledger(QUOTAS, 0.0)

    @rule(seconds=st.one_of(st.floats(0, 2), st.floats(0, 100)))
    def wait(self, seconds):
        self.now += seconds

    @rule(target=holds, tokens=amounts)
    def reserve(self, tokens):
        return self.ledger.reserve({"requests": 1.0, "tokens": tokens}, self.now)

    @rule(target=ended, hold=consumes(holds), tokens=amounts)
    def settle(self, hold, tokens):
        assert self.ledger.settle(hold, {"requests": 1.0, "tokens": tokens}, self.now)
        return hold

    @rule(target=ended, hold=consumes(holds))
    def cancel(self, hold):
        assert self.ledger.cancel(hold, self.now)
        return hold

    @rule(
        target=ended,
        hold=consumes(holds),
        counts=st.booleans(),
        after=numbers,
        unit=st.sampled_from([None, "tokens"]),
    )
    def refuse(self, hold, counts, after, unit):
        assert self.ledger.refuse(hold, self.now, counts=counts)
        scarce = any(gauge.available(self.now) <= gauge.limit / 2 for gauge in self.ledger.gauges)
        emptied = self.ledger.empty(Refusal(RefusalKind.RATE_LIMIT, after, unit=unit), hold.cost, self.now)
        assert scarce or not emptied
        return hold

    @rule(target=ended, hold=consumes(holds))
    def lapse(self, hold):
        assert self.ledger.lapse(hold)
        return hold

    @rule(
        hold=holds, limit=numbers, remaining=numbers, reset=numbers, window=st.sampled_from([None, 60.0, 1.0])
    )
    def read(self, hold, limit, remaining, reset, window):
        self.ledger.arrived(hold, self.now)
        readings = [
            QuotaReading("tokens", limit, remaining, reset, window),
            QuotaReading("requests", limit and limit / 100, remaining and remaining / 100, reset),
        ]
        self.ledger.read(tuple(readings), hold, self.now)

    @rule(hold=ended)
    def nothing_ends_twice(self, hold):
        state = hold.state
        assert state is not HoldState.RESERVED
        assert not self.ledger.settle(hold, {"tokens": 1.0}, self.now)
        assert not self.ledger.cancel(hold, self.now)
        assert not self.ledger.lapse(hold)
        assert hold.state is state

    @invariant()
    def conserved(self):
        for gauge in self.ledger.gauges:
            for level in gauge.models:
                left = level.available(self.now)
                sums = level.initial + level.refilled + level.corrected - level.lost - level.taken
                scale = 1 + abs(level.initial) + level.refilled + abs(level.corrected) + abs(level.lost)
                assert math.isfinite(left)
                assert abs(left - sums) <= 1e-9 * scale + 1e-2  # limits up to 1e12 pass by
            invited = gauge.invitation[1] if gauge.invitation else 0.0  # one call goes when the provider says
            assert gauge.available(self.now) <= max(gauge.capacity, invited) * (1 + 1e-9)

    @invariant()
    def answers(self):
        cost = {"requests": 1.0, "tokens": 10.0}
        ready, _ = self.ledger.ready_at(cost, self.now)
        assert self.now <= ready < math.inf
        assert self.ledger.shortage(cost, ready + 1.0) is None or ready > self.now
        assert self.ledger.eta({"requests": 100.0, "tokens": 1e5}, self.now)[0] >= self.now
        for gauge in self.ledger.told:
            assert abs(gauge.in_flight - self.ledger.in_flight()[gauge.unit]) <= 1e-3 * (1 + gauge.in_flight)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


def test_all_gauges_pay_or_none():
    ledger = Ledger((Quota("requests", 1.0), Quota("tokens", 100.0)), 0.0)
    ledger.reserve({"requests": 1.0, "tokens": 10.0}, 0.0)
    gauge, missing = ledger.shortage({"requests": 1.0, "tokens": 10.0}, 0.0)
    assert (gauge.unit, missing) == ("requests", 1.0)
    assert ledger.ready_at({"requests": 1.0}, 0.0) == (60.0, gauge)
    assert ledger.shortage({"tokens": 10.0}, 0.0) is None


def test_more_than_the_limit_is_paid_by_a_full_gauge_and_leaves_debt():
    ledger = Ledger((Quota("tokens", 100.0),), 0.0)
    assert ledger.too_large({"tokens": 150.0}) is ledger.gauges[0]
    assert ledger.too_large({"tokens": 100.0}) is None
    assert ledger.shortage({"tokens": 150.0}, 0.0) is None
    ledger.reserve({"tokens": 150.0}, 0.0)
    assert ledger.gauges[0].available(0.0) == pytest.approx(-50.0)
    assert ledger.ready_at({"tokens": 150.0}, 0.0)[0] == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("algorithm", "total", "seconds"),
    [
        ("token_bucket", 100.0, 0.0),
        ("token_bucket", 250.0, 90.0),
        ("fixed_window", 250.0, 120.0),
        ("sliding_window", 250.0, 120.0),
    ],
)
def test_when_a_whole_batch_will_have_begun(algorithm, total, seconds):
    ledger = Ledger((Quota("tokens", 100.0, algorithm=algorithm),), 0.0)
    ledger.gauges[0].take(0.1, 0.0)  # the window is open
    assert ledger.eta({"tokens": total}, 0.0)[0] == pytest.approx(seconds, abs=0.5)


def test_a_partial_set_of_headers_wipes_nothing():
    ledger = Ledger()
    cost = {"requests": 1.0, "tokens": 10.0}
    first, second = ledger.reserve(cost, 0.0), ledger.reserve(cost, 0.0)
    ledger.read((QuotaReading("requests", 60, 58), QuotaReading("tokens", 1000, 980)), first, 1.0)
    ledger.read((QuotaReading("requests", 60, 58),), second, 2.0)
    assert {gauge.unit: gauge.limit for gauge in ledger.gauges} == {"requests": 60, "tokens": 1000}


def test_several_windows_on_one_unit_are_kept_apart():
    ledger = Ledger()
    hold = ledger.reserve({"requests": 1.0}, 0.0)
    both = (QuotaReading("requests", 10, 9, None, 60.0), QuotaReading("requests", 1000, 999, None, 86400.0))
    ledger.read(both, hold, 0.1)
    ledger.read(both, ledger.reserve({"requests": 1.0}, 1.0), 1.1)
    assert sorted(gauge.window for gauge in ledger.gauges) == [60.0, 86400.0]
    assert ledger.share({"requests": 1.0}) == pytest.approx(0.1)


def test_a_reading_without_figures_makes_no_gauge():
    ledger = Ledger()
    ledger.read((QuotaReading("requests"),), ledger.reserve({"requests": 1.0}, 0.0), 0.1)
    assert ledger.gauges == []
    assert not ledger.empty(Refusal(RefusalKind.RATE_LIMIT), {"requests": 1.0}, 0.0)
    assert ledger.share({"requests": 1.0}) == 1.0


def test_calls_that_were_cancelled_before_the_first_header_do_not_count():
    ledger = Ledger()
    gone = ledger.reserve({"requests": 1.0}, 0.0)
    ledger.cancel(gone, 0.1)
    hold = ledger.reserve({"requests": 1.0}, 0.2)
    ledger.read((QuotaReading("requests", 10, 9),), hold, 0.4)
    assert ledger.gauges[0].models[1].available(0.4) >= 8


@pytest.mark.parametrize(
    ("sent", "written", "left"),
    [
        (None, None, 54.0),  # nobody says when: it is taken for sent elsewhere after five seconds
        (0.0, None, 58.7),  # a request may be 0.3 s on its way
        (3.0, None, 55.7),
        (0.0, 3.0, 55.7),  # traced: what counts is when it was written
    ],
)
def test_a_burst_that_is_late_on_the_wire_finds_no_more_than_a_full_bucket(sent, written, left):
    """Forty calls were admitted at once, and the process took its time to send them."""
    ledger = Ledger([Quota("requests", 60.0)], -60.0)
    ledger.depart(ledger.reserve({"requests": 1.0}, -60.0), -60.0, written=True, traced=False)
    burst = ledger.reserve({"requests": 40.0}, 0.0)
    if sent is not None:
        ledger.depart(burst, sent, written=False, traced=written is not None)
    if written is not None:
        ledger.depart(burst, written, written=True, traced=True)
    assert ledger.shortage({"requests": 60.0}, 39.0) == (ledger.gauges[0], pytest.approx(60 - left))


def test_a_retry_after_speaks_against_a_window_that_gives_nothing_for_long():
    """A bucket that was taken for a window stood still for a minute after one refusal (found in a benchmark)."""
    ledger = Ledger()
    holds = [ledger.reserve({"requests": 1.0}, 0.0) for _ in range(60)]
    ledger.read((QuotaReading("requests", 60, 0.0, 59.9),), holds[-1], 0.5)
    gauge = ledger.gauges[0]
    active = [len(gauge.active)]
    for _ in range(3):
        ledger.empty(Refusal(RefusalKind.RATE_LIMIT, 0.5), {"requests": 1.0}, 0.6)
        active.append(len(gauge.active))
    assert active[0] > 1
    assert active[-1] == 1
    assert gauge.algorithm == "token_bucket"
