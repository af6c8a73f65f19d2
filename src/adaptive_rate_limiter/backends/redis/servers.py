"""Ways to the servers: one server, the primary that Sentinel names, or the nodes of a cluster."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from adaptive_rate_limiter.backends.redis.wire import DIGEST, SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Address", "Cluster", "Servers", "Single"]

Address = tuple[str, int]
Step = list[str]
"""The arguments of EVALSHA after the digest: the first key is the second of them, and tells the slot."""

REDIRECTIONS = 5  # of one step: what redis-cli allows is 5 as well
MOVING = 0.02  # seconds to the next try while the keys of a bucket are at two nodes, since its slot moves
MOVES_BY = 0.5  # seconds of that in all
MAPS = 3  # nodes that are asked for the map of slots, one after the other, before it is left for later


class Servers(Protocol):
    """Whoever runs the script: a reply or an error for each step. Raises what redis-py raises where nobody is reached."""

    def run(self, steps: Sequence[Step], *, whole: bool) -> list[Any]:
        """`whole`: send the text of the script and not its digest."""

    def look_again(self) -> None:
        """Something failed: the next step asks anew who is there."""

    def close(self) -> None: ...


class Single:
    """One server, or whoever Sentinel says is the primary when a connection is made."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, steps: Sequence[Step], *, whole: bool) -> list[Any]:
        return _pipelined(self._client, steps, whole=whole)

    def look_again(self) -> None:
        """A name may point elsewhere by now, and a primary may have become a replica."""
        self._client.connection_pool.disconnect()

    def close(self) -> None:
        self._client.connection_pool.disconnect()


class Cluster:
    """Each step goes to the node that has its key; who that is comes from the map of slots and from MOVED and ASK.

    A node that is not reached fails its own steps alone. Without the right to read the map, redirections suffice.
    """

    def __init__(
        self,
        redis: Any,
        settings: dict[str, Any],
        nodes: Iterable[Address],
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        self._redis = redis
        self._settings = {
            name: value for name, value in settings.items() if name not in {"host", "port", "db"}
        }
        self._remap = remap or (lambda address: address)
        self._first = tuple(nodes)
        self._clients: dict[Address, Any] = {}
        self._slots: list[tuple[int, int, Address]] = []
        self._moved: dict[int, Address] = {}
        self._doubtful: set[Address] = set()
        self._stale = True

    def run(self, steps: Sequence[Step], *, whole: bool) -> list[Any]:
        if self._stale:
            self._read_map()
        replies: list[Any] = [None] * len(steps)
        targets = {place: (self._node_of(step), False) for place, step in enumerate(steps)}
        redirections, waited = 0, 0.0
        while targets and redirections < REDIRECTIONS and waited < MOVES_BY:
            groups = defaultdict(list)
            for place, target in targets.items():
                groups[target].append(place)
            targets = {}
            for (address, asking), places in groups.items():
                asked = [steps[place] for place in places]
                for place, reply in zip(places, self._run(address, asked, whole, asking), strict=True):
                    replies[place] = reply
                    if isinstance(reply, self._redis.exceptions.AskError):  # MOVED is one of them
                        targets[place] = self._redirected(reply, address)
                    elif isinstance(reply, self._redis.exceptions.TryAgainError):
                        targets[place] = (self._node_of(steps[place]), False)
            redirections += 1
            if any(isinstance(replies[place], self._redis.exceptions.TryAgainError) for place in targets):
                time.sleep(MOVING)
                redirections, waited = 0, waited + MOVING
        return replies

    def _run(self, address: Address, steps: list[Step], whole: bool, asking: bool) -> list[Any]:
        try:
            return _pipelined(self._client(address), steps, whole=whole, asking=asking)
        except (
            self._redis.exceptions.ConnectionError,
            self._redis.exceptions.TimeoutError,
            OSError,
        ) as error:
            self._doubtful.add(address)
            return [error] * len(steps)

    def _redirected(self, error: Any, asked: Address) -> tuple[Address, bool]:
        """Where to, and whether only for this once. A node that names no host means its own."""
        address = self._remap((error.host or asked[0], error.port))
        moved = isinstance(error, self._redis.exceptions.MovedError)
        if moved:
            self._moved[error.slot_id] = address
            self._stale = True
        return address, not moved

    def _node_of(self, step: Step) -> Address:
        slot = self._redis.crc.key_slot(step[1].encode())
        if slot in self._moved:
            return self._moved[slot]
        for first, last, address in self._slots:
            if first <= slot <= last:
                return address
        return self._known()[0]

    def _known(self) -> list[Address]:
        """Every node that was heard of, those that were not reached of late at the end."""
        heard = dict.fromkeys((*(address for _, _, address in self._slots), *self._clients, *self._first))
        return sorted(heard, key=self._doubtful.__contains__)

    def _read_map(self) -> None:
        """From the first node that answers; raises what the last one did where none of a few does."""
        failed: Exception | None = None
        for address in self._known()[:MAPS]:
            failed = self._map_of(address)
            if failed is None:
                self._stale = False
                return
        if failed is not None:
            raise failed

    def _map_of(self, address: Address) -> Exception | None:
        """Adopt its map. Returns what went wrong; without the right to read it, nothing did."""
        errors = self._redis.exceptions
        try:
            ranges = self._client(address).execute_command("CLUSTER", "SLOTS")
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            self._doubtful.add(address)
            return error
        except errors.ResponseError:
            return None
        self._doubtful.discard(address)
        self._slots = [self._range(told, address) for told in ranges]
        self._moved = {}
        return None

    def _range(self, told: Any, asked: Address) -> tuple[int, int, Address]:
        first, last, (host, port, *_), *_ = told
        name = host.decode() if isinstance(host, bytes) else host
        return int(first), int(last), self._remap((name or asked[0], int(port)))

    def _client(self, address: Address) -> Any:
        found = self._clients.get(address)
        if found is None:
            pool = self._redis.BlockingConnectionPool(**self._settings, host=address[0], port=address[1])
            found = self._clients[address] = self._redis.Redis(connection_pool=pool)
        return found

    def look_again(self) -> None:
        self._stale = True
        for address in self._doubtful & set(self._clients):
            self._clients.pop(address).connection_pool.disconnect()

    def close(self) -> None:
        while self._clients:
            self._clients.popitem()[1].connection_pool.disconnect()


def _pipelined(client: Any, steps: Sequence[Step], *, whole: bool, asking: bool = False) -> list[Any]:
    """All in one round trip. The text of the script goes with the first alone, for it is kept."""
    pipeline = client.pipeline(transaction=False)
    for place, step in enumerate(steps):
        if asking:
            pipeline.execute_command("ASKING")
        script = ("EVAL", SCRIPT) if whole and not place else ("EVALSHA", DIGEST)
        pipeline.execute_command(*script, *step)
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    return replies[1::2] if asking else replies
