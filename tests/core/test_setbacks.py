"""What holds back beside the limit: pauses, and fewer calls at once."""

import math

import pytest

from adaptive_rate_limiter.core.setbacks import Concurrency, Pause, Sizes


@pytest.mark.parametrize(
    ("bound", "told", "window"),
    [(math.inf, 5.0, 5.0), (3.0, 5.0, 3.0), (10.0, 5.0, 5.0), (math.inf, 0.5, 0.5)],
)
def test_a_told_bound_counts_below_ones_own(bound, told, window):
    concurrency = Concurrency(bound)
    concurrency.told(told)
    assert concurrency.window == window


def test_refusals_count_below_a_told_bound_and_it_is_reached_again():
    concurrency = Concurrency(math.inf)
    concurrency.refused(10)
    concurrency.told(20.0)
    assert concurrency.window == 8.0
    for _ in range(300):
        concurrency.passed()
    assert 20.0 <= concurrency.window < 21.0


def test_a_name_that_is_no_text_seeds_a_pause():
    pause = Pause("default/\udc00")
    pause.back_off(1, 10.0, "overload")
    assert 11.0 <= pause.until <= 11.25


def test_the_largest_size_is_believed_for_as_long_as_it_may_not_have_changed():
    sizes = Sizes()
    sizes.refused("tokens", 30_000.0, until=100.0)
    assert sizes.over({"requests": 1.0, "tokens": 30_000.0}, 1.0) is None
    assert sizes.over({"requests": 1.0, "tokens": 30_001.0}, 1.0) == ("tokens", 30_000.0)
    assert sizes.over({"requests": 1.0, "tokens": 30_001.0}, 101.0) is None
