"""What a call's result or error tells of limits and usage, in the shapes that SDKs and HTTP libraries give them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from adaptive_rate_limiter.exceptions import RateLimiterError
from adaptive_rate_limiter.http.payload import HOLDERS, WRAPPERS, usage_in, usage_of

__all__ = ["Answer", "answer_of", "answer_of_error", "is_plain", "usage_of_result"]

PLAIN = (type(None), str, bytes, bytearray, int, float, bool, list, tuple, set)
# Where SDKs keep the response: raw-response wrappers of OpenAI and Anthropic, their streams, google-genai, others.
RESPONSES = ("http_response", "response", "sdk_http_response", "_response", "raw_response")
STATUSES = ("status_code", "status", "http_status", "code")
# Where a chunk or a result has its usage, or what holds it; most chunks have none of these.
MAY_TELL = (*HOLDERS, *WRAPPERS, "eval_count", "http_response")
LONGEST_CHAIN = 5  # of an error's causes
GRPC = {8: 429, 14: 503}  # RESOURCE_EXHAUSTED and UNAVAILABLE
FIRST_ERROR = 400
TOO_MANY_REQUESTS = 429
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Answer(NamedTuple):
    """Arguments of `Reservation.observe`."""

    status: int
    headers: Any
    body: Any


def is_plain(result: object) -> bool:
    """A value that tells nothing but itself."""
    return isinstance(result, PLAIN)


# Results


def answer_of(result: Any) -> Answer | None:
    """The response that `result` is, or carries; None if it tells none. Never raises."""
    if is_plain(result):
        return None
    if isinstance(result, Mapping):
        return _answer_of_mapping(result)
    for response in (result, *(_attribute(result, name) for name in RESPONSES)):
        headers = _headers(response)
        if headers is not None:
            status = _status(response) or _status(result) or 200
            return Answer(status, headers, _body(response) if status >= FIRST_ERROR else None)
    return None


def _answer_of_mapping(result: Mapping[Any, Any]) -> Answer | None:
    metadata = result.get("ResponseMetadata")  # botocore
    if isinstance(metadata, Mapping):
        return Answer(_valid(metadata.get("HTTPStatusCode")) or 200, metadata.get("HTTPHeaders"), None)
    for name in ("headers", "_response_headers", "response_headers"):
        headers = result.get(name)
        if _are_headers(headers):
            status = next((found for name in STATUSES if (found := _valid(result.get(name)))), 200)
            body = result.get("body", result) if status >= FIRST_ERROR or "error" in result else None
            return Answer(status, headers, body)
    return None


def usage_of_result(result: Any) -> dict[str, float] | None:
    """Arguments of `Reservation.settle` from a result or one chunk of a stream; None if it tells no usage.

    Never raises.
    """
    try:
        return _usage(result)
    except Exception:  # noqa: BLE001 - somebody else's object, and the values in it
        return None


def _usage(result: Any) -> dict[str, float] | None:
    if is_plain(result):
        return usage_of(result) if isinstance(result, list) else None
    if isinstance(result, Mapping):
        found = usage_of(_View.of(result))
        body = result.get("body")
        return usage_of(body) if found is None and isinstance(body, Mapping) else found
    content = _attribute(result, "content")
    if not isinstance(content, bytes):
        if all(_attribute(result, name) is None for name in MAY_TELL):
            return None
        content = _attribute(_attribute(result, "http_response"), "content")
    return usage_in(content) if isinstance(content, bytes) else usage_of(_View(result))


class _View(Mapping[str, Any]):
    """Attributes of an object, or keys of a mapping, as a mapping, under the names of either spelling."""

    __slots__ = ("_object",)

    def __init__(self, shown: Any) -> None:
        self._object = shown

    @classmethod
    def of(cls, shown: Any) -> Any:
        """A view of whatever may hold something; numbers and words as they are."""
        return shown if is_plain(shown) else cls(shown)

    def __getitem__(self, name: str) -> Any:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        shown = self._object
        found = shown.get(name) if isinstance(shown, Mapping) else _attribute(shown, name)
        if found is None and (snake := _snake(name)) is not None:
            found = _attribute(shown, snake)
        return default if found is None else self.of(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._object if isinstance(self._object, Mapping) else vars(self._object))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(maxsize=64)
def _snake(name: str) -> str | None:
    """The name as SDKs in Python write it; None where that is the same."""
    snake = HUMP.sub("_", name).lower()
    return None if snake == name else snake


# Errors


def answer_of_error(error: BaseException) -> Answer | None:
    """The response behind an error or one of its causes; None if none of them tells one. Never raises."""
    current: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if current is None:
            return None
        answer = _answer_of_one(current)
        if answer is not None:
            return answer
        current = current.__cause__
    return None


def _answer_of_one(error: BaseException) -> Answer | None:
    response = _attribute(error, "response")
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        if isinstance(metadata, Mapping):
            return Answer(
                _valid(metadata.get("HTTPStatusCode")) or 400, metadata.get("HTTPHeaders"), dict(response)
            )
    status = _status(error) or _status(response)
    if status is None and _says_so(error):
        status = TOO_MANY_REQUESTS
    if status is None:
        return None
    headers = _headers(response) or _headers(error)
    if headers is None:
        told = _attribute(error, "cached_rate_limit_headers")
        headers = told if _are_headers(told) else _retry_after(error)
    body = _attribute(error, "body")
    if body is None:
        body = _body(response)
    return Answer(status, headers, str(error) if body is None else body)


def _says_so(error: BaseException) -> bool:
    return "ratelimit" in type(error).__name__.lower() and not isinstance(error, RateLimiterError)


def _retry_after(error: BaseException) -> dict[str, str] | None:
    for name in ("retry_after", "retry_after_seconds"):
        seconds = _attribute(error, name)
        if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
            return {"retry-after": str(seconds)}
    return None


# Attributes of objects that may be anything


def _attribute(holder: Any, name: str) -> Any:
    if holder is None:
        return None
    if hasattr(type(holder), "__pydantic_fields__"):
        return _field(holder, name)
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody else's object: an unread response raises, for one
        return None


def _field(model: Any, name: str) -> Any:
    """An attribute of a pydantic model, without the microseconds that it takes to say that there is none."""
    for held in (model.__dict__, model.__pydantic_extra__, model.__pydantic_private__):
        if held and name in held:
            return held[name]
    return None


def _headers(response: Any) -> Any:
    headers = _attribute(response, "headers")
    return headers if _are_headers(headers) else None


def _are_headers(headers: Any) -> bool:
    """A mapping, or what http.client has; not a mock, which has every name there is, but not its class."""
    return isinstance(headers, Mapping) or callable(getattr(type(headers), "items", None))


def _status(holder: Any) -> int | None:
    for name in STATUSES:
        value = _attribute(holder, name)
        if callable(value):  # grpc
            try:
                value = value()
            except Exception:  # noqa: BLE001, S112 - not a status
                continue
        value = _attribute(value, "value") or value
        if isinstance(value, tuple) and value:  # grpc: (8, "resource exhausted")
            value = GRPC.get(value[0])
        if (status := _valid(value)) is not None:
            return status
    return None


def _valid(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:  # noqa: PLR2004 - HTTP
        return value
    return None


def _body(response: Any) -> Any:
    text = _attribute(response, "text")
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
