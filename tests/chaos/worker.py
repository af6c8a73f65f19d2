"""One process under load: callers that each ask, call an emulated provider, and count what became of it.

It stops at the end of its standard input, waits for whoever is in line, and prints one line of JSON. It says "at
work" with the first reply.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import httpx
from redis.asyncio.cluster import ClusterNode, RedisCluster

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.exceptions import CapacityExceededError

DEADLINE = 20.0  # seconds that a caller waits for its turn
LATE = 1.0  # seconds beyond its deadline at which a caller counts as stuck


async def work(options: dict[str, Any]) -> dict[str, Any]:
    nodes = [ClusterNode("127.0.0.1", port) for port in options["nodes"]]
    backend = RedisBackend(redis_client=RedisCluster(startup_nodes=nodes), on_outage=options["on_outage"])
    limiter = Limiter(backend)
    counts: Counter[str] = Counter()
    longest = 0.0
    stop = asyncio.Event()
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())

    async def one(client: httpx.AsyncClient, model: str) -> None:
        nonlocal longest
        started = time.monotonic()
        counts["asked"] += 1
        try:
            reservation = await limiter.aacquire(model, tokens=20, timeout=DEADLINE)
        except CapacityExceededError:
            counts["late"] += 1
            await asyncio.sleep(1)  # as a caller would, who is told so at once
            return
        finally:
            longest = max(longest, time.monotonic() - started)
        async with reservation:
            body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
            reply = await client.post("/chat/completions", json=body)
            reservation.observe(reply.status_code, reply.headers, reply.content)
            if reply.status_code == 200:
                reservation.settle(tokens=reply.json()["usage"]["total_tokens"])
        counts["done" if reply.status_code == 200 else "refused"] += 1
        if counts["done"] == 1:
            print("at work", flush=True)

    async with httpx.AsyncClient(base_url=options["provider"], timeout=httpx.Timeout(60)) as client:

        async def caller(model: str) -> None:
            while not stop.is_set():
                await one(client, model)

        await asyncio.gather(
            *(caller(model) for model in options["models"] for _ in range(options["callers"]))
        )
    backend.close()
    return {**counts, "longest": longest, "stuck": longest > DEADLINE + LATE}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
