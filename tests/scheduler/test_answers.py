"""Status, headers and body are found behind results and errors of every shape, and nothing found raises."""

from email.message import Message
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import anthropic
import httpx
import openai
import pytest

from adaptive_rate_limiter import CapacityExceededError
from adaptive_rate_limiter.answers import answer_of, answer_of_error

REQUEST = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
BODY = {"error": {"message": "slow down"}}
RESPONSE = httpx.Response(429, headers={"retry-after": "2"}, json=BODY, request=REQUEST)


class AnyError(Exception):
    def __init__(self, **attributes):
        super().__init__("it failed")
        self.__dict__.update(attributes)


class RateLimitError(AnyError):
    pass


class HostileError(Exception):
    def __getattribute__(self, name):
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(name)


def raised_from(cause):
    error = AnyError()
    error.__cause__ = cause
    return error


def looped():
    one, two = AnyError(), AnyError()
    one.__cause__, two.__cause__ = two, one
    return one


class Code:
    """As grpc has them."""

    def __init__(self, number):
        self.value = (number, "words")


ERRORS = {
    "httpx": (httpx.HTTPStatusError("429", request=REQUEST, response=RESPONSE), (429, "2", BODY)),
    "openai": (
        openai.RateLimitError("429", response=RESPONSE, body=BODY["error"]),
        (429, "2", BODY["error"]),
    ),
    "anthropic": (anthropic.RateLimitError("429", response=RESPONSE, body=BODY), (429, "2", BODY)),
    "botocore": (
        AnyError(response={"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "2"}}}),
        (429, "2", None),
    ),
    "aiohttp": (AnyError(status=429, headers={"retry-after": "2"}), (429, "2", "it failed")),
    "google": (AnyError(code=429), (429, None, "it failed")),
    "grpc": (AnyError(code=lambda: Code(8)), (429, None, "it failed")),
    "grpc, unavailable": (AnyError(code=lambda: Code(14)), (503, None, "it failed")),
    "a body of its own": (AnyError(http_status=429, body=BODY), (429, None, BODY)),
    "a number that says when": (AnyError(status_code=429, retry_after=2.5), (429, "2.5", "it failed")),
    "a name that says it": (RateLimitError(retry_after_seconds=3), (429, "3", "it failed")),
    "headers kept by a client": (
        AnyError(status_code=429, cached_rate_limit_headers={"retry-after": "2"}),
        (429, "2", "it failed"),
    ),
    "a wrapped error": (raised_from(raised_from(AnyError(status=500))), (500, None, "it failed")),
}


@pytest.mark.parametrize(("error", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_that_tells(error, expected):
    answer = answer_of_error(error)
    status, retry_after, body = expected
    assert answer.status == status
    assert (answer.headers or {}).get("retry-after") == retry_after
    if body is not None:
        assert answer.body == body


@pytest.mark.parametrize(
    "error",
    [
        AnyError(),
        AnyError(status_code=True),
        AnyError(status_code=999),
        AnyError(code="rate_limit"),
        AnyError(code=lambda: Code(3)),
        AnyError(code=MagicMock(side_effect=RuntimeError)),
        AnyError(response=None, status=None),
        CapacityExceededError("of a limiter within", "bucket", 3.0),
        looped(),
        HostileError(),
        OSError(111, "refused"),
        KeyError("x"),
    ],
    ids=repr,
)
def test_an_error_that_tells_nothing(error):
    assert answer_of_error(error) is None


def message(**headers):
    made = Message()
    for name, value in headers.items():
        made[name] = value
    return made


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (RESPONSE, 429),
        (httpx.Response(204), 204),
        (SimpleNamespace(status=200, headers=message(a="b")), 200),
        (SimpleNamespace(response=RESPONSE), 429),
        (SimpleNamespace(headers={}, status_code="201"), 201),
        ({"headers": {"a": "b"}, "status_code": 503}, 503),
        ({"_response_headers": {"a": "b"}}, 200),
        ({"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}, 200),
    ],
)
def test_a_result_that_tells(result, status):
    assert answer_of(result).status == status


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        [1],
        {},
        {"headers": "none"},
        {"headers": None, "status": 200},
        SimpleNamespace(headers="none"),
        SimpleNamespace(headers=AsyncMock()),
        AsyncMock(),
        object(),
        dict,
        HostileError(),
    ],
    ids=lambda result: type(result).__name__,
)
def test_a_result_that_tells_nothing(result):
    assert answer_of(result) is None


def test_an_unread_stream_tells_its_headers_alone():
    response = httpx.Response(429, headers={"retry-after": "2"}, stream=httpx.ByteStream(b""))
    assert answer_of(response).headers["retry-after"] == "2"
