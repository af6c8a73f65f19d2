"""By when has a provider counted a request that it has answered?"""

import pytest

from adaptive_rate_limiter.core.hold import Hold
from adaptive_rate_limiter.core.transit import LONGEST, SPREAD, Transit


def sent(at):
    hold = Hold({"requests": 1.0}, at, 1)
    hold.written = True
    return hold


@pytest.mark.parametrize(
    ("took", "processing", "counted"),
    [
        (0.2, 0.0, 0.2),  # all of it may have been the way there
        (0.2, 0.15, 0.05 + SPREAD),
        (5.0, 0.0, LONGEST),
        (5.0, 4.9, 0.1 + SPREAD),
        (0.2, 9.0, SPREAD),  # nonsense: it was not counted before it was sent
    ],
)
def test_what_the_provider_worked_was_no_time_on_the_way(took, processing, counted):
    assert Transit().counted_by(sent(10.0), 10.0 + took, processing) == pytest.approx(10.0 + counted)


def test_the_fastest_of_late_bounds_the_way_of_those_that_say_nothing():
    transit = Transit()
    transit.counted_by(sent(0.0), 2.0, 1.95)
    assert transit.counted_by(sent(3.0), 7.0) == pytest.approx(3.05 + SPREAD)
