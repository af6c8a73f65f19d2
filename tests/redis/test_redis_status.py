"""`adaptive-rate-limiter status`."""

import json

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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost", "--redis must be a URL"),
        (f"redis://127.0.0.1:{free_port()}", "the server cannot be asked"),
    ],
)
def test_status_of_what_cannot_be_asked(url, said, capsys):
    assert cli.main(["status", "--redis", url]) == 2
    assert said in capsys.readouterr().err
