import json
import os

import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_is_a_worker_of_its_own_on_the_same_budget(redis_server):
    backend = RedisBackend(redis_server.url, namespace="fork")
    limiter = Limiter(backend, quotas={"unit": "requests", "limit": 6, "window": 3600})
    for _ in range(2):
        limiter.acquire("m").settle()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        admitted = 0
        try:
            for _ in range(3):
                limiter.acquire("m", timeout=10).settle()
                admitted += 1
        finally:
            os.write(write, json.dumps([admitted, backend.worker]).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        admitted, worker = json.loads(told.read())
    os.waitpid(child, 0)
    assert admitted == 3
    assert worker != backend.worker
    limiter.acquire("m", timeout=10).settle()
    assert limiter.try_acquire("m") is None
    (bucket,) = backend.buckets("")
    assert bucket.lease.workers == 2
    backend.close()
