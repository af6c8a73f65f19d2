"""Workers that come and go on one limit; `python -m tests.simulation workers` does it with thousands, for an hour."""

import pytest
from tests.simulation.workers import Churn

from adaptive_rate_limiter.testing.limits import FixedWindow, SlidingWindow, TokenBucket


# Calls that pass in two minutes, and that may be refused: until it is known that it is a window, some are.
@pytest.mark.parametrize(
    ("algorithm", "most", "refused"),
    [(TokenBucket, 3600, 0), (FixedWindow, 2400, 4), (SlidingWindow, 2400, 4)],
)
def test_a_hundred_of_which_some_die_use_up_the_limit_and_are_not_refused(algorithm, most, refused):
    churn = Churn(100, limit=algorithm(1200.0, 60.0))
    assert churn.run(2.0).refused <= refused
    assert churn.fleet.admitted >= 0.97 * most


def test_who_starts_with_many_others_at_once_is_granted_no_more_than_there_is():
    """It was seen that 1,000 workers were granted a third more than a limit that they had just found together."""
    churn = Churn(300, limit=TokenBucket(1800.0, 60.0))
    assert churn.run(0.1).refused == 0
    assert churn.fleet.admitted > 1800
