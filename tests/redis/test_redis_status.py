"""`adaptive-rate-limiter status`."""

import json
import sys
import time

import pytest
from tests.redis.server import Server, free_port

from adaptive_rate_limiter import Limiter, cli
from adaptive_rate_limiter.backends import RedisBackend


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as server:
        backend = RedisBackend(server.url)
        limiter = Limiter(backend, quotas={"requests": 100})
        for _ in range(3):
            limiter.acquire("gpt-4o").settle()
        yield server
        backend.close()


def test_status_as_json(server, capsys):
    assert cli.main(["status", "--redis", server.url, "--json"]) == 0
    (pool,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert pool["bucket"] == "default/gpt-4o"
    assert pool["workers"] == 1
    (limit,) = pool["limits"]
    assert (limit["unit"], limit["limit"], limit["window"]) == ("requests", 100, 60)
    assert limit["left"] + limit["leased"] == pytest.approx(97, abs=1)


def test_status_as_a_table(server, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["status", "--redis", server.url]) == 0
    said = capsys.readouterr().out
    assert "default/gpt-4o" in said
    assert "100 requests" in said.replace("\n", " ")


def test_the_table_is_live(server, capsys, monkeypatch):
    backend = RedisBackend(server.url)
    limiter = Limiter(backend, quotas={"requests": 100})
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt
        limiter.acquire("second-model").settle()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["status", "--redis", server.url, "--every", "3"]) == 0
    assert looks == [3, 3]
    assert "second-model" in capsys.readouterr().out
    backend.close()


def test_refusals_of_all_processes_are_shown(server, capsys):
    for number in range(2):
        backend = RedisBackend(server.url)
        limiter = Limiter(backend, quotas={"requests": 100})
        reservation = limiter.acquire("gpt-4o")
        reservation.observe(429, {"retry-after": f"0.0{number + 1}"})
        reservation.settle()
        limiter.acquire("gpt-4o", timeout=10).settle()
        backend.close()
    assert cli.main(["status", "--redis", server.url, "--json"]) == 0
    (pool,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert pool["refused"] == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost", "--redis must be a URL"),
        (f"redis://127.0.0.1:{free_port()}", "the server cannot be asked"),
    ],
    ids=["no URL", "no server"],
)
def test_status_of_what_cannot_be_asked(url, said, capsys):
    assert cli.main(["status", "--redis", url]) == 2
    assert said in capsys.readouterr().err
