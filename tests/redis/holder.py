"""One process that takes all that it gets, keeps half of it in flight, and says `+` for each: to be killed.

`python -m tests.redis.holder URL '{"unit": "requests", "limit": 600, "window": 60}'`
"""

from __future__ import annotations

import json
import os
import sys
import threading

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend

held = []


def calls(limiter: Limiter) -> None:
    while True:
        first, second = limiter.acquire("m"), limiter.acquire("m")
        os.write(1, b"++")
        held.append(first)
        second.settle()


if __name__ == "__main__":
    limiter = Limiter(RedisBackend(sys.argv[1]), quotas=json.loads(sys.argv[2]))
    for _ in range(4):
        threading.Thread(target=calls, args=(limiter,)).start()
