"""What the pools on a server look like now, for people and for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.backends.redis.wire import LIVES, POOL, PREFIX
from adaptive_rate_limiter.core.share import SharedLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pools"]

READ = """
local stored = redis.call('HGET', KEYS[1], 'pool')
if not stored then return false end
local pool = cmsgpack.unpack(stored)
pool.inferred = nil
for _, limit in ipairs(pool.limits) do
  if limit.ends_at == math.huge then limit.ends_at = -1 end
end
local time = redis.call('TIME')
local now, overdue = tonumber(time[1]) + tonumber(time[2]) / 1e6, {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.17g', now))) do
  overdue[#overdue + 1] = cmsgpack.unpack(redis.call('HGET', KEYS[1], 'w:' .. name))
end
return {cjson.encode(pool), cjson.encode(overdue), string.format('%.17g', now)}
"""
"""The pool, and those whose silence has ended a lease that no step has taken back yet."""


def pools(client: Any) -> Iterator[dict[str, Any]]:
    """Each pool on the server of `client`, a `redis.Redis`, or on all nodes of its cluster.

    Its limits, workers, pause and refusals, as JSON would have them.
    """
    import redis  # noqa: PLC0415 - an extra

    try:
        told = client.execute_command("CLUSTER", "SLOTS")
    except redis.ResponseError:  # no cluster, or no right to know
        yield from _pools_of(client, redis)
        return
    own = client.connection_pool.connection_kwargs
    primaries = {(_str(node[0] or own.get("host", "localhost")), int(node[1])) for _, _, node, *_ in told}
    for host, port in sorted(primaries):
        settings = own | {"host": host, "port": port}
        kind = client.connection_pool.connection_class
        with redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **settings)) as node:
            yield from _pools_of(node, redis)
            node.connection_pool.disconnect()


def _pools_of(client: Any, redis: Any) -> Iterator[dict[str, Any]]:
    for found in client.scan_iter(match=f"{PREFIX}*}}{POOL}", count=1000):
        key = _str(found)
        try:
            read = client.eval(READ, 2, key, key.removesuffix(POOL) + LIVES)
        except (redis.exceptions.AskError, redis.exceptions.TryAgainError):  # it moves to another node
            continue
        if read is not None:
            pool, overdue, now = read
            yield _shown(key.removesuffix(POOL), json.loads(pool), list(json.loads(overdue)), float(now))


def _shown(key: str, pool: dict[str, Any], overdue: list[dict[str, Any]], now: float) -> dict[str, Any]:
    silent = [worker for worker in overdue if not worker["dead"]]
    limits = []
    for told in pool["limits"]:
        leased = told["leased"] - sum(_of(worker["leased"], told["key"]) for worker in silent)
        waiting = told["waiting"] - sum(_of(worker["unmet"], told["key"]) for worker in silent)
        limits.append(
            {
                "unit": told["unit"], "limit": told["limit"], "window": told["window"], "left": _left(told, leased, now),
                "leased": max(0.0, leased), "waiting": max(0.0, waiting), "algorithms": told["algorithms"],
            }
        )  # fmt: skip
    pause = max(0.0, pool["pause_until"] - now)
    return {
        "bucket": pool["name"], "key": key, "limits": limits, "workers": pool["alive"] - len(silent),
        "hungry": pool["waiters"] - sum(bool(worker["unmet"]) for worker in silent), "pause": pause,
        "reason": pool["reason"] if pause else "", "refused": pool.get("refused", 0),
    }  # fmt: skip


def _left(told: dict[str, Any], leased: float, now: float) -> float:
    limit = SharedLimit(told["key"], told["unit"], told["limit"], told["window"], told["burst"], told["at"])
    limit.algorithms = told["algorithms"]
    limit.value, limit.used, limit.bins = told["value"], told["used"], list(told["bins"])
    if told["ends_at"] >= 0:
        limit.ends_at = told["ends_at"]
    limit.advance(now, leased)
    return limit.available()


def _of(amounts: Any, key: str) -> float:
    return (
        float(amounts.get(key, 0.0)) if isinstance(amounts, dict) else 0.0
    )  # an empty table is a list in JSON


def _str(key: Any) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
