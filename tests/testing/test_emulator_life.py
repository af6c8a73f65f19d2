"""Beginnings and ends: no thread, socket or warning is left; what is wrong is told at once."""

import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import httpx
import pytest
from tests.garbage import collect

from adaptive_rate_limiter.testing import ProviderEmulator
from adaptive_rate_limiter.testing.server import PATIENCE, Loopback

pytest_plugins = ["pytester"]


def raw(emulator, body, *, length=None):
    """A client that sends by hand, and reads only if somebody calls recv."""
    wire = socket.create_connection((emulator.host, emulator.port), timeout=10)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length or len(body)}\r\n\r\n"
    wire.sendall(head.encode() + body)
    return wire


def test_nothing_is_left_after_the_end():
    threads = set(threading.enumerate())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            with ProviderEmulator(latency=0.0) as emulator, httpx.Client() as client:
                body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
                assert client.post(f"{emulator.base_url}/chat/completions", json=body).is_success
                port = emulator.port
        collect()
    assert set(threading.enumerate()) <= threads
    assert [str(warning.message) for warning in told] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_stop_cuts_off_a_client_that_does_not_read_its_answer():
    """The stream waited for the client, and the end waited for the stream."""
    body = b'{"messages": [{"role": "user", "content": "hi"}], "stream": true}'
    with ProviderEmulator(latency=0.0, output_tokens=5_000_000) as emulator:
        wire = raw(emulator, body)
        while not emulator.stats().in_flight:
            time.sleep(0.001)
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE + 1
    assert emulator.stats().in_flight == 0
    wire.close()


def test_stop_cuts_off_a_client_that_does_not_finish_its_request():
    with ProviderEmulator() as emulator:
        wire = raw(emulator, b'{"messages": [', length=500)
        wire.settimeout(0.05)
        with pytest.raises(TimeoutError):
            wire.recv(1)  # the request has arrived, and nothing comes back
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE + 1
    wire.close()


def test_a_body_in_pieces_is_read_whole():
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    with ProviderEmulator(latency=0.0) as emulator:
        wire = raw(emulator, body[:20], length=len(body))
        time.sleep(0.02)
        wire.sendall(body[20:])
        assert wire.recv(100).startswith(b"HTTP/1.1 200")
        wire.close()


def test_an_answer_is_not_held_back_for_an_acknowledgement():
    """Heads and bodies are written apart; without TCP_NODELAY each answer took 40 ms."""
    body = {"messages": [{"role": "user", "content": "hi"}]}
    with ProviderEmulator(latency=0.0) as emulator, httpx.Client() as client:
        started = time.monotonic()
        for _ in range(25):
            client.post(f"{emulator.base_url}/chat/completions", json=body)
        assert time.monotonic() - started < 25 * 0.04


def test_a_failed_start_is_told_and_leaves_nothing(monkeypatch):
    async def fail(self, sockets=None):
        raise OSError("no more files")

    monkeypatch.setattr(Loopback, "startup", fail)
    threads = threading.active_count()
    emulator = ProviderEmulator()
    with pytest.raises(RuntimeError, match="did not start") as failed:
        emulator.start()
    assert str(failed.value.__cause__) == "no more files"
    emulator.stop()
    assert threading.active_count() == threads


def test_a_port_that_was_asked_for_is_known_before_the_start():
    assert ProviderEmulator("anthropic", port=4321).base_url == "http://127.0.0.1:4321"


WRONG = [
    ({"provider": "acme"}, "provider must be one of"),
    ({"algorithm": "leaky"}, "algorithm must be one of"),
    ({"tokens_per_minute": -1}, "positive"),
    ({"requests_per_day": float("nan")}, "positive"),
    ({"window": 0}, "positive"),
    ({"burst": -1}, "burst"),
    ({"slice_seconds": 0}, "slice_seconds"),
    ({"slice_seconds": 61}, "slice_seconds"),
    ({"max_concurrency": 0}, "max_concurrency"),
    ({"strangers": 1}, "share"),
    ({"charge": "later"}, "charge must be one of upfront, usage"),
    ({"stamp": "later"}, "stamp must be one of admission, reply"),
    ({"latency": -1}, "latency"),
    ({"latency": (2, 1)}, "latency"),
    ({"faults": {404: 0.1}}, "from 500 to 599"),
    ({"faults": ["drop"]}, "from 500 to 599"),
    ({"faults": {500: -0.1}}, "probabilities"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        ProviderEmulator(**options)


def test_a_wrong_change_of_limits_changes_nothing(provider_emulator):
    """It was taken over before it failed, and every later request for a new model failed with it."""
    emulator = provider_emulator(requests_per_minute=10, per_model=True, latency=0.0)
    for wrong in ({"requests_per_minute": 0}, {"tokens_per_minute": float("inf")}):
        with pytest.raises(ValueError, match="positive"):
            emulator.set_limits(**wrong)
        with pytest.raises(ValueError, match="positive"):
            emulator.schedule(0, **wrong)
    with pytest.raises(ValueError, match="at=-1"):
        emulator.schedule(-1, requests_per_minute=1)
    body = {"model": "new", "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client() as client:
        url = f"{emulator.base_url}/chat/completions"
        assert (
            client.post(f"{emulator.url}/emulator/limits", json={"requests_per_minute": "9"}).status_code
            == 400
        )
        assert client.post(url, json=body).headers["x-ratelimit-limit-requests"] == "10"


BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import adaptive_rate_limiter.testing as testing
testing.Gate, testing.TokenBucket, testing.FakeClock
try:
    testing.ProviderEmulator
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("blocked", [["uvicorn"], ["httptools"], ["uvicorn", "starlette", "httptools"]])
def test_without_the_extra_the_emulator_names_it_and_the_rest_works(blocked):
    code = BLOCKED.format(blocked=blocked)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "pip install 'adaptive-rate-limiter[testing]'" in done.stdout
    assert "ProviderEmulator needs" in done.stdout


def test_an_unknown_name_is_an_attribute_error():
    import adaptive_rate_limiter.testing as public

    with pytest.raises(AttributeError, match="no attribute 'Emulator'"):
        _ = public.Emulator
    assert all(hasattr(public, name) for name in public.__all__)


def test_the_fixture_serves_users_tests_and_stops_afterwards(pytester):
    pytester.makepyfile(
        textwrap.dedent("""
        import socket, urllib.request
        ports = []

        def test_use(provider_emulator):
            for provider in ("openai", "anthropic"):
                emulator = provider_emulator(provider, requests_per_minute=60)
                ports.append(emulator.port)
                urllib.request.urlopen(f"{emulator.url}/v1/models").close()

        def test_afterwards():
            assert len(ports) == 2
            for port in ports:
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.1", port)) != 0
        """)
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=2)
