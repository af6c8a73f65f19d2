"""One worker process: makes so many calls through a limiter on Redis, and prints what became of them.

`python -m tests.redis.worker '{"redis": URL, "provider": URL, "calls": 100, "concurrency": 20}'`
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend


async def work(options: dict[str, Any]) -> dict[str, Any]:
    backend = RedisBackend(options["redis"], **options.get("backend", {}))
    limiter = Limiter(backend, quotas=options.get("quotas"), **options.get("limiter", {}))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
    left, refused, done, at = options["calls"], 0, 0, []
    timeout = httpx.Timeout(60)
    async with httpx.AsyncClient(base_url=options["provider"], timeout=timeout) as client:

        async def calls() -> None:
            nonlocal left, refused, done
            while left > 0:
                left -= 1
                while True:
                    async with await limiter.aacquire("gpt-4o", tokens=20) as reservation:
                        reply = await client.post("/chat/completions", json=body)
                        reservation.observe(reply.status_code, reply.headers, reply.content)
                        if reply.status_code == 200:
                            usage = reply.json()["usage"]
                            reservation.settle(tokens=usage["total_tokens"])
                    if reply.status_code == 200:
                        break
                    refused += 1
                done += 1
                at.append(time.monotonic())

        await asyncio.gather(*(calls() for _ in range(options.get("concurrency", 50))))
    renewals = sum(bucket.lease.number for bucket in backend.buckets(""))
    backend.close()
    return {"done": done, "refused": refused, "renewals": renewals, "last": max(at, default=0.0), "at": at}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
