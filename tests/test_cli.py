"""The command `adaptive-rate-limiter`."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from adaptive_rate_limiter import cli

REFUSED = """HTTP/1.1 429 Too Many Requests\r
content-type: application/json\r
Retry-After: 5\r
x-ratelimit-limit-requests: 60\r
x-ratelimit-remaining-requests: 0\r
x-ratelimit-reset-requests: 5s\r
\r
{"error": {"message": "Rate limit reached for requests", "type": "requests"}}"""

LIMIT = "requests: limit 60.0, remaining 0.0, reset_after 5.0, window 60.0\n"


def run(monkeypatch, capsys, *arguments, stdin=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    ("stdin", "arguments", "said"),
    [
        (
            REFUSED,
            [],
            LIMIT + "refused: rate_limit, retryable, retry after 5 s\n",
        ),
        (REFUSED, ["--status", "200"], LIMIT),
        ("server: nginx\n", [], "no limits told\n"),
        ("", [], "no limits told\n"),
        ("HTTP/2 529 \nserver: x\n\n<html>not JSON", [], "refused: overload, retryable, no time told\n"),
        ("server: x\n\n" + "[" * 100_000, [], "no limits told\n"),
        (
            "\n\n"
            + json.dumps(
                {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
            ),
            ["--status", "429"],
            "refused: quota_exhausted, not retryable, no time told\n",
        ),
    ],
)
def test_parse_says_what_a_response_tells(monkeypatch, capsys, stdin, arguments, said):
    assert run(monkeypatch, capsys, "parse", *arguments, stdin=stdin) == (0, said, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--requests", "2000", "--requests-per-minute", "60"], "about 32 min, bound by requests\n"),
        (
            [
                "--requests",
                "100",
                "--tokens",
                "90000",
                "--requests-per-minute",
                "60",
                "--tokens-per-minute",
                "30000",
            ],
            "about 2 min, bound by tokens\n",
        ),
        (["--requests", "5", "--requests-per-minute", "60"], "about 0.0 s\n"),
        (["--requests", "5"], "no limit is known yet\n"),
    ],
)
def test_forecast_of_a_batch(monkeypatch, capsys, arguments, said):
    assert run(monkeypatch, capsys, "forecast", *arguments) == (0, said, "")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "COMMAND"),
        (["status-quo"], "status-quo"),
        (["emulate", "--requests-per-minute", "0"], "--requests-per-minute"),
        (["emulate", "--port", "http"], "--port"),
        (["emulate", "--algorithm", "leaky"], "--algorithm"),
        (["demo", "--calls", "-1"], "--calls"),
        (["parse", "--status", "ok"], "--status"),
        (["forecast", "--requests", "many"], "--requests"),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, names):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert names in capsys.readouterr().err


def test_a_provider_that_the_emulator_does_not_know(monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, "emulate", "--provider", "acme")
    assert (status, out) == (2, "")
    assert err.startswith("adaptive-rate-limiter emulate: ")
    assert "acme" in err


def test_a_port_that_is_taken(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, out, err = run(monkeypatch, capsys, "emulate", "--port", str(taken.getsockname()[1]))
    assert (status, out) == (2, "")
    assert "in use" in err


def test_the_emulator_without_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "adaptive_rate_limiter.testing.emulator", None)
    status, out, err = run(monkeypatch, capsys, "emulate")
    assert (status, out) == (2, "")
    assert "pip install 'adaptive-rate-limiter[testing]'" in err


def test_the_demo_without_its_integration(monkeypatch, capsys):
    monkeypatch.setattr(cli, "entry_points", lambda group: ())
    status, out, err = run(monkeypatch, capsys, "demo")
    assert (status, out) == (2, "")
    assert "pip install 'langchain-adaptive-rate-limiter[demo]'" in err


def test_the_demo_whose_own_needs_are_missing(monkeypatch, capsys):
    class Entry:
        def load(self):
            raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(cli, "entry_points", lambda group: (Entry(),))
    status, _, err = run(monkeypatch, capsys, "demo")
    assert status == 2
    assert "matplotlib" in err


def test_the_demo_runs_what_the_integration_offers(monkeypatch, capsys):
    seen = []

    class Entry:
        def load(self):
            return lambda *arguments: seen.append(arguments)

    monkeypatch.setattr(cli, "entry_points", lambda group: (Entry(),))
    assert run(monkeypatch, capsys, "demo", "--calls", "5", "--picture", "x.png")[0] == 0
    assert seen == [(5, 240, "x.png")]


def test_emulate_serves_until_it_is_interrupted():
    command = [
        sys.executable, "-m", "adaptive_rate_limiter.cli", "emulate", "--port", "0",
        "--requests-per-minute", "1", "--latency", "0",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            url = re.fullmatch(r"openai at (http://127\.0\.0\.1:\d+/v1) - stop with Ctrl-C\n", line)[1]
            request = urllib.request.Request(
                url + "/chat/completions",
                json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode(),
                {"content-type": "application/json", "authorization": "Bearer none"},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.status == 200
                assert response.headers["x-ratelimit-remaining-requests"] == "0"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
