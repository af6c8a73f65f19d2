"""Workers that share a limit which nobody tells."""

import pytest
from tests.simulation.fleet import Fleet, Member
from tests.simulation.simulate import Provider

from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket

CALLS, LIMIT = 2400, 600.0
LEAST = {TokenBucket: (CALLS - LIMIT) / (LIMIT / 60), FixedWindow: 180.0, SlidingWindow: 180.0}
# Windows are paced evenly once their limit was found: the last is not sent in a burst, and the first is waited out.
MOST = {TokenBucket: 1.1, FixedWindow: 1.6, SlidingWindow: 1.6}


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("algorithm", MOST)
def test_many_find_together_a_limit_that_nobody_tells(algorithm, workers):
    fleet = Fleet(Provider({"requests": algorithm(LIMIT, 60.0)}, tells=False))
    members = [Member(fleet, f"w{number}", 30, CALLS / workers) for number in range(workers)]
    fleet.run()
    assert sum(member.done for member in members) == CALLS
    assert fleet.last <= MOST[algorithm] * LEAST[algorithm]
    assert fleet.refused <= 0.02 * CALLS


@pytest.mark.parametrize(("change", "after"), [(0.4, 0.6), (4.0, 1.5)])
def test_many_follow_a_limit_that_changes(change, after):
    provider = Provider({"requests": TokenBucket(LIMIT, 60.0)}, tells=False)
    fleet = Fleet(provider)
    for number in range(4):
        Member(fleet, f"w{number}", 30)
    fleet.run(120.0)
    provider.limits["requests"].set_limit(change * LIMIT, fleet.now)
    before = fleet.admitted, fleet.refused
    fleet.run(360.0)
    passed, refused = fleet.admitted - before[0], fleet.refused - before[1]
    assert passed >= 0.75 * min(change, after) * LIMIT * 4
    assert refused <= 0.03 * passed
