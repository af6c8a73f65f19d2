"""What goes over the wire: the renewal as JSON, the grant as text in which no digit is lost."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.renewal import Grant, Granted, Learned

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.renewal import Renewal

PARTS = ("share.lua", "inferred.lua", "roster.lua", "pool.lua")
SCRIPT = "\n".join(files(__package__).joinpath(part).read_text("utf-8") for part in PARTS)
DIGEST = hashlib.sha1(
    SCRIPT.encode(), usedforsecurity=False
).hexdigest()  # the name by which EVALSHA knows it
PREFIX = "adaptive-rate-limiter:"  # of every key
POOL, LIVES, LINE = KINDS = (":pool", ":lives", ":line")  # how the keys of a bucket end
KEPT_FOR = 86_400.0  # seconds, at the least, for which an untouched pool is remembered
LONGEST_NAME = 200  # characters of a bucket's name that the pool keeps for reports
PLAIN = re.compile(r"[A-Za-z0-9._/@#%*-]{1,128}\Z")


def keys_of(namespace: str, bucket_id: str) -> list[str]:
    """The keys of a bucket, all in one slot. What could break out of its place, or is long, goes in as a hash."""
    return [f"{PREFIX}{_safe(namespace)}:{{{_safe(bucket_id)}}}{kind}" for kind in KINDS]


def _safe(name: str) -> str:
    if PLAIN.match(name):
        return name
    return "~" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def encode(renewal: Renewal) -> str:
    return json.dumps(asdict(renewal), separators=(",", ":"), allow_nan=False)


def arguments(namespace: str, bucket_id: str, renewal: Renewal, now: float | None = None) -> list[str]:
    """Those of EVALSHA after the digest: the keys, the renewal, the time (None: the server's), and the rest."""
    at = "" if now is None else repr(now)
    name = bucket_id[:LONGEST_NAME].encode(errors="replace").decode()
    keys = keys_of(namespace, bucket_id)
    return [str(len(keys)), *keys, encode(renewal), at, repr(KEPT_FOR), name]


def decode(reply: Any) -> Grant:
    """The grant in a script's reply, which may hold bytes or text."""
    number, expires_in, retry_in, hungry, workers, pause, reason, limits, learned, pool = reply
    return Grant(
        int(float(number)), float(expires_in), float(retry_in), bool(int(hungry)), int(workers), float(pause),
        _text(reason), tuple(_granted(limit) for limit in limits),
        tuple(Learned(_text(name), float(value), int(count)) for name, value, count in learned), float(pool),
    )  # fmt: skip


def _granted(limit: Any) -> Granted:
    key, unit, size, window, burst, algorithms, *rest = limit
    return Granted(
        _text(key), _text(unit), float(size), float(window), float(burst), _text(algorithms),
        *(float(number) for number in rest),
    )  # fmt: skip


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
