"""Clusters and Sentinel set-ups of the tests' own, on free ports of loopback."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.redis.server import Server, free_port

import redis

SLOTS = 16_384
PATIENCE = 40.0  # seconds for what servers agree on among themselves


def until(found, *, every: float = 0.05):
    """What `found` returns as soon as that is true. Servers cannot be told to call back."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(redis.RedisError, OSError):
            answer = found()
            if answer:
                return answer
        time.sleep(every)
    raise AssertionError(f"{found} did not come true")


def cluster_port() -> int:
    """A free port whose bus, 10,000 higher, can be a port as well."""
    while (port := free_port()) > 55_000:
        pass
    return port


class ClusterNode(Server):
    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True)
        super().__init__(
            folder, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
            "--cluster-require-full-coverage", "no", "--repl-diskless-sync", "yes",
            "--repl-diskless-sync-delay", "0", *options,
        )  # fmt: skip
        self.port = cluster_port()

    @property
    def announced(self) -> int:
        """The port that other nodes and clients are told."""
        return self.port

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def ask(self, *command: object):
        with self.client as client:
            return client.execute_command(*command)

    @property
    def id(self) -> str:
        return self.ask("CLUSTER", "MYID")


class RedisCluster:
    """Three nodes that share all slots, each with so many replicas."""

    Node = ClusterNode

    def __init__(self, folder: Path, replicas: int = 0) -> None:
        self.primaries = [self.Node(folder / f"primary{number}") for number in range(3)]
        self.replicas = [self.Node(folder / f"replica{number}") for number in range(3 * replicas)]
        self.nodes = self.primaries + self.replicas
        self.stack = ExitStack()

    def __enter__(self):
        try:
            self._form()
        except BaseException:
            self.stack.close()
            raise
        return self

    def _form(self):
        for node in self.nodes:
            self.stack.enter_context(node)
        for number, node in enumerate(self.primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, end = number * SLOTS // 3, (number + 1) * SLOTS // 3
            node.ask("CLUSTER", "ADDSLOTS", *range(first, end))
        for node in self.nodes[1:]:
            self.primaries[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.port + 10_000)
        until(lambda: all(self._knows_all(node) for node in self.nodes))
        for number, node in enumerate(self.replicas):
            node.ask("CLUSTER", "REPLICATE", self.primaries[number % 3].id)
        until(lambda: all(self._is_well(node) for node in self.nodes))

    def __exit__(self, *given):
        self.stack.close()

    def is_whole(self) -> bool:
        """All nodes are there, each primary has its replica, and all slots have somebody."""
        roles = [node.ask("ROLE") for node in self.nodes]
        linked = all(role[3] == "connected" for role in roles if role[0] == "slave")
        primaries = [role for role in roles if role[0] == "master"]
        return (
            linked and all(role[2] for role in primaries) and all(self._is_fine(node) for node in self.nodes)
        )

    def _is_fine(self, node):
        info = node.ask("CLUSTER", "INFO").splitlines()
        return "cluster_state:ok" in info and f"cluster_slots_ok:{SLOTS}" in info

    def _knows_all(self, node):
        return len(node.ask("CLUSTER", "NODES").splitlines()) == len(self.nodes)

    def _is_well(self, node):
        info = node.ask("CLUSTER", "INFO").splitlines()
        linked = node not in self.replicas or node.ask("INFO", "replication")["master_link_status"] == "up"
        return "cluster_state:ok" in info and f"cluster_slots_assigned:{SLOTS}" in info and linked

    @property
    def addresses(self):
        return [("127.0.0.1", node.announced) for node in self.nodes]

    def node_at(self, port: int) -> ClusterNode:
        return next(node for node in self.nodes if node.announced == port)

    def owner(self, key: str, asked: ClusterNode | None = None) -> ClusterNode:
        slot = redis.crc.key_slot(key.encode())
        for first, last, (_, port, *_), *_ in (asked or self.nodes[0]).ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.node_at(port)
        raise AssertionError(f"nobody has slot {slot}")

    def begin_move(self, key: str, source: ClusterNode, target: ClusterNode) -> None:
        """From here on the source answers ASK for keys that it has not."""
        slot = redis.crc.key_slot(key.encode())
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, key: str, source: ClusterNode, target: ClusterNode) -> None:
        slot = redis.crc.key_slot(key.encode())
        for name in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, name, 0, 5000, "REPLACE")

    def end_move(self, key: str, source: ClusterNode, target: ClusterNode) -> None:
        """From here on the source answers MOVED."""
        slot = redis.crc.key_slot(key.encode())
        name = target.id
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)


class SentinelSetup:
    """A primary, its replica, and a Sentinel that suffices by itself to fail over."""

    SERVICE = "limits"

    def __init__(self, folder: Path) -> None:
        for name in ("first", "second", "sentinel"):
            (folder / name).mkdir()
        fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        self.first = Server(folder / "first", *fast)
        self.second = Server(folder / "second", *fast, "--replicaof", "127.0.0.1", str(self.first.port))
        self.config = folder / "sentinel" / "sentinel.conf"
        self.sentinel = Sentinel(folder / "sentinel", self.config)
        self.stack = ExitStack()

    def __enter__(self):
        try:
            self._form()
        except BaseException:
            self.stack.close()
            raise
        return self

    def _form(self):
        self.stack.enter_context(self.first)
        self.stack.enter_context(self.second)
        with redis.Redis(port=self.second.port) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
        name = self.SERVICE
        self.config.write_text(
            f"sentinel monitor {name} 127.0.0.1 {self.first.port} 1\n"
            f"sentinel down-after-milliseconds {name} 300\n"
            f"sentinel failover-timeout {name} 3000\n"
        )
        self.stack.enter_context(self.sentinel)
        with self.client as client:
            until(lambda: client.sentinel_master(name)["num-slaves"] == 1)

    def __exit__(self, *given):
        self.stack.close()

    @property
    def client(self):
        return redis.Redis(port=self.sentinel.port, socket_timeout=5)

    def primary(self) -> int:
        """The port of whoever Sentinel names."""
        with self.client as client:
            return client.sentinel_get_master_addr_by_name(self.SERVICE)[1]


class Sentinel(Server):
    READY = "+monitor"

    def __init__(self, folder: Path, config: Path) -> None:
        super().__init__(folder)
        self.config = config

    def command(self) -> list[str]:
        return [
            self.binary(),
            str(self.config),
            "--sentinel",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
        ]
