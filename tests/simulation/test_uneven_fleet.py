"""Eight workers of uneven demand behind one limit that only its headers tell, as `benchmarks/redis_goodput.py` has them."""

import pytest
from tests.simulation.fleet import Fleet, Member, Way
from tests.simulation.simulate import Provider
from tests.simulation.workers import Churn

from adaptive_rate_limiter.core.pool import Pool
from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket

DEMAND = (1, 1, 2, 3, 4, 6, 8, 15)  # parts of the calls
WINDOW, LIMIT, CALLS = 60.0, 1000.0, 1900
WINDOWS = [FixedWindow, SlidingWindow]


class Uneven:
    """A fleet that has not begun yet, and its members."""

    def __init__(self, limit, calls=CALLS, seed=0):
        self.fleet = Fleet(Provider({"requests": limit}), way=Way(step=0.0003, overhead=0.004), seed=seed)
        self.members = [
            Member(self.fleet, f"w{number}", 10 + 2 * part, calls * part // sum(DEMAND))
            for number, part in enumerate(DEMAND)
        ]
        self.calls = sum(calls * part // sum(DEMAND) for part in DEMAND)

    def stop(self, at, seconds, *, lost=True):
        """The pool cannot be reached for so long, and knows nothing then if it was `lost`."""
        self.fleet.at(at, setattr, self.fleet, "reachable", False)
        self.fleet.at(at + seconds, setattr, self.fleet, "pool", Pool() if lost else self.fleet.pool)
        self.fleet.at(at + seconds, setattr, self.fleet, "reachable", True)

    @property
    def lost(self):
        return self.calls - sum(member.done for member in self.members)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", WINDOWS)
def test_what_a_header_tells_to_be_back_after_a_turn_is_not_believed_piecemeal(algorithm, seed):
    """A tenth of it was believed with each header, and what idle workers held came back after three seconds."""
    uneven = Uneven(algorithm(LIMIT, WINDOW), seed=seed)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.055 * WINDOW


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", WINDOWS)
def test_who_has_come_to_rest_leaves_all_that_is_left_to_who_has_not(algorithm, seed):
    """It counted as busy for three seconds, and held what it had for one: the last got ever smaller parts."""
    uneven = Uneven(algorithm(300.0, WINDOW), calls=580, seed=seed)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.035 * WINDOW


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slowest", [2.0, 4.0])
def test_processes_that_are_slow_to_begin_send_no_more_than_is_left(slowest, seed):
    """Each took what its own first header told, and calls that were let go before were in nobody's count."""
    uneven = Uneven(FixedWindow(300.0, WINDOW), calls=580, seed=seed)
    for member in uneven.members:
        member.sending_until = uneven.fleet.rng.uniform(0.0, slowest)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", [*WINDOWS, TokenBucket])
def test_processes_that_do_not_reach_the_pool_at_first_do_not_take_themselves_to_be_alone(algorithm, seed):
    """On a busy machine a first answer came too late: each opened with a burst of its own, and a tenth was refused."""
    uneven = Uneven(algorithm(300.0, WINDOW), calls=580, seed=seed)
    uneven.stop(0.0, 0.5, lost=False)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= WINDOW + 4.0


@pytest.mark.parametrize("seed", range(3))
def test_what_a_busy_process_sends_late_comes_back_as_much_later(seed):
    """A window gave back what was granted, not what was sent: a minute later up to 60 of 600 calls were refused."""
    uneven = Uneven(SlidingWindow(300.0, WINDOW), calls=580, seed=seed)
    uneven.fleet.at(0.1, uneven.members[-1].stall, 6.0)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0


@pytest.mark.parametrize("algorithm", [*WINDOWS, TokenBucket])
def test_many_that_begin_on_a_small_limit_are_refused_nothing(algorithm):
    """Half of the calls were: each began as if it were alone."""
    uneven = Uneven(algorithm(100.0, 10.0), calls=210)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 22.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", WINDOWS)
def test_redis_back_without_its_data_does_not_begin_with_a_full_window(algorithm, seed):
    """Marks of the old pool counted in the new one, and who was paused went on as in the outage, a minute later."""
    uneven = Uneven(algorithm(LIMIT, WINDOW), seed=seed)
    uneven.stop(WINDOW / 3, 10.0)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.075 * WINDOW


@pytest.mark.parametrize("seed", range(3))
def test_redis_back_without_its_data_does_not_begin_with_a_full_bucket(seed):
    uneven = Uneven(TokenBucket(1200.0, 60.0), calls=2200, seed=seed)
    uneven.stop(17.0, 10.0)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.02 * (uneven.calls - 1200) / 20


@pytest.mark.parametrize("algorithm", [*WINDOWS, TokenBucket])
def test_a_pool_lost_in_the_middle_of_a_burst_costs_no_refusal(algorithm):
    uneven = Uneven(algorithm(LIMIT, WINDOW))
    uneven.stop(1.0, 0.0)
    uneven.fleet.run(300.0)
    assert uneven.lost == 0
    assert uneven.fleet.refused == 0


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize(("at", "seconds"), [(5.0, 2.0), (50.0, 10.0), (59.0, 0.5), (60.2, 0.5), (61.0, 2.0)])
@pytest.mark.parametrize("algorithm", WINDOWS)
def test_an_outage_round_a_turn_costs_no_refusal_and_no_window(algorithm, at, seconds, lost):
    """Who came back last told what it remembered, and what headers had told the others before was then out of date."""
    uneven = Uneven(algorithm(LIMIT, WINDOW))
    uneven.stop(at, seconds, lost=lost)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.08 * WINDOW + 2 * seconds * (at + seconds > WINDOW)


def test_what_a_worker_has_leased_and_needs_no_more_is_back_before_a_window_ends():
    uneven = Uneven(FixedWindow(LIMIT, WINDOW))
    uneven.fleet.run(WINDOW / 2)
    assert uneven.fleet.admitted >= 0.997 * LIMIT


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_the_first_header_of_one_in_a_hundred_does_not_make_all_believe_in_a_bucket_of_an_hour(algorithm):
    """One fiftieth of a window used, a whole minute until its reset: so looks a bucket of an hour, for one moment."""
    churn = Churn(100, limit=algorithm(1200.0, WINDOW))
    churn.run(1.2)
    (limit,) = churn.fleet.pool.limits
    assert limit.window == WINDOW
    assert "b" not in limit.algorithms


def test_a_bucket_is_shared_to_the_last_of_it():
    uneven = Uneven(TokenBucket(1200.0, 60.0), calls=2200)
    uneven.fleet.run()
    assert uneven.lost == uneven.fleet.refused == 0
    assert uneven.fleet.last <= 1.02 * (uneven.calls - 1200) / 20
