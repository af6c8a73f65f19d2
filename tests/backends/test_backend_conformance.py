"""The contract of a backend, on the one in memory, on the smallest that somebody else could write, and on broken ones."""

import time
from copy import deepcopy
from dataclasses import replace

import pytest

from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend
from adaptive_rate_limiter.core.pool import Pool
from adaptive_rate_limiter.exceptions import BackendOperationError
from adaptive_rate_limiter.testing import BackendConformance


class Smallest(BaseBackend):
    """All that a third party has to write."""

    def __init__(self):
        super().__init__()
        self.pools = {}

    def renew(self, bucket_id, renewal):
        return self.pools.setdefault(bucket_id, Pool()).renew(renewal, time.monotonic())


class Locked(Smallest):
    """`renew` is to be atomic."""

    def __init__(self):
        import threading

        super().__init__()
        self.step = threading.Lock()

    def renew(self, bucket_id, renewal):
        with self.step:
            return super().renew(bucket_id, renewal)


class TestMemoryBackend(BackendConformance):
    @pytest.fixture
    def backend(self):
        backend = MemoryBackend()
        yield backend
        backend.close()


class TestOwnBackend(BackendConformance):
    @pytest.fixture
    def backend(self):
        backend = Locked()
        yield backend
        backend.close()


# Each of these makes one mistake that somebody who writes a backend may make.


class ForgetsLimits(Locked):
    def renew(self, bucket_id, renewal):
        self.pools.clear()
        return super().renew(bucket_id, renewal)


class OnePoolForAll(Locked):
    def renew(self, bucket_id, renewal):
        return super().renew("", renewal)


class CutsNames(Locked):
    def renew(self, bucket_id, renewal):
        return super().renew(bucket_id.partition(":")[0], renewal)


class CountsTwice(Locked):
    """What is sent again is done again."""

    number = 0

    def renew(self, bucket_id, renewal):
        self.number += 1
        return super().renew(bucket_id, replace(renewal, number=self.number))


class KeepsWhatIsReturned(Locked):
    def renew(self, bucket_id, renewal):
        return super().renew(bucket_id, replace(renewal, uses=()))


class GivesBackWhatWasSpent(Locked):
    def renew(self, bucket_id, renewal):
        return super().renew(
            bucket_id, replace(renewal, uses=tuple(replace(u, spent=0.0) for u in renewal.uses))
        )


class TellsNobody(Locked):
    """Each worker sees limits and pauses of its own."""

    def renew(self, bucket_id, renewal):
        return super().renew(f"{bucket_id} {renewal.worker}", renewal)


class ForgetsPauses(Locked):
    def renew(self, bucket_id, renewal):
        return super().renew(bucket_id, replace(renewal, pause=0.0))


class GivesParts(Locked):
    """What the next call needs is granted in part."""

    def renew(self, bucket_id, renewal):
        return super().renew(bucket_id, replace(renewal, need={}))


class Shuffles(Locked):
    def renew_many(self, renewals):
        return super().renew_many(renewals)[::-1]


class IgnoresHeaders(Locked):
    def renew(self, bucket_id, renewal):
        facts = tuple(replace(fact, remaining=-1.0) for fact in renewal.facts)
        return super().renew(bucket_id, replace(renewal, facts=facts))


class EndsForGood(Locked):
    """Closed once, it does not work any more."""

    closed = False

    def close(self):
        super().close()
        self.closed = True

    def renew(self, bucket_id, renewal):
        if self.closed:
            raise BackendOperationError("closed")
        return super().renew(bucket_id, renewal)


class ReadsAndWrites(Smallest):
    """Two steps where it is to be one: who comes between is forgotten."""

    def renew(self, bucket_id, renewal):
        pool = deepcopy(self.pools.get(bucket_id) or Pool())
        grant = pool.renew(renewal, time.monotonic())
        time.sleep(0.001)
        self.pools[bucket_id] = pool
        return grant


BROKEN = [
    ReadsAndWrites,
    ForgetsLimits, OnePoolForAll, CutsNames, CountsTwice, KeepsWhatIsReturned, GivesBackWhatWasSpent, TellsNobody,
    ForgetsPauses, GivesParts, Shuffles, IgnoresHeaders, EndsForGood,
]  # fmt: skip
SLOW = "test_a_limiter_works_after_the_backend_was_closed"  # it waits for a backend that is broken otherwise


def failures(make):
    """Names of the tests that such a backend does not pass."""
    for name in dir(BackendConformance):
        if not name.startswith("test_") or (name == SLOW and make is not EndsForGood):
            continue
        backend = make()
        try:
            getattr(BackendConformance(), name)(backend)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it is, it has not passed
            yield name
        finally:
            backend.close()


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_backend_is_found_out(make):
    assert next(failures(make), None)


def test_what_is_sound_is_not_called_broken():
    assert list(failures(Locked)) == []
