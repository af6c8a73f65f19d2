"""HARs and cassettes, parsed already: the responses in them. What has another shape is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Recorded", "interactions", "responses"]

INTERACTIONS = ("interactions", "http_interactions")  # vcrpy and go-vcr; Ruby's VCR
HIGHEST_STATUS = 999


class Recorded(NamedTuple):
    """One response and the body of its request. `encoding` is "base64" where `body` is written so."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str | bytes | None
    encoding: str | None
    url: str | None
    request: str | bytes | None


def interactions(document: Mapping[Any, Any]) -> list[Any] | None:
    """The list of a cassette's interactions; None if it is no cassette."""
    found = next((document[name] for name in INTERACTIONS if name in document), None)
    return found if isinstance(found, list) else None


def responses(document: Any) -> list[Recorded]:
    """All responses of a HAR or a cassette, in order."""
    document = _mapping(document)
    if "log" in document:
        entries = _mapping(document["log"]).get("entries")
        found = [_entry(_mapping(entry)) for entry in entries] if isinstance(entries, list) else []
    else:
        found = [_interaction(_mapping(entry)) for entry in interactions(document) or ()]
    return [told for told in found if told is not None]


def _entry(entry: Mapping[Any, Any]) -> Recorded | None:
    """Of a HAR. Status 0 is a request that got no response."""
    request, response = _mapping(entry.get("request")), _mapping(entry.get("response"))
    content = _mapping(response.get("content"))
    status = _status(response)
    if not status:
        return None
    return Recorded(
        status,
        _headers(response.get("headers")),
        _text(content.get("text")),
        _word(content.get("encoding")),
        _word(request.get("url")),
        _text(_mapping(request.get("postData")).get("text")),
    )


def _interaction(interaction: Mapping[Any, Any]) -> Recorded | None:
    """Of a cassette, by vcrpy (its old form for httpx included), by VCR for Ruby, or by go-vcr."""
    request, response = _mapping(interaction.get("request")), _mapping(interaction.get("response"))
    status = _status(response)
    if not status:
        return None
    body, encoding = _body(response)
    return Recorded(
        status,
        _headers(response.get("headers")),
        body,
        encoding,
        _word(request.get("uri")) or _word(request.get("url")),
        _body(request)[0],
    )


def _status(response: Mapping[Any, Any]) -> int | None:
    told = response.get("status", response.get("status_code"))
    if isinstance(told, Mapping):
        told = told.get("code")
    elif isinstance(response.get("code"), int):
        told = response["code"]
    if isinstance(told, str):  # "429 Too Many Requests"
        found = re.match(r"\d{3}\b", told)
        told = int(found[0]) if found else None
    return (
        told if isinstance(told, int) and not isinstance(told, bool) and 0 < told <= HIGHEST_STATUS else None
    )


def _body(message: Mapping[Any, Any]) -> tuple[str | bytes | None, str | None]:
    body = message.get("body", message.get("content"))
    if isinstance(body, Mapping):
        coded = _text(body.get("base64_string"))
        return (coded, "base64") if coded is not None else (_text(body.get("string")), None)
    return _text(body), None


def _headers(headers: Any) -> tuple[tuple[str, str], ...]:
    """From a mapping of names to a value or several, or from pairs in either way of writing them."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(headers, Mapping):
        pairs = list(headers.items())
    elif isinstance(headers, list):
        pairs = [
            (field.get("name"), field.get("value")) if isinstance(field, Mapping) else (field[0], field[1])
            for field in headers
            if isinstance(field, Mapping) or (isinstance(field, (list, tuple)) and len(field) == 2)  # noqa: PLR2004 - a pair
        ]
    return tuple(
        (str(name), value.decode("latin-1") if isinstance(value, bytes) else str(value))
        for name, values in pairs
        for value in (values if isinstance(values, list) else [values])
        if isinstance(name, str) and isinstance(value, (str, bytes, int, float))
    )


def _text(value: Any) -> str | bytes | None:
    return value if isinstance(value, (str, bytes)) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
