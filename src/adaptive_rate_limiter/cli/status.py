"""`status`: the buckets that processes share through Redis, live."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.cli.arguments import UnusableError, missing, positive

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.table import Table

COLUMNS = ("bucket", "limit", "left", "on lease", "waited for", "workers", "refused", "pause")


def add(commands: Any) -> None:
    status = commands.add_parser("status", help="the buckets that processes share through Redis")
    status.add_argument("--redis", metavar="URL", required=True, help="redis://, rediss:// or unix://")
    status.add_argument("--json", action="store_true", help="one line of JSON for each bucket, once")
    status.add_argument(
        "--every", type=positive, default=2, help="seconds from one look to the next (default: %(default)s)"
    )
    status.add_argument(
        "--once", action="store_true", help="do not refresh, as where the output is no terminal"
    )
    status.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    try:
        import redis  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing("it", "adaptive-rate-limiter[redis]") from error
    try:
        client = redis.Redis.from_url(options.redis, socket_timeout=5, socket_connect_timeout=5)
    except ValueError as error:
        raise UnusableError(
            "--redis must be a URL that begins with redis://, rediss:// or unix://"
        ) from error
    try:
        _show(client, options)
    except redis.RedisError as error:
        raise UnusableError(f"the server cannot be asked: {error}") from error
    finally:
        client.close()


def _show(client: Any, options: argparse.Namespace) -> None:
    from adaptive_rate_limiter.backends.redis.status import pools  # noqa: PLC0415 - it is for this command

    if options.json:
        for pool in pools(client):
            print(json.dumps(pool))
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.live import Live  # noqa: PLC0415
    except ImportError as error:
        raise missing("the table", "adaptive-rate-limiter[cli]") from error
    if options.once or not sys.stdout.isatty():
        Console().print(_table(pools(client)))
        return
    try:
        with Live(_table(pools(client)), auto_refresh=False) as live:
            while True:
                time.sleep(options.every)
                live.update(_table(pools(client)), refresh=True)
    except KeyboardInterrupt:
        return


def _table(found: Iterator[dict[str, Any]]) -> Table:
    from rich.markup import escape  # noqa: PLC0415 - an extra
    from rich.table import Table  # noqa: PLC0415

    table = Table(*COLUMNS)
    for pool in sorted(found, key=lambda pool: str(pool["bucket"])):
        workers = f"{pool['workers']}" + (f", {pool['hungry']} waiting" if pool["hungry"] else "")
        pause = f"{pool['pause']:.0f} s: {pool['reason']}" if pool["pause"] else ""
        rest = (workers, f"{pool['refused']:,}", escape(pause))
        for limit in pool["limits"] or [None]:
            table.add_row(escape(pool["bucket"]), *map(escape, _figures(limit)), *rest)
    return table


def _figures(limit: dict[str, Any] | None) -> tuple[str, ...]:
    if limit is None:
        return ("none known", "", "", "")
    told = f"{limit['limit']:,.0f} {limit['unit']} in {limit['window']:,.0f} s"
    return (told, *(f"{limit[name]:,.0f}" for name in ("left", "leased", "waiting")))
