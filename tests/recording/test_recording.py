"""A recording over loopback: nothing private reaches the file, and the file replays."""

import base64
import gzip
import json
import re
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import anthropic
import openai
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.recording.__main__ import main
from tests.recording.privacy import LeakError, Privacy
from tests.recording.providers import PROVIDERS
from vcr import VCR

from adaptive_rate_limiter import Limiter, cli
from adaptive_rate_limiter.http import observe_http
from adaptive_rate_limiter.testing import ProviderEmulator

KEY = "gsk_Zk3v9QpL0tW+/=secret"
IN_QUERY = "AIzaSyQueryKey42"
ORGANIZATION = "org-Zq81NameOfACompany"
COMPANY = "Acme Widgets & Sons"
PROJECT = "proj_5kZt1w9b"
COOKIES = ("cf_clearance_b19cd2f3", "bm.4f-1732111111")
REQUEST = "req_01k9mz7x4te"
RAY = "8e5d2f1a9cbd0c3e-FRA"
ADDRESS = "203.0.113.77"
PERSON = "jo.doe+llm@acme-widgets.example"
SECRETS = (KEY, IN_QUERY, ORGANIZATION, COMPANY, PROJECT, *COOKIES, REQUEST, RAY, ADDRESS, PERSON)


class Talkative(BaseHTTPRequestHandler):
    """Passes requests on to the emulator, and says more of its caller than the emulator does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        url = self.server.emulator.url + self.path.partition("?")[0]
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                self._reply(response, body)
        except urllib.error.HTTPError as error:
            with error:
                self._reply(error, body)

    def _reply(self, response, asked):
        told = response.read().decode()
        gossip = f"{' '.join(self.headers.values())} {self.path} {' '.join(SECRETS)} {json.dumps(COMPANY)}"
        if "text/event-stream" in response.headers["content-type"]:
            told += f": {gossip!r}\n\ndata: {json.dumps({'choices': [], 'x_groq': {'id': REQUEST}, 'note': gossip})}\n\n"
        else:
            told = json.dumps(
                {
                    **json.loads(told),
                    "user": COMPANY,
                    "project": 424242,
                    "note": gossip,
                    "echo": asked.decode(),
                }
            )
        content = gzip.compress(told.encode()) if self.server.packed == "gzip" else told.encode()
        self.send_response_only(self.server.status or response.status)
        for name, value in response.headers.items():
            if name.lower() not in {"content-length", "connection"}:
                self.send_header(name, value)
        for cookie in COOKIES:
            self.send_header("Set-Cookie", f"session={cookie}; Path=/; Domain=.groq.com; HttpOnly")
        self.send_header("openai-organization", COMPANY)
        self.send_header("anthropic-organization-id", ORGANIZATION)
        self.send_header("openai-project", PROJECT)
        self.send_header("x-request-id", REQUEST)
        self.send_header("CF-RAY", RAY)
        self.send_header("x-ratelimit-key", f"{ORGANIZATION}/{KEY}")
        self.send_header("x-ratelimit-dimension", f"{PERSON} 5 {ADDRESS}")
        self.send_header("server", "nginx")
        if self.server.packed:
            self.send_header("content-encoding", self.server.packed)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def talkative(emulator, *, packed=None, status=None):
    """Its base URL, a key in the query included."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Talkative) as server:
        server.daemon_threads = True
        server.emulator, server.packed, server.status = emulator, packed, status
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}?key={IN_QUERY}&api-version=2024-10-21"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def record(tmp_path, monkeypatch, capsys):
    """Run the command; returns its exit status, what it says, and the files that it wrote."""

    def record(name, *arguments, key=KEY):
        if name in PROVIDERS:
            variable = PROVIDERS[name].key
            monkeypatch.delenv(variable, raising=False) if key is None else monkeypatch.setenv(variable, key)
        status = main([name, "--into", str(tmp_path), *arguments])
        out, err = capsys.readouterr()
        return status, out, err, sorted(tmp_path.rglob("*.*"))

    return record


LIMITS = {"requests_per_minute": 600, "tokens_per_minute": 90_000}
WAYS = [(name, case) for name in ("openai", "groq", "anthropic") for case in ("chat", "stream", "refused")]


@contextmanager
def recorded(record, name, case):
    """The path of a cassette that was just recorded."""
    limits = {"requests_per_minute": 2} if case == "refused" else LIMITS
    with ProviderEmulator(name, latency=0, **limits) as emulator, talkative(emulator) as base_url:
        status, out, err, files = record(name, "--case", case, "--base-url", base_url)
        assert (status, err) == (0, "")
    (path,) = files
    assert out.startswith(f"{path}\n")
    yield path


@pytest.mark.parametrize(("name", "case"), WAYS)
def test_nothing_private_reaches_the_file(record, tmp_path, name, case):
    with recorded(record, name, case) as path:
        assert path.parent == tmp_path / name
        day = datetime.strptime(path.stem.removesuffix(f"-{case}"), "%Y-%m-%d").replace(tzinfo=timezone.utc)
        assert datetime.now(timezone.utc) - day < timedelta(days=2)
        content = path.read_bytes()
    for secret in (*SECRETS, "org-emulated", "127.0.0.1"):
        for spelling in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]):
            assert spelling.encode() not in content
        assert base64.b64encode(secret.encode()) not in content
    assert not re.search(rb"cookie|authorization|api-key|Bearer|req_\d|org-\w", content, re.IGNORECASE)


@pytest.mark.parametrize(("name", "case"), WAYS)
def test_it_has_the_form_of_the_other_recordings(record, name, case):
    with recorded(record, name, case) as path:
        text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {PROVIDERS[name].model} at {name}: ")
    document = yaml.safe_load(text)
    assert list(document) == ["recorded_from", "interactions", "version"]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", document["recorded_from"]["repo"])
    assert document["recorded_from"]["path"] == "docs/adding-a-provider.md"
    (interaction,) = document["interactions"]
    request, response = interaction["request"], interaction["response"]
    assert request["uri"].startswith(PROVIDERS[name].base_url + PROVIDERS[name].path)
    assert request["uri"].endswith("?key=filtered&api-version=2024-10-21")
    assert request["headers"] == {"content-type": ["application/json"]}
    assert json.loads(request["body"])["messages"] == [{"role": "user", "content": "Hello"}]
    assert response["status"]["code"] == (429 if case == "refused" else 200)
    assert {"date", "content-type"} <= {header.lower() for header in response["headers"]}
    assert all(
        re.search("limit|date|content-type|retry|processing", header.lower())
        for header in response["headers"]
    )


CLIENTS = {"openai": openai.OpenAI, "groq": openai.OpenAI, "anthropic": anthropic.Anthropic}


def ask(name, case):
    provider = PROVIDERS[name]
    body = {"model": provider.model, "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]}
    with CLIENTS[name](api_key="none", base_url=provider.base_url, max_retries=0) as client:
        if name == "anthropic":
            reply = client.messages.create(**body, stream=case == "stream")
            if case == "stream":
                return "".join(getattr(getattr(event, "delta", None), "text", "") for event in reply)
            return reply.content[0].text
        reply = client.chat.completions.create(**body, stream=case == "stream")
        if case == "stream":
            return "".join(event.choices[0].delta.content or "" for event in reply if event.choices)
        return reply.choices[0].message.content


@pytest.mark.parametrize(("name", "case"), WAYS)
def test_it_replays_and_a_limiter_learns_from_it(record, name, case):
    limiter = Limiter()
    replayed = VCR(record_mode="none", match_on=["method", "scheme", "host", "path"])
    with (
        recorded(record, name, case) as path,
        replayed.use_cassette(str(path)) as cassette,
        observe_http(),
        limiter.acquire("m") as reservation,
    ):
        if case == "refused":
            with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
                ask(name, case)
            assert reservation.refusal.retryable
        else:
            assert ask(name, case) == "Hello!"
    assert cassette.play_count == 1
    (bucket,) = limiter.snapshot().buckets
    told = {limit.unit: limit.limit for limit in bucket.limits if limit.source == "told"}
    assert told == ({"requests": 2} if case == "refused" else {"requests": 600, "tokens": 90_000})


@pytest.mark.parametrize(("name", "case"), WAYS)
def test_the_command_parse_reads_it(record, name, case, capsys):
    with recorded(record, name, case) as path:
        assert cli.main(["parse", "--json", str(path)]) == 0
    (told,) = json.loads(capsys.readouterr().out)["responses"]
    assert told["limits"]
    assert (told["refusal"] is None) == (case != "refused")


def test_headers_that_are_left_out_are_named(record):
    with ProviderEmulator("groq", latency=0, **LIMITS) as emulator, talkative(emulator) as base_url:
        _, out, _, _ = record("groq", "--base-url", base_url)
    names = out.splitlines()[1].partition(": ")[2].split(", ")
    assert {"set-cookie", "openai-organization", "x-request-id", "cf-ray", "server"} <= set(names)
    assert not [name for name in names if "limit" in name and name != "x-ratelimit-key"]


# What is not written


def test_the_known_providers_are_listed(record):
    status, out, err, files = record("acme")
    assert (status, out, files) == (2, "", [])
    assert err.endswith("got 'acme'\n")
    assert all(name in err for name in PROVIDERS)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_is_named(record, key):
    status, out, err, files = record("groq", key=key)
    assert (status, out, files) == (2, "", [])
    assert err == "make record: the key of groq is missing: set GROQ_API_KEY in the environment\n"


def test_a_refusal_is_no_answer(record):
    with (
        ProviderEmulator("groq", requests_per_minute=1, latency=0) as emulator,
        talkative(emulator) as base_url,
    ):
        record("groq", "--base-url", base_url)
        status, out, err, files = record("groq", "--case", "stream", "--base-url", base_url)
    assert (status, out, len(files)) == (2, "", 1)
    assert err.startswith("make record: groq answered 429 where an answer was wanted: ")
    assert not [secret for secret in SECRETS if secret in err]


def test_an_answer_is_no_refusal(record):
    with ProviderEmulator("groq", latency=0, **LIMITS) as emulator, talkative(emulator) as base_url:
        status, _, err, files = record("groq", "--case", "refused", "--calls", "3", "--base-url", base_url)
        assert emulator.stats().admitted == 3
    assert (status, files) == (2, [])
    assert err.startswith("make record: groq answered 200 where a refusal was wanted: ")


def test_a_request_that_is_wrong_is_no_refusal_of_pace(record):
    with ProviderEmulator("groq", latency=0) as emulator, talkative(emulator, status=401) as base_url:
        status, _, err, files = record("groq", "--case", "refused", "--base-url", base_url)
        assert emulator.stats().admitted == 1
    assert (status, files) == (2, [])
    assert err.startswith("make record: groq answered 401 where a refusal was wanted: ")


def test_what_cannot_be_read_cannot_be_filtered(record):
    with ProviderEmulator("groq", latency=0) as emulator, talkative(emulator, packed="br") as base_url:
        status, _, err, files = record("groq", "--base-url", base_url)
    assert (status, files) == (2, [])
    assert "compressed" in err


def test_what_is_packed_all_the_same_is_unpacked_and_filtered(record):
    with (
        ProviderEmulator("groq", latency=0, **LIMITS) as emulator,
        talkative(emulator, packed="gzip") as base_url,
    ):
        status, _, _, (path,) = record("groq", "--base-url", base_url)
    assert status == 0
    text = path.read_text(encoding="utf-8")
    assert '"content": "Hello!"' in text
    assert not [secret for secret in SECRETS if secret in text]


def test_a_provider_that_does_not_answer(record):
    with ThreadingHTTPServer(("127.0.0.1", 0), Talkative) as server:
        port = server.server_port
    status, _, err, files = record("groq", "--base-url", f"http://127.0.0.1:{port}")
    assert (status, files) == (2, [])
    assert err == "make record: groq cannot be reached: ConnectError\n"


# The filter

letters = st.characters(codec="utf-8", exclude_categories=["Cc"])
words = st.text(letters, min_size=6, max_size=30).filter(lambda word: word not in "filtered")


@given(secret=words, before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_secret_leaves_no_body_whatever_stands_around_it(secret, before, after):
    privacy = Privacy([secret], spared=[])
    for body in (
        json.dumps({"error": {"message": before + secret + after, secret: [secret]}}),
        f"event: x\ndata: {json.dumps({'message': secret})}\n\n",
        before + secret + after,
    ):
        written = privacy.body(body, 429)
        assert "filtered" in written
        privacy.check(written)


@pytest.mark.parametrize("secret", SECRETS)
def test_what_would_leak_is_not_written(secret):
    privacy = Privacy([secret], spared=[])
    with pytest.raises(LeakError):
        privacy.check(f"x: {quote(secret, safe='')}")
    privacy.check("x: filtered")


@pytest.mark.parametrize(
    "words",
    [
        "Rate limit reached for `llama-3.1-8b-instant` on tokens per minute (TPM): Limit 6000, Used 5999, Requested 35",
        "Please try again in 1m0.363142857s.",
        "rate_limit_exceeded", "insufficient_quota", "user_rate_limit", "request_too_large", "project_limit_reached",
        "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "2025-11-17T09:38:37Z", "claude-sonnet-4-5-20250929",
        "generativelanguage.googleapis.com/generate_content_free_tier_requests", "18446744073709551615",
    ],
)  # fmt: skip
def test_words_that_tell_of_limits_stay(words):
    body = {"error": {"message": words}}
    assert json.loads(Privacy([KEY], spared=[]).body(json.dumps(body), 429)) == body


def test_what_was_generated_is_replaced():
    body = {
        "id": "1",
        "choices": [{"message": {"content": "My name is Jo", "reasoning": "She is Jo"}}],
        "usage": {"total_tokens": 9},
    }
    assert json.loads(Privacy([KEY], spared=[]).body(json.dumps(body), 200)) == {
        "id": "filtered", "choices": [{"message": {"content": "Hello!", "reasoning": ""}}], "usage": {"total_tokens": 9},
    }  # fmt: skip
