"""`parse`: what responses say of limits, and what the limiter does next."""

import asyncio
import json
import re

import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter
from adaptive_rate_limiter.testing import FakeClock

OPENAI = """HTTP/2 200 \r
date: Tue, 04 Jun 2024 18:39:16 GMT\r
content-type: application/json\r
x-ratelimit-limit-requests: 500\r
x-ratelimit-limit-tokens: 30000\r
x-ratelimit-remaining-requests: 499\r
x-ratelimit-remaining-tokens: 29970\r
x-ratelimit-reset-requests: 120ms\r
x-ratelimit-reset-tokens: 60ms\r
\r
{"usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}}"""

REFUSED = """HTTP/1.1 429 Too Many Requests\r
Retry-After: 5\r
\r
{"error": {"message": "Rate limit reached for requests", "type": "requests"}}"""


def reply(status, headers="", body=""):
    return f"HTTP/1.1 {status}\n{headers}\n\n{body}"


def test_the_table_and_the_next_step(command):
    said = command("parse", "--url", "https://api.openai.com/v1/chat/completions", stdin=OPENAI)
    title, headings, requests, tokens, following, *rest = said.out.splitlines()
    assert (said.status, said.err, rest) == (0, "", [])
    assert title == "200 from api.openai.com"
    assert [headings.index(word) for word in ("unit", "each", "full at", "told by")] == [
        requests.index(word) for word in ("requests", "minute", "2024-06-04 18:39:16 UTC", "x-ratelimit-*")
    ]
    assert re.split(r"\s{2,}", requests) == [
        "requests", "500", "minute", "499", "120 ms", "2024-06-04 18:39:16 UTC", "-", "x-ratelimit-*",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", tokens) == [
        "tokens", "30,000", "minute", "29,970", "60 ms", "2024-06-04 18:39:16 UTC", "-", "x-ratelimit-*",
    ]  # fmt: skip
    assert re.fullmatch(
        r"next: sends the next call at once, then at most 500 requests and 30,000 tokens a minute; "
        r"4\d\d requests and 29,\d{3} tokens left now",
        following,
    )


REFUSED_MEANWHILE = "calls are refused at once until then, because nobody waits longer than max_pause (5 min)"
OTHERS_GO = "as for other calls, it sends the next call at once"
OTHERS_STOP = f"as for other calls, it stops for 60 min (quota exhausted): {REFUSED_MEANWHILE}"
TOO_LARGE = "Request too large for tokens per min (TPM): Limit 10, Requested 20"
NOT_VERIFIED = "Your organization must be verified to use this model"
CONCURRENT = "Number of concurrent connections has exceeded your rate limit"


def error(message):
    return json.dumps({"error": {"message": message}})


MONEY = reply(429, body='{"error": {"code": "insufficient_quota"}}')
NEXT = {
    "a wait that is told": (REFUSED, "waits 5.0 s (retry-after of 5 s)"),
    "more than max_pause": (
        reply(429, "retry-after: 86400\ndate: Tue, 04 Jun 2024 18:39:16 GMT"),
        f"stops for 24 h 0 min, until 2024-06-05 18:39:16 UTC (quota exhausted): {REFUSED_MEANWHILE}",
    ),
    "larger than the limit": (
        reply(413, body=error(TOO_LARGE)),
        f"never retries this request, for it alone is larger than the whole limit; {OTHERS_GO}",
    ),
    "not for this key": (
        reply(403, body=error(NOT_VERIFIED)),
        f"never retries this request, for this key may not do this at all; {OTHERS_GO}",
    ),
    "money": (
        MONEY,
        f"never retries this request, for no wait brings back what is used up; {OTHERS_STOP}",
    ),
    "nothing told": (
        reply(200, "server: nginx"),
        "nothing is told: a few calls go at once, more while they pass, until a refusal shows the limit",
    ),
}


@pytest.mark.parametrize(("stdin", "sentence"), NEXT.values(), ids=NEXT)
def test_the_next_step_as_a_sentence(command, stdin, sentence):
    said = command("parse", stdin=stdin)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"next: {sentence}"


def test_it_backs_off_from_an_overloaded_provider(command):
    said = command("parse", stdin="HTTP/2 529 \nserver: x\n\n<html>not JSON")
    assert "refused: overload; when to try again is not told\n" in said.out
    assert re.search(
        r"next: backs off for 1\.\d s \(.+\), longer each time in a row, and learns no limit", said.out
    )


def test_it_sends_fewer_at_once_where_too_many_were(command):
    said = command("parse", stdin=reply(429, body=error(CONCURRENT)))
    assert "refused: concurrency; when to try again is not told\n" in said.out
    assert re.search(
        r"next: backs off for 1\.\d s: fewer calls at once from now on, and the next one when", said.out
    )


def test_it_finds_out_what_a_bare_refusal_does_not_tell(command):
    said = command("parse", stdin=reply(429))
    assert "limits: none told\nrefused: rate limit; when to try again is not told\n" in said.out
    assert re.search(r"next: backs off for [\d.]+ m?s, then finds the limit out by what passes", said.out)


# The limiter itself does what is said


def limits(limit, remaining, reset, unit="requests"):
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return "\n".join(f"x-ratelimit-{name}-{unit}: {value}" for name, value in told.items())


RESPONSES = {
    "plenty": reply(200, limits(500, 499, "120ms")),
    "the last one": reply(200, limits(60, 0, "60s")),
    "tokens spent": reply(200, limits(30_000, 0, "60s", "tokens")),
    "a day's": reply(200, 'ratelimit-policy: "d";q=10;w=86400\nratelimit: "d";r=0;t=7200'),
    "told wait": reply(429, "retry-after: 7"),
    "told wait and limits": reply(429, "retry-after: 7\n" + limits(500, 0, "60s")),
    "bare": reply(429),
    "unexplained": reply(429, limits(500, 400, "12s")),
    "overload": reply(503),
    "overload with a time": reply(529, "retry-after: 20"),
    "a long time": reply(429, "retry-after: 4000"),
    "money": MONEY,
    "silence": reply(200),
}


async def until_it_goes(limiter, call):
    """The seconds that one more call waits, or is told by the error; and whether it is refused."""
    clock, began = limiter.clock, limiter.clock.now()
    task = asyncio.ensure_future(limiter.aacquire(**call))
    while not task.done():
        for _ in range(5):
            await asyncio.sleep(0)
        if not task.done():
            clock.advance(max(0.0, clock.next_due() - clock.now()))
    try:
        task.result().cancel()
    except CapacityExceededError as error:
        return error.retry_after, True
    return clock.now() - began, False


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
async def test_the_limiter_waits_as_long_as_is_said(command, response):
    (told,) = json.loads(command("parse", "--json", stdin=response).out)["responses"]
    head, _, body = response.partition("\n\n")
    headers = [line.split(": ", 1) for line in head.splitlines()[1:] if line]
    call = {"input_tokens": 1000, "output_tokens": 0, "estimated": True}

    limiter = Limiter(clock=FakeClock())
    reservation = await limiter.aacquire(**call)
    reservation.observe(told["status"], headers, json.loads(body) if body.strip() else None)
    if told["refusal"] is None:
        reservation.settle(input_tokens=1000, output_tokens=0)
    wait, refused = await until_it_goes(limiter, call)
    # Pauses of one's own choice are spread by up to a quarter, differently in each bucket.
    assert wait == pytest.approx(told["next"]["wait"], rel=0.3, abs=0.01)
    assert refused is told["next"]["refused"]


ACTIONS = {
    "plenty": "pace", "the last one": "wait", "tokens spent": "wait", "a day's": "stop", "told wait": "wait",
    "told wait and limits": "wait", "bare": "back_off", "unexplained": "back_off", "overload": "back_off",
    "overload with a time": "back_off", "a long time": "stop", "money": "never_retry", "silence": "nothing_told",
}  # fmt: skip


@pytest.mark.parametrize("case", RESPONSES)
def test_the_next_step_as_a_word(command, case):
    (told,) = json.loads(command("parse", "--json", stdin=RESPONSES[case]).out)["responses"]
    assert told["next"]["action"] == ACTIONS[case]


def test_a_larger_call_waits_where_a_small_one_goes(command):
    stdin = reply(200, limits(30_000, 15_000, "30s", "tokens"))
    waits = {
        size: json.loads(command("parse", "--json", "--tokens", size, stdin=stdin).out)["responses"][0][
            "next"
        ]["wait"]
        for size in ("10", "20000")
    }
    assert waits["10"] == 0
    assert 10 <= waits["20000"] <= 61


# For scripts


def test_all_figures_as_json(command):
    said = command("parse", "--json", stdin=OPENAI)
    (told,) = json.loads(said.out)["responses"]
    following = told.pop("next")
    assert told == {
        "status": 200,
        "host": None,
        "dialect": None,
        "date": "2024-06-04 18:39:16 UTC",
        "limits": [
            {
                "unit": "requests", "limit": 500, "window": 60, "remaining": 499, "reset_after": 0.12,
                "full_at": "2024-06-04 18:39:16 UTC", "scope": None, "told_by": "x-ratelimit-*",
            },
            {
                "unit": "tokens", "limit": 30_000, "window": 60, "remaining": 29_970, "reset_after": 0.06,
                "full_at": "2024-06-04 18:39:16 UTC", "scope": None, "told_by": "x-ratelimit-*",
            },
        ],
        "refusal": None,
    }  # fmt: skip
    assert following.keys() == {"action", "sentence", "wait", "until", "reasons", "refused", "paces"}
    assert [(pace["unit"], pace["limit"], pace["window"]) for pace in following["paces"]] == [
        ("requests", 500, 60),
        ("tokens", 30_000, 60),
    ]


def test_a_refusal_as_json(command):
    (told,) = json.loads(command("parse", "--json", stdin=REFUSED).out)["responses"]
    assert told["refusal"] == {
        "kind": "rate_limit", "retry_after": 5, "retryable": True, "unit": None, "limit": None, "window": None,
    }  # fmt: skip
    assert (told["next"]["wait"], told["next"]["reasons"]) == (5, ["retry-after of 5 s"])


# What the dialect is, and how one finds out


TWO_COPIES = """ratelimit-limit: 400
ratelimit-remaining: 399
x-ratelimit-limit-minute: 400
x-ratelimit-remaining-minute: 399"""
FIELDS = 'RateLimit-Policy: "p";q=5;w=60\nRateLimit: "p";r=4;t=9'
A_DAY = limits(14_400, 14_370, "60s")
A_SECOND = "x-ratelimit: true\n" + limits(100, 98, "1")


@pytest.mark.parametrize(
    ("headers", "url", "told"),
    [
        (A_DAY, "https://api.groq.com/openai/v1", ("groq", 86_400, None, "x-ratelimit-*")),
        (A_DAY, "api.groq.com", ("groq", 86_400, None, "x-ratelimit-*")),
        (A_DAY, None, (None, 60, None, "x-ratelimit-*")),
        (
            limits(100, 98, "1s"),
            "https://router.huggingface.co/v1",
            ("gateway", 60, "upstream", "x-ratelimit-*"),
        ),
        (A_SECOND, None, ("together", 1, None, "x-ratelimit-*")),
        (FIELDS, None, (None, 60, "p", "RateLimit")),
        ("anthropic-ratelimit-requests-limit: 50", None, (None, 60, None, "anthropic-ratelimit-*")),
        ("maximum-concurrent-requests: 5", None, (None, None, None, "maximum-concurrent-requests")),
        (TWO_COPIES, None, (None, 60, None, "ratelimit-*, x-ratelimit-*")),
    ],
)
def test_the_dialect_and_who_told_it(command, headers, url, told):
    arguments = [] if url is None else ["--url", url]
    said = command("parse", "--json", *arguments, stdin=reply(200, headers))
    (response,) = json.loads(said.out)["responses"]
    (limit,) = response["limits"]
    assert (response["dialect"], limit["window"], limit["scope"], limit["told_by"]) == told


def test_limits_that_stand_in_the_body(command):
    body = {
        "error": {
            "code": 429,
            "metadata": {"headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}},
        }
    }
    (told,) = json.loads(command("parse", "--json", stdin=reply(429, body=json.dumps(body))).out)["responses"]
    assert [(limit["limit"], limit["told_by"]) for limit in told["limits"]] == [(50, "the body")]


def test_a_host_that_is_not_known_is_asked_for(command):
    told = reply(200, limits(500, 499, "120ms"))
    assert "--url" in command("parse", stdin=told).out
    assert "--url" not in command("parse", "--url", "api.openai.com", stdin=told).out
    assert "--url" not in command("parse", stdin=reply(200)).out
    assert "--url" not in command("parse", stdin=reply(200, "anthropic-ratelimit-requests-limit: 50")).out


def test_what_comes_from_a_stranger_does_not_steer_the_terminal(command):
    headers = [{"name": "x-ratelimit-limit-\x1b]0;gone\x07", "value": "5"}]
    entry = {"request": {"url": "https://\x1b[2Jx.example/"}, "response": {"status": 200, "headers": headers}}
    said = command("parse", stdin=json.dumps({"log": {"entries": [entry]}}))
    assert said.status == 0
    assert "?]0;gone?" in said.out
    assert "\x1b" not in said.out


def test_no_address_is_shown_beyond_its_host(command):
    url = "https://user:secret@api.example.com/v1?key=secret"
    for form in ([], ["--json"]):
        said = command("parse", *form, "--url", url, stdin=OPENAI)
        assert "api.example.com" in said.out
        assert "secret" not in said.out


# Several responses


def test_responses_that_say_nothing_are_counted(command):
    said = command(
        "parse", stdin="HTTP/1.1 301 Moved\r\nlocation: /\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OPENAI
    )
    first, last = said.out.split("\n\n")
    assert first.startswith("#3  200\n")
    assert last == "2 other responses say nothing of limits.\n"


def test_where_none_says_anything_the_last_one_stands_for_all(command):
    said = command("parse", stdin=reply(301) + reply(200))
    assert said.out.startswith("#2  200\nlimits: none told\nnext: nothing is told")
    assert said.out.endswith("\n\n1 other response says nothing of limits.\n")


def test_scripts_get_every_response(command):
    told = json.loads(command("parse", "--json", stdin=reply(301) + OPENAI).out)["responses"]
    assert [response["status"] for response in told] == [301, 200]
