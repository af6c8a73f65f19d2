"""A cluster of three nodes with a replica each, every one behind a link that can be cut."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.redis.proxy import Proxy
from tests.redis.server import free_port
from tests.redis.topologies import ClusterNode, RedisCluster


class LinkedNode(ClusterNode):
    """It tells the others the address of its link, so that clients and replicas come through it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.link = Proxy(self.port, port=free_port())
        bus = str(self.port + 10_000)
        told = ("--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(self.link.port))
        self.options = (*self.options, *told, "--cluster-announce-bus-port", bus)

    @property
    def announced(self) -> int:
        return self.link.port


class LinkedCluster(RedisCluster):
    Node = LinkedNode

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1)
        self.links = ExitStack()

    def __enter__(self):
        for node in self.nodes:
            self.links.enter_context(node.link)
        return super().__enter__()

    def __exit__(self, *given):
        super().__exit__(*given)
        self.links.close()
