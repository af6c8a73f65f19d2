"""A process that ends without a word."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.redis.server import Server

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.backends.redis.status import pools
from adaptive_rate_limiter.core.pool import LEASE, LIVES

ROOT = Path(__file__).parents[2]
RATE, BURST = 40.0, 20.0
QUOTA = {"unit": "requests", "limit": RATE * 60, "window": 60, "burst": BURST}


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as server:
        yield server


def test_what_a_killed_process_held_is_there_for_others_and_what_it_sent_stays_charged(server):
    """Two processes want all that there is; one is killed with calls in flight, in line, and on lease."""
    backend = RedisBackend(server.url)
    limiter = Limiter(backend, quotas=QUOTA)
    command = [sys.executable, "-m", "tests.redis.holder", server.url, json.dumps(QUOTA)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        sent = len(other.stdout.read(1))
        started = time.monotonic()
        sent += len(other.stdout.read(39))
        mine, stop = [], threading.Event()

        def calls():
            while not stop.is_set():
                limiter.acquire("m", timeout=30).settle()
                mine.append(time.monotonic())

        threads = [threading.Thread(target=calls) for _ in range(4)]
        for thread in threads:
            thread.start()
        sent += len(other.stdout.read(40))
        other.kill()
        killed = time.monotonic()
        sent += len(other.stdout.read())
    other.wait()
    back = killed + LIVES * LEASE
    time.sleep(back + 1.5 - time.monotonic())  # what is promised is a rate, and time has to pass for it
    stop.set()
    for thread in threads:
        thread.join()
    ended = time.monotonic()
    with redis.Redis(port=server.port) as client:
        (pool,) = pools(client)
    backend.close()
    alone = [at for at in mine if back <= at <= back + 1.5]
    assert len(alone) >= 0.8 * RATE * 1.5  # all of the limit, and not the half of it
    assert pool["workers"] == 1
    assert sent + len(mine) <= BURST + RATE * (ended - started) + 0.25 * RATE
