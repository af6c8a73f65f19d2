"""What `parse` reads: curl's output, header lines, HARs, cassettes; and what it says of anything else."""

import base64
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter import cli
from adaptive_rate_limiter.cli.arguments import UnusableError
from adaptive_rate_limiter.cli.replies import replies_in

RECORDED = Path(__file__).parents[1] / "recorded"

LIMIT = "x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 0\r\n"
SPENT = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}


def read(data, **options):
    data = data.encode() if isinstance(data, str) else data
    return replies_in(data, "it", **options)


def seen(reply):
    return reply.status, dict(reply.headers), reply.content


# curl

HEAD = "HTTP/1.1 200 OK\r\na: 1\r\n\r\n"
BOTH = [(301, {"location": "/"}, None), (200, {"a": "1"}, None)]
RETRIED = [(429, {"b": "2"}, {"error": 1}), (200, {"a": "1"}, None)]
QUOTING = '{"text": "\nHTTP/1.1 500 no\nx: 1\n"}'

CURL = {
    "one": (HEAD, [(200, {"a": "1"}, None)]),
    "without carriage returns": ("HTTP/1.1 200 OK\na: 1\n\n", [(200, {"a": "1"}, None)]),
    "HTTP/2, which has no phrase": ("HTTP/2 429 \r\na: 1\r\n\r\n[]", [(429, {"a": "1"}, [])]),
    "HTTP/3": ("HTTP/3 503\r\n\r\n", [(503, {}, None)]),
    "a status line alone": ("HTTP/2 429", [(429, {}, None)]),
    "its end is missing": ("HTTP/2 429 \r\na: 1", [(429, {"a": "1"}, None)]),
    "100 Continue": ("HTTP/1.1 100 Continue\r\n\r\n" + HEAD, [(100, {}, None), (200, {"a": "1"}, None)]),
    "a proxy's tunnel": ("HTTP/1.1 200 Connection established\r\n\r\n" + HEAD, [(200, {}, None), (200, {"a": "1"}, None)]),
    "a redirect": ("HTTP/1.1 301 Moved\r\nlocation: /\r\n\r\n" + HEAD, BOTH),
    "a body right before the next head": ('HTTP/1.1 429 no\r\nb: 2\r\n\r\n{"error": 1}' + HEAD, RETRIED),
    "a head quoted in a body of told length": (
        f"HTTP/1.1 200 OK\r\ncontent-length: {len(QUOTING)}\r\n\r\n{QUOTING}",
        [(200, {"content-length": str(len(QUOTING))}, QUOTING)],
    ),
    "a told length that is not true": (
        "HTTP/1.1 301 Moved\r\ncontent-length: 700\r\n\r\n" + HEAD,
        [(301, {"content-length": "700"}, None), (200, {"a": "1"}, None)],
    ),
    "a folded value": ("HTTP/1.1 200 OK\r\na: 1,\r\n  2\r\n\r\n", [(200, {"a": "1, 2"}, None)]),
    "a body that is no JSON": (HEAD + "<html>", [(200, {"a": "1"}, "<html>")]),
    "a body nested beyond reason": (HEAD + "[" * 100_000, [(200, {"a": "1"}, "[" * 100_000)]),
    "what a Windows shell makes of it": ((HEAD + "[]").encode("utf-16"), [(200, {"a": "1"}, [])]),
    "with a byte order mark": (b"\xef\xbb\xbf" + HEAD.encode(), [(200, {"a": "1"}, None)]),
    "header lines": ("a: 1\nB:2\n", [(None, {"a": "1", "B": "2"}, None)]),
    "header lines and a body": ("a: 1\r\n\r\n[]", [(None, {"a": "1"}, [])]),
    "bytes that are no text in a body": (HEAD.encode() + b"\xff\x00", [(200, {"a": "1"}, "\ufffd\0")]),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), CURL.values(), ids=CURL)
def test_what_curl_prints(data, expected):
    assert [seen(reply) for reply in read(data)] == expected


def test_what_curl_prints_when_it_is_verbose():
    lines = """*   Trying 192.0.2.1:443...
* Connected to api.groq.com
> POST /openai/v1/chat/completions HTTP/2
> Host: api.groq.com
> Authorization: Bearer secret
>\x20
{ [5 bytes data]
< HTTP/2 429\x20
< retry-after: 7
<\x20
* Connection #0 to host api.groq.com left intact
{"error": {}}"""
    (reply,) = read(lines)
    assert seen(reply) == (429, {"retry-after": "7"}, {"error": {}})
    assert reply.url == "https://api.groq.com/"


def test_a_compressed_body_is_read():
    packed = b"HTTP/1.1 429 no\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(json.dumps(SPENT).encode())
    (reply,) = read(packed)
    assert reply.content == SPENT


def test_a_body_that_was_decompressed_already_is_read():
    (reply,) = read(f"HTTP/1.1 429 no\r\nContent-Encoding: gzip\r\n\r\n{json.dumps(SPENT)}")
    assert reply.content == SPENT


def test_a_body_alone_needs_a_status():
    (reply,) = read(json.dumps(SPENT), status=429)
    assert seen(reply) == (429, {}, SPENT)
    with pytest.raises(UnusableError, match="--status"):
        read(json.dumps(SPENT))


# HARs


def har(*responses):
    return json.dumps({"log": {"version": "1.2", "entries": list(responses)}})


def entry(status=429, headers=(), url="https://api.openai.com/v1/chat/completions", **content):
    return {
        "request": {"method": "POST", "url": url, "postData": {"text": '{"model": "gpt-4o"}'}},
        "response": {
            "status": status,
            "headers": [{"name": name, "value": value} for name, value in headers],
            "content": content,
        },
    }


def test_a_har():
    first = entry(200, [("X-RateLimit-Limit-Requests", "60"), ("content-encoding", "gzip")], text="[]")
    packed = base64.b64encode(json.dumps(SPENT).encode()).decode()
    second = entry(429, text=packed, encoding="base64")
    replies = read(har(first, second))
    assert [seen(reply) for reply in replies] == [
        (200, {"X-RateLimit-Limit-Requests": "60", "content-encoding": "gzip"}, []),
        (429, {}, SPENT),
    ]
    assert {reply.url for reply in replies} == {"https://api.openai.com/v1/chat/completions"}
    assert {reply.request for reply in replies} == {b'{"model": "gpt-4o"}'}


@pytest.mark.parametrize(
    "damaged", [entry(0), {}, "x", None, {"response": {"status": "?"}}, {"response": []}]
)
def test_what_is_no_response_of_a_har_is_passed_over(damaged):
    assert [reply.status for reply in read(har(damaged, entry(200), damaged))] == [200]


# Cassettes

VCRPY = {
    "request": {
        "method": "POST",
        "uri": "https://api.groq.com/openai/v1/chat/completions",
        "body": '{"model": "m"}',
    },
    "response": {
        "status": {"code": 429, "message": "Too Many Requests"},
        "headers": {"retry-after": ["7"], "x-ratelimit-limit-requests": ["60", "60"]},
        "body": {"string": json.dumps(SPENT)},
    },
}
FORMS = {
    "vcrpy": VCRPY,
    "vcrpy, bytes": VCRPY | {"response": VCRPY["response"] | {"body": {"string": json.dumps(SPENT).encode()}}},
    "vcrpy of old, httpx": VCRPY
    | {"response": {"status_code": 429, "headers": VCRPY["response"]["headers"], "content": json.dumps(SPENT)}},
    "go-vcr": {
        "request": {"url": VCRPY["request"]["uri"], "body": '{"model": "m"}'},
        "response": {
            "status": "429 Too Many Requests", "code": 429, "body": json.dumps(SPENT),
            "headers": VCRPY["response"]["headers"],
        },
    },
    "pairs, base64": VCRPY
    | {
        "response": {
            "status": "429",
            "headers": [["retry-after", "7"], ("x-ratelimit-limit-requests", b"60"), ["x-ratelimit-limit-requests", 60]],
            "body": {"base64_string": base64.b64encode(json.dumps(SPENT).encode()).decode()},
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ["interactions", "http_interactions"])
@pytest.mark.parametrize("form", FORMS)
def test_a_cassette_in_yaml(form, name):
    (reply,) = read("# a note\n" + yaml.dump({name: [FORMS[form]], "version": 1}))
    _check(reply)


@pytest.mark.parametrize("form", ["vcrpy", "vcrpy of old, httpx", "go-vcr"])
def test_a_cassette_in_json(form):
    (reply,) = read(json.dumps({"version": 1, "interactions": [FORMS[form]]}))
    _check(reply)


def _check(reply):
    assert reply.status == 429
    assert reply.headers == (
        ("retry-after", "7"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-limit-requests", "60"),
    )
    assert reply.content == SPENT
    assert reply.url == "https://api.groq.com/openai/v1/chat/completions"
    assert reply.request == b'{"model": "m"}'


def test_tags_of_other_languages_are_read_as_plain_values_and_run_nothing():
    (reply,) = read(
        """http_interactions:
- request: !ruby/object:VCR::Request
    method: !ruby/symbol post
    uri: !ruby/string https://x.example/
    body: !!python/object/apply:sys.exit [3]
  response: !!python/tuple_is_a_lie
    status: {code: 429}
    headers: !ruby/hash:Headers {Retry-After: !!python/tuple ['7']}
    body: {string: !!python/unicode '[]'}
recorded_at: !ruby/range 1..2
"""
    )
    assert seen(reply) == (429, {"Retry-After": "7"}, [])


def test_a_cassette_that_multiplies_itself_is_bounded():
    bombs = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    document = f"a0: &a0 [x, x]\n{bombs}\ninteractions:\n- response: {{status: 200, headers: {{a: *a11}}, body: {{string: *a11}}}}"
    (reply,) = read(document)
    assert seen(reply) == (200, {}, None)


@pytest.mark.parametrize(
    "path", sorted(RECORDED.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_the_recorded_responses_are_read(path, command):
    recorded = yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]
    told = json.loads(command("parse", "--json", str(path)).out)["responses"]
    assert [response["status"] for response in told] == [
        each["response"]["status"]["code"] for each in recorded
    ]
    assert all((response["refusal"] is not None) == (response["status"] >= 400) for response in told)


# What cannot be used

UNUSABLE = {
    "nothing": (b"", "is empty; give a response's headers"),
    "nothing but space": (b" \r\n\t\n", "is empty"),
    "prose": (b"hello there", "has no headers: it begins with 'hello there'; give"),
    "a page": (b"<!DOCTYPE html>", "has no headers: it begins with '<!DOCTYPE html>'"),
    "a body without headers": (json.dumps(SPENT).encode(), "neither a HAR (log.entries) nor a cassette"),
    "JSON that breaks off": (b'{"log": ', "begins like JSON and is none"),
    "JSON nested beyond reason": (b"[" * 100_000, "begins like JSON and is none"),
    "a HAR without entries": (
        b'{"log": {"version": "1.2"}}',
        "holds no response: a HAR has them in log.entries",
    ),
    "a HAR of another shape": (b'{"log": 3}', "holds no response"),
    "a cassette without responses": (b"interactions: []\n", "holds no response"),
    "a cassette of another shape": (b"interactions: {a: 1}\n", "holds no response"),
    "YAML that breaks off": (b"interactions: [", "is no YAML"),
    "YAML with a date that is none": (b"interactions:\n- 2024-99-99\n", "is no YAML"),
    "a compressed file": (gzip.compress(b"{}"), "is binary"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0", "is binary"),
    "text of another encoding": ("é: 1".encode("latin-1"), "is binary"),
}


@pytest.mark.parametrize(("data", "why"), UNUSABLE.values(), ids=UNUSABLE)
def test_one_sentence_says_what_is_wrong(command, data, why):
    status, out, err = command("parse", stdin=data)
    assert (status, out) == (2, "")
    assert err.startswith("adaptive-rate-limiter parse: standard input ")
    assert err.count("\n") == 1
    assert why in err


def test_a_file_is_named(command, tmp_path):
    empty = tmp_path / "empty.har"
    empty.touch()
    for path, why in (
        (empty, "is empty"),
        (tmp_path, "cannot be read"),
        (tmp_path / "none", "cannot be read"),
    ):
        status, out, err = command("parse", str(path))
        assert (status, out) == (2, "")
        assert err.startswith(f"adaptive-rate-limiter parse: {path} {why}")


def test_a_cassette_without_the_extra(command, monkeypatch):
    monkeypatch.delitem(sys.modules, "adaptive_rate_limiter.cli.plain_yaml", raising=False)
    monkeypatch.delattr(cli, "plain_yaml", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    status, out, err = command("parse", stdin=b"interactions: []\n")
    assert (status, out) == (2, "")
    assert "pip install 'adaptive-rate-limiter[cli]'" in err


def test_a_person_at_a_terminal_is_told_what_to_do(monkeypatch, capsys):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(io.BytesIO(HEAD.encode())))
    assert cli.main(["parse"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("200\n")
    assert err.startswith("Paste a response's headers as `curl -i` prints them")


def test_it_reads_a_pipe():
    command = [sys.executable, "-m", "adaptive_rate_limiter.cli", "parse"]
    done = subprocess.run(
        command, input=HEAD.encode() + b"\xff\xfe", capture_output=True, check=True, timeout=30
    )
    assert done.stdout.startswith(b"200\n")
    assert done.stderr == b""


pieces = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/2 429\n", b"\r\n", b"\n", b"a: 1\n", b"x-ratelimit-limit-requests: 60\n", b"interactions:\n",
        b"- response: {status: {code: 429}, headers: {", b"}}\n", b'{"log": {"entries": [', b"]}}", b"content-length: 9\r\n",
        b"< HTTP/2 200\n", b"!!timestamp x", b"!!bool x", b"&a ", b"*a", b"? [1]: 2\n", b"\0", b"\xff", b"content-encoding: gzip\n",
    ]
)  # fmt: skip


@given(st.lists(pieces | st.binary(max_size=20), max_size=12).map(b"".join))
def test_anything_is_read_or_refused_with_a_sentence(data):
    try:
        replies = read(data)
    except UnusableError as error:
        sentence = str(error)
        assert sentence.startswith("it ")
        assert "\n" not in sentence
    else:
        assert replies
        for reply in replies:
            assert reply.status is None or 0 < reply.status < 1000
            json.dumps(reply.content)
