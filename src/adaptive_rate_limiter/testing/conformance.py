"""Proves that a backend keeps the contract of `BaseBackend`.

class TestMine(BackendConformance):
    @pytest.fixture
    def backend(self):
        mine = MyBackend()
        yield mine
        mine.close()
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from adaptive_rate_limiter.core.pool import Fact, Renewal, Use
from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from adaptive_rate_limiter.backends import BaseBackend
    from adaptive_rate_limiter.core.pool import Grant

__all__ = ["BackendConformance"]

LIMIT = Fact("requests", "requests", 10.0, 3600.0, evidence=1e9)  # so slow that no refill shows in a test
PLENTY = {"requests": 100.0}


class BackendConformance:
    """Inherit, and define a fixture `backend` that gives a backend with no buckets in it, and closes it."""

    @pytest.fixture
    def backend(self) -> BaseBackend:
        raise NotImplementedError("define a fixture `backend` in your class")

    def test_a_lease_is_deducted_when_it_is_granted(self, backend: BaseBackend) -> None:
        first = self._ask(backend, "a", 1, 6)
        second = self._ask(backend, "b", 1, 6)
        assert _amount(first) == 6
        assert 0 <= _amount(second) <= 4.01

    def test_no_more_is_granted_than_there_is_however_many_ask_at_once(self, backend: BaseBackend) -> None:
        granted: list[float] = []

        def ask(worker: str) -> None:
            granted.extend(_amount(self._ask(backend, worker, number, 1)) for number in (1, 2, 3))

        threads = [threading.Thread(target=ask, args=(f"w{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= sum(granted) <= 10.01

    def test_a_renewal_that_is_sent_again_is_answered_again_and_changes_nothing(
        self, backend: BaseBackend
    ) -> None:
        renewal = Renewal("a", 1, due={"requests": 4}, facts=(LIMIT,))
        first, again = backend.renew("bucket", renewal), backend.renew("bucket", renewal)
        assert _amount(first) == _amount(again) == 4
        assert 6 <= again.limits[0].left <= 6.01

    def test_a_renewal_that_comes_late_changes_nothing(self, backend: BaseBackend) -> None:
        self._ask(backend, "a", 2, 4)
        late = self._ask(backend, "a", 1, 4)
        assert late.number == 2
        assert _amount(late) == 0
        assert 6 <= late.limits[0].left <= 6.01

    def test_what_the_next_call_needs_is_granted_whole_or_not_at_all(self, backend: BaseBackend) -> None:
        self._ask(backend, "a", 1, 8)
        grant = backend.renew("bucket", Renewal("b", 1, need={"requests": 5}, due={"requests": 5}))
        assert _amount(grant) == 0
        assert grant.retry_in > 0

    def test_what_is_returned_is_there_for_others(self, backend: BaseBackend) -> None:
        backend.renew("bucket", Renewal("a", 1, want=PLENTY, facts=(LIMIT,)))
        backend.renew("bucket", Renewal("a", 2, uses=(Use("requests", spent=2, kept=0),)))
        assert 8 <= _amount(self._ask(backend, "b", 1, 9)) <= 8.01

    def test_what_was_spent_stays_spent(self, backend: BaseBackend) -> None:
        backend.renew("bucket", Renewal("a", 1, want=PLENTY, facts=(LIMIT,)))
        left = (
            backend.renew("bucket", Renewal("a", 2, uses=(Use("requests", spent=7, kept=1),))).limits[0].left
        )
        assert 2 <= left <= 2.01

    def test_what_one_worker_learns_all_know(self, backend: BaseBackend) -> None:
        backend.renew("bucket", Renewal("a", 1, facts=(LIMIT,), pause=30.0, reason="told to wait"))
        grant = backend.renew("bucket", Renewal("b", 1))
        (limit,) = grant.limits
        assert (limit.key, limit.unit, limit.limit, limit.window) == ("requests", "requests", 10, 3600)
        assert 25 < grant.pause <= 30
        assert grant.reason == "told to wait"

    def test_less_that_a_header_tells_is_believed_at_once(self, backend: BaseBackend) -> None:
        backend.renew("bucket", Renewal("a", 1, facts=(LIMIT,)))
        told = replace(LIMIT, remaining=3.0, sent=-1e12)
        assert 3 <= backend.renew("bucket", Renewal("a", 2, facts=(told,))).limits[0].left <= 3.01

    def test_an_older_header_changes_nothing(self, backend: BaseBackend) -> None:
        told = replace(LIMIT, remaining=8.0, sent=-1e12)
        backend.renew("bucket", Renewal("a", 1, facts=(told,)))
        old = replace(told, remaining=1.0, age=60.0)
        assert 8 <= backend.renew("bucket", Renewal("b", 1, facts=(old,))).limits[0].left <= 8.01

    def test_buckets_share_nothing(self, backend: BaseBackend) -> None:
        names = ["bucket", "bucket}", "{bucket}", "bucket\n", "bucket:1", "ümlaut", "", "x" * 10_000]
        for name in names:
            assert backend.renew(name, Renewal("a", 1)).limits == ()
            backend.renew(name, Renewal("a", 2, facts=(LIMIT,)))

    def test_renewals_of_several_buckets_at_once_are_answered_in_order(self, backend: BaseBackend) -> None:
        numbers = [3, 1, 2]
        grants = backend.renew_many([(f"bucket {number}", Renewal("a", number)) for number in numbers])
        assert [getattr(grant, "number", grant) for grant in grants] == numbers

    def test_a_limiter_keeps_the_limit(self, backend: BaseBackend) -> None:
        limiter = Limiter(backend, quotas={"unit": "requests", "limit": 3, "window": 3600})
        for _ in range(3):
            limiter.acquire("model").settle()
        with pytest.raises(CapacityExceededError):
            limiter.acquire("model", timeout=0.5)

    def test_a_limiter_works_after_the_backend_was_closed(self, backend: BaseBackend) -> None:
        limiter = Limiter(backend, quotas={"unit": "requests", "limit": 3, "window": 3600})
        limiter.acquire("model").settle()
        backend.close()
        backend.close()
        limiter.acquire("model", timeout=30).settle()

    @staticmethod
    def _ask(backend: BaseBackend, worker: str, number: int, amount: float) -> Grant:
        due = {"requests": amount}
        return backend.renew("bucket", Renewal(worker, number, due=due, facts=(LIMIT,)))


def _amount(grant: Grant) -> float:
    return sum(itertools.chain((limit.amount for limit in grant.limits), [0.0]))
