"""One process that asks Redis for leave: this library, the release on the registry that has its name, or a script of GCRA.

`python -m benchmarks.redis_client CLIENT URL BUCKET RATE`, under the interpreter that has the client; RATE 0 is as fast as it
can, for eight callers. Says "ready", begins when it reads a line, prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection

SECONDS = 3.0  # of one measurement, and more where the rate is low
FEWEST, MOST = 12, 100_000  # requests in one measurement
CALLERS = 8
PLENTY = 10**8  # a minute: nobody waits for the limit
TOKENS, USED = 100, 50
HEADERS = {
    f"x-ratelimit-{figure}-{unit}": str(value)
    for unit in ("requests", "tokens")
    for figure, value in (("limit", PLENTY), ("remaining", PLENTY - 1), ("reset", 60))
}
# Theoretical arrival time, in microseconds of the server's clock; returns how many to wait.
GCRA = """
local time = redis.call("TIME")
local now = time[1] * 1e6 + time[2]
local tat = math.max(now, tonumber(redis.call("GET", KEYS[1]) or 0))
local wait = tat - now - ARGV[2]
if wait > 0 then return wait end
redis.call("SET", KEYS[1], string.format("%.0f", tat + ARGV[1]), "PX", 120000)
return 0
"""


class Ours:
    def __init__(self, url: str, bucket: str) -> None:
        from adaptive_rate_limiter import Limiter
        from adaptive_rate_limiter.backends import RedisBackend

        self.backend = RedisBackend(url, namespace=bucket)
        self.limiter = Limiter(self.backend, quotas={"requests": PLENTY, "tokens": PLENTY * TOKENS})

    async def __aenter__(self) -> Callable[[], Any]:
        return self.ask

    async def ask(self) -> Callable[[], Any]:
        reservation = await self.limiter.aacquire("m", tokens=TOKENS)

        async def settle() -> None:
            reservation.settle(tokens=USED)

        return settle

    async def __aexit__(self, *_: object) -> None:
        self.backend.close()


class Peer:
    """What its scheduler asks of its backend for each request: room, and then to read the headers of the reply."""

    def __init__(self, url: str, bucket: str) -> None:
        from adaptive_rate_limiter.backends.redis import RedisBackend

        self.backend: Any = RedisBackend(redis_url=url)
        self.bucket = bucket

    async def __aenter__(self) -> Callable[[], Any]:
        await self.backend.start()
        return self.ask

    async def ask(self) -> Callable[[], Any]:
        limits = {"rpm_limit": PLENTY, "tpm_limit": PLENTY * TOKENS}
        while True:
            went, request = await self.backend.check_and_reserve_capacity(self.bucket, 1, TOKENS, limits)
            if went:
                break
            if not str(request).startswith("RATE_LIMITED"):
                raise ConnectionError(request)
            await asyncio.sleep(float(request.partition(":")[2]))

        async def settle() -> None:
            await self.backend.update_rate_limits(self.bucket, HEADERS, None, request, 200)

        return settle

    async def __aexit__(self, *_: object) -> None:
        await self.backend.stop()


class Gcra:
    """One script a request, which counts requests alone; nothing is settled."""

    def __init__(self, url: str, bucket: str) -> None:
        self.client = redis.asyncio.Redis.from_url(url)
        self.script = self.client.register_script(GCRA)
        self.bucket = bucket

    async def __aenter__(self) -> Callable[[], Any]:
        return self.ask

    async def ask(self) -> Callable[[], Any]:
        while wait := await self.script(keys=[self.bucket], args=[60e6 / PLENTY, 60e6]):  # noqa: ASYNC110 - it tells when
            await asyncio.sleep(wait / 1e6)
        return _nothing

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


async def _nothing() -> None:
    pass


CLIENTS = {"ours": Ours, "peer": Peer, "gcra": Gcra}


class Measure:
    """Requests, one after the other for each caller, and what they cost."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask = ask
        self.waits: list[float] = []
        self.failed = 0

    async def request(self) -> None:
        asked = time.perf_counter()
        try:
            settle = await self.ask()
        except Exception:  # counted: the release fails under load
            self.failed += 1
            return
        self.waits.append(time.perf_counter() - asked)
        await settle()

    async def paced(self, rate: float) -> None:
        started = time.perf_counter()
        for number in range(max(FEWEST, int(rate * SECONDS))):
            ahead = started + number / rate - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif time.perf_counter() > started + max(2 * SECONDS, FEWEST / rate + 1):
                break  # it cannot keep up
            else:
                await asyncio.sleep(0)
            await self.request()

    async def flat_out(self) -> None:
        until = time.perf_counter() + SECONDS

        async def caller() -> None:
            while time.perf_counter() < until and len(self.waits) < MOST * SECONDS:
                await self.request()
                await asyncio.sleep(0)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


sent = 0


def count_sends() -> None:
    """Each write to the server is one round trip, whatever it holds."""

    def counted(send: Any) -> Any:
        def send_and_count(*given: Any, **named: Any) -> Any:
            global sent  # noqa: PLW0603 - one measurement a process
            sent += 1
            return send(*given, **named)

        return send_and_count

    for kind in (AbstractConnection, AsyncConnection):
        kind.send_packed_command = counted(kind.send_packed_command)  # type: ignore[method-assign]


async def main(client: str, url: str, bucket: str, rate: float) -> None:
    async with CLIENTS[client](url, bucket) as ask:
        await (await ask())()
        print("ready", flush=True)
        sys.stdin.readline()
        measure, before, used = Measure(ask), sent, time.process_time()
        started = time.perf_counter()
        await (measure.paced(rate) if rate else measure.flat_out())
        seconds, used, trips = time.perf_counter() - started, time.process_time() - used, sent - before
    waits = sorted(measure.waits) or [0.0]
    figures = {
        "requests": len(measure.waits), "failed": measure.failed, "seconds": seconds, "round_trips": trips,
        "p50_ms": 1000 * waits[len(waits) // 2], "p99_ms": 1000 * waits[int(len(waits) * 0.99)],
        "cpu_us": 1e6 * used / max(1, len(measure.waits)),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the release logs each refusal
    count_sends()
    asyncio.run(main(*sys.argv[1:4], float(sys.argv[4])))
