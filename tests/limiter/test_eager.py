"""Eager discovery learns from what has passed when it is refused, and then knows what it would have known before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter.core.discovery import Discovery
from adaptive_rate_limiter.eager import EagerDiscovery

COST = {"requests": 1.0, "tokens": 50.0}
STEPS = st.tuples(
    st.sampled_from(["send", "send", "pass", "pass", "refuse", "withdraw"]),
    st.sampled_from([0.0, 0.01, 0.3, 7.0]),
    st.integers(0, 3),
)


class Both:
    """The same calls under both."""

    def __init__(self):
        self.made = (EagerDiscovery(), Discovery())
        self.open = []
        self.now = 0.0

    def do(self, what, seconds, place):
        self.now += seconds
        if what == "send":
            self.open.append([one.sent(COST, self.now) for one in self.made])
        elif self.open:
            trials = self.open.pop(place % len(self.open))
            for one, trial in zip(self.made, trials, strict=True):
                if what == "withdraw":
                    one.withdrawn(trial)
                else:
                    (one.passed if what == "pass" else one.refused)(trial, self.now)


def knowledge(discovery):
    return [
        (family.low, family.high, family.weight)
        for hypotheses in discovery.hypotheses.values()
        for family in hypotheses.families
    ]


@given(st.lists(STEPS, max_size=40))
def test_it_knows_the_same_after_a_refusal(steps):
    both = Both()
    for step in [*steps, ("send", 0.0, 0), ("refuse", 0.0, -1), ("send", 9.0, 0)]:
        both.do(*step)
    eager, usual = both.made
    assert (eager.found, eager.proven, eager.in_doubt) == (usual.found, usual.proven, usual.in_doubt)
    for ours, theirs in zip(knowledge(eager), knowledge(usual), strict=True):
        assert ours == pytest.approx(theirs)
