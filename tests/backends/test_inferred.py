"""The rate at which workers together send where nobody tells a limit, as a table of what they tell and when."""

import pytest

from adaptive_rate_limiter.core.inferred import INFERRED, InferredRate


class Told:
    """What one of several workers tells the pool, at its time."""

    def __init__(self, workers=2):
        self.rate, self.limits, self.workers, self.now = InferredRate(), [], workers, 1000.0

    def tell(self, after, sent=0.0, refused=0):
        self.now += after
        for limit in self.limits:
            limit.advance(self.now, 0.0)
        found = self.rate.follow(sent, refused, self.limits, self.workers, self.now)
        if found is not None:
            self.limits.append(found)

    def use(self, seconds):
        """All that may be sent is sent, told once a second."""
        for _ in range(seconds):
            (limit,) = self.limits
            limit.advance(self.now + 1.0, 0.0)
            sent = max(0.0, limit.available())
            limit.take(sent, self.now + 1.0, self.now + 1.0)
            self.tell(1.0, sent)

    @property
    def per_minute(self):
        return self.limits[0].limit


@pytest.fixture
def told():
    """Six hundred in a few seconds, and then a refusal."""
    told = Told()
    for _ in range(6):
        told.tell(0.5, 100.0)
    told.tell(0.1, 0.0, refused=1)
    return told


def test_nothing_is_inferred_without_a_refusal():
    told = Told()
    for _ in range(600):
        told.tell(0.1, 5.0)
    assert not told.limits


def test_what_passed_in_a_minute_is_the_first_guess(told):
    (limit,) = told.limits
    assert limit.key == INFERRED
    assert limit.limit == pytest.approx(600, rel=0.05)
    assert limit.available() <= 0


def test_traffic_of_hours_ago_is_no_part_of_the_first_guess():
    told = Told()
    told.tell(1.0, 5000.0)
    told.tell(3600.0, 30.0)
    told.tell(0.1, 0.0, refused=1)
    assert told.per_minute == pytest.approx(30, rel=0.01)


def test_it_is_paced_and_never_a_burst(told):
    told.tell(600.0)
    (limit,) = told.limits
    assert limit.available() <= told.per_minute / 60


def test_refusals_of_one_moment_cut_once(told):
    told.use(60)
    before = told.per_minute
    for _ in range(5):
        told.tell(0.1, 0.0, refused=2)
    assert 0.9 * before <= told.per_minute < before


def test_refusals_that_go_on_cut_deeper_each_time(told):
    told.use(60)
    before, cuts = told.per_minute, []
    for _ in range(3):
        told.tell(2.0, 5.0, refused=1)
        cuts.append(told.per_minute / before)
        before = told.per_minute
    assert cuts[2] <= 0.8 < cuts[1]


def test_while_everything_is_refused_tries_become_rare_and_the_rate_is_kept(told):
    """A window that is used up says nothing of the rate."""
    told.use(30)
    before = told.per_minute
    told.tell(1.0, 0.0, refused=1)
    kept, tries = told.per_minute, 0
    for _ in range(60):
        (limit,) = told.limits
        limit.advance(told.now + 1.0, 0.0)
        tried = limit.available() >= 1
        if tried:
            limit.take(1.0, told.now + 1.0, told.now + 1.0)
        told.tell(1.0, 0.0, refused=int(tried))
        tries += tried
    assert 4 <= tries <= 12
    told.tell(8.0, 1.0)
    told.tell(2.0)  # its refusal would have been told
    assert kept * 0.99 <= told.per_minute <= before


def test_it_grows_slowly_after_a_cut_and_faster_when_nothing_is_refused(told):
    told.use(20)
    early = told.per_minute
    told.use(20)
    later = told.per_minute
    told.use(100)
    assert 1.0 < later / early < 1.05
    assert told.per_minute > 1.5 * later


def test_what_is_not_used_does_not_grow(told):
    before = told.per_minute
    for _ in range(300):
        told.tell(1.0, 0.1)
    assert told.per_minute == before


def test_one_worker_alone_finds_its_limit_by_itself():
    told = Told(workers=1)
    told.tell(1.0, 300.0)
    told.tell(0.1, 0.0, refused=1)
    told.tell(2.0, 60.0, refused=1)
    assert told.per_minute == pytest.approx(360, rel=0.05)
    told.use(100)
    assert told.per_minute == pytest.approx(360, rel=0.05)
