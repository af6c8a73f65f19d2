"""A copy of a limiter is that limiter, and in another process one of the same settings, over the same backend."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import MemoryBackend, RedisBackend

SETTINGS = {
    "namespace": "team", "max_wait": 60.0, "max_pause": 5.0, "max_concurrency": 3, "weights": {"a": 2.0},
    "headroom": 0.1, "eager": "unseen",
}  # fmt: skip
ELSEWHERE = """
import pickle, sys
limiters = pickle.load(sys.stdin.buffer)
with limiters[0].acquire("m") as reservation:
    print(reservation.bucket_id, limiters[0] is limiters[1])
"""


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda limiter: pickle.loads(pickle.dumps(limiter))]
)
def test_a_copy_is_the_same_limiter(copied):
    limiter = Limiter(MemoryBackend(), quotas={"requests": 7})
    assert copied(limiter) is limiter
    assert copied({"deep": [limiter]})["deep"][0] is limiter


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda snapshot: pickle.loads(pickle.dumps(snapshot))])
def test_a_snapshot_can_be_copied_and_sent(copied):
    limiter = Limiter(quotas={"requests": 60, "tokens": 1000})
    limiter.acquire("m", tokens=10).settle(tokens=5)
    snapshot = limiter.snapshot()
    again = copied(snapshot)
    assert again == snapshot
    assert again.buckets[0].account.binding == snapshot.buckets[0].account.binding
    assert again.buckets[0].tally.overestimated == 5


def _sent(limiter):
    """As it comes out in a process that does not know it."""
    sent = pickle.dumps(limiter)
    del limiter
    collect()
    return pickle.loads(sent)


@pytest.mark.parametrize("quotas", [{"requests": 7}, {"m": {"requests": 7}}, None])
def test_elsewhere_it_has_the_same_settings(quotas):
    again = _sent(Limiter(quotas=quotas, **SETTINGS))
    assert (again.namespace, again.max_wait, again.max_pause) == ("team", 60.0, 5.0)
    assert again.elsewhere().keywords == Limiter(quotas=quotas, **SETTINGS).elsewhere().keywords
    with again.acquire("m") as reservation:
        assert reservation.bucket_id == "team/m"
    (bucket,) = again.snapshot().buckets
    assert [(limit.unit, limit.limit) for limit in bucket.limits] == ([("requests", 7.0)] if quotas else [])


def test_what_came_from_another_process_is_kept_for_its_next_task():
    sent = pickle.dumps(Limiter(quotas={"requests": 7}))
    collect()
    pickle.loads(sent).acquire("m").settle()
    collect()
    (bucket,) = pickle.loads(sent).snapshot().buckets
    assert bucket.admitted == 1


def test_in_another_process_two_copies_of_one_limiter_are_one():
    sent = pickle.dumps([limiter := Limiter(namespace="team"), copy.copy(limiter)])
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE], input=sent, capture_output=True, check=True,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    assert said.stdout.decode().split() == ["team/m", "True"]


def test_the_way_to_redis_goes_with_it():
    pytest.importorskip("redis")
    url = "redis://:secret@redis.test:1/0"  # nothing is sent before the first call
    again = _sent(Limiter(RedisBackend(url, namespace="n", weight=2.0, on_outage="open", timeout=0.5)))
    backend = again.elsewhere().args[0]
    assert isinstance(backend, RedisBackend)
    assert backend.elsewhere().args == (url,)
    assert backend.elsewhere().keywords == {
        "namespace": "n", "weight": 2.0, "on_outage": "open", "timeout": 0.5,
    }  # fmt: skip


def test_a_backend_over_a_client_of_ones_own_says_that_it_cannot():
    redis = pytest.importorskip("redis")
    limiter = Limiter(RedisBackend(redis_client=redis.Redis(port=1)))
    assert copy.deepcopy(limiter) is limiter
    with pytest.raises(TypeError, match="with its redis_url: it cannot be if given a redis_client"):
        pickle.dumps(limiter)
