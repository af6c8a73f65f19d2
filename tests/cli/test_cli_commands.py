"""The command `adaptive-rate-limiter`: all but `parse`."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from adaptive_rate_limiter import cli
from adaptive_rate_limiter.cli import demo


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
        (["--requests", "5", "--requests-per-minute", "60"], "at once\n"),
        (["--requests", "5"], "no limit is known yet\n"),
    ],
)
def test_forecast_of_a_batch(command, arguments, said):
    assert command("forecast", *arguments) == (0, said, "")


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
        (["parse", "--status", "42"], "--status"),
        (["parse", "--tokens", "0"], "--tokens"),
        (["forecast", "--requests", "many"], "--requests"),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, names):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert names in capsys.readouterr().err


def test_a_provider_that_the_emulator_does_not_know(command):
    status, out, err = command("emulate", "--provider", "acme")
    assert (status, out) == (2, "")
    assert err.startswith("adaptive-rate-limiter emulate: ")
    assert "acme" in err


def test_a_port_that_is_taken(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, out, err = command("emulate", "--port", str(taken.getsockname()[1]))
    assert (status, out) == (2, "")
    assert "in use" in err


def test_the_emulator_without_its_extra(monkeypatch, command):
    monkeypatch.setitem(sys.modules, "adaptive_rate_limiter.testing.emulator", None)
    status, out, err = command("emulate")
    assert (status, out) == (2, "")
    assert "pip install 'adaptive-rate-limiter[testing]'" in err


def test_the_demo_without_its_integration(monkeypatch, command):
    monkeypatch.setattr(demo, "entry_points", lambda group: ())
    status, out, err = command("demo")
    assert (status, out) == (2, "")
    assert "pip install 'langchain-adaptive-rate-limiter[demo]'" in err


def test_the_demo_whose_own_needs_are_missing(monkeypatch, command):
    class Entry:
        def load(self):
            raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(demo, "entry_points", lambda group: (Entry(),))
    status, _, err = command("demo")
    assert status == 2
    assert "matplotlib" in err


def test_the_demo_runs_what_the_integration_offers(monkeypatch, command):
    seen = []

    class Entry:
        def load(self):
            return lambda *arguments: seen.append(arguments)

    monkeypatch.setattr(demo, "entry_points", lambda group: (Entry(),))
    assert command("demo", "--calls", "5", "--picture", "x.png")[0] == 0
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
