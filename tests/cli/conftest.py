import io
from typing import NamedTuple

import pytest

from adaptive_rate_limiter import cli


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Run one command with these bytes on its standard input."""

    def command(*arguments, stdin=b""):
        stdin = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main(arguments)
        return Said(status, *capsys.readouterr())

    return command
