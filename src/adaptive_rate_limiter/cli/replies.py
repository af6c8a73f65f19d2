"""Responses as people have them: curl's output, header lines, a HAR, a cassette of VCR."""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adaptive_rate_limiter.cli import recordings
from adaptive_rate_limiter.cli.arguments import UnusableError, missing

__all__ = ["Reply", "replies_in"]

FORMS = "a response's headers as `curl -i` prints them, a HAR, or a VCR cassette"
LONGEST_BODY = 1 << 20  # bytes; of a longer body the start tells all that there is to tell

_TOKEN = rb"[!#-'*+.^_`|~0-9A-Za-z-]+"
# A status line counts only before a header or an empty line: a body may quote one.
_HEAD = re.compile(
    rb"HTTP/\d(?:\.\d)? (\d{3})(?!\d)[^\r\n]*(?:\Z|\r?\n(?=\r?\n|\Z|%s:))" % _TOKEN, re.IGNORECASE
)
_LINE = re.compile(rb"([^\r\n]+)(?:\r?\n|\Z)")
_EMPTY_LINE = re.compile(rb"\r?\n|\Z")
_FIELD = re.compile(rb"(%s)[ \t]*:[ \t]*(.*)" % _TOKEN, re.DOTALL)
_VERBOSE = re.compile(rb"^< HTTP/", re.MULTILINE)
_VERBOSE_HOST = re.compile(rb"^> Host:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_CASSETTE = re.compile(r"^(?:http_)?interactions:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; what was not recorded is None, of the request as well."""

    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = None
    url: str | None = None
    request: bytes | None = None

    @property
    def content(self) -> Any:
        """The body, decompressed and parsed if it is JSON, else its text; None if there is none."""
        text = self.text
        try:
            return json.loads(text) if text.strip() else None
        except (ValueError, RecursionError):
            return text.decode("utf-8", "replace")

    @property
    def text(self) -> bytes:
        """The body, decompressed where the header says so and it is not decompressed yet."""
        encodings = {value.lower() for name, value in self.headers if name.lower() == "content-encoding"}
        body = self.body or b""
        if encodings & {"gzip", "x-gzip", "deflate"}:
            try:
                # 32: tell gzip from zlib by the first bytes
                return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, LONGEST_BODY)
            except zlib.error:
                pass
        return body[:LONGEST_BODY]


def replies_in(data: bytes, source: str, *, status: int | None = None) -> list[Reply]:
    """The responses that `data` holds, in order, at least one.

    `source` is what an error calls it. With `status`, a body alone is a response, too.
    Raises UnusableError, which says what was wrong and what would be right.
    """
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:  # what PowerShell writes
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not data:
        raise UnusableError(f"{source} is empty; give {FORMS}")
    if _HEAD.match(data):
        return _on_the_wire(data)
    if b"\0" in data or not (text := _decoded(data)):
        raise UnusableError(f"{source} is binary; give {FORMS}, as text")
    if text[0] in "{[":
        return _in_json(text, source, status)
    if _CASSETTE.search(text):
        return _recorded(_yaml(text, source), source)
    if _VERBOSE.search(data):
        return _verbose(data)
    return [_headers_alone(data, source)]


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# As curl prints it


def _on_the_wire(data: bytes, url: str | None = None) -> list[Reply]:
    """Responses one after the other: interim ones, redirects, retries."""
    found = _HEAD.match(data)
    replies = []
    while found is not None:
        headers, at = _fields(data, found.end())
        following = _following(data, at, headers)
        end = following.start() if following else len(data)
        replies.append(Reply(int(found[1]), headers, data[at:end] or None, url))
        found = following
    return replies


def _fields(data: bytes, at: int) -> tuple[tuple[tuple[str, str], ...], int]:
    """Header fields from `at` on, and where the body begins."""
    fields: list[tuple[str, str]] = []
    while line := _LINE.match(data, at):
        at = line.end()
        field = _FIELD.match(line[1])
        if field:
            fields.append((field[1].decode("latin-1"), field[2].strip().decode("utf-8", "replace")))
        elif fields and line[1][:1] in b" \t":  # a value folded over lines
            name, value = fields[-1]
            fields[-1] = (name, f"{value} {line[1].strip().decode('utf-8', 'replace')}")
    empty = _EMPTY_LINE.match(data, at)
    return tuple(fields), empty.end() if empty else at


def _following(data: bytes, at: int, headers: tuple[tuple[str, str], ...]) -> re.Match[bytes] | None:
    """The next head: right behind the body if its length is told and true, else the next that looks like one."""
    told = next((value for name, value in headers if name.lower() == "content-length"), "")
    if told.isdecimal() and len(told) < 12:  # noqa: PLR2004 - digits of a length
        behind = at + int(told)
        if not data[behind:].strip():
            return _HEAD.search(data, at) if behind > len(data) else None
        if found := _HEAD.match(data, behind):
            return found
    return _HEAD.search(data, at)


def _verbose(data: bytes) -> list[Reply]:
    """`curl -v`: the response's head behind "< ", and other lines that are nobody's."""
    host = _VERBOSE_HOST.search(data)
    kept = []
    for line in data.splitlines(keepends=True):
        if line.startswith(b"<"):
            kept.append(line[1:].removeprefix(b" "))
        elif not line.startswith((b"* ", b"> ", b"{ [", b"} [")):
            kept.append(line)
    text = b"".join(kept)
    first = _HEAD.search(text)
    url = f"https://{host[1].decode('latin-1')}/" if host else None
    return _on_the_wire(text[first.start() :], url) if first else []


def _headers_alone(data: bytes, source: str) -> Reply:
    first = _LINE.match(data)
    if first is None or not _FIELD.match(first[1]):
        line = first[1].decode("utf-8", "replace")[:40] if first else ""
        raise UnusableError(f"{source} has no headers: it begins with {line!r}; give {FORMS}")
    headers, at = _fields(data, 0)
    return Reply(None, headers, data[at:] or None)


# Recordings


def _in_json(text: str, source: str, status: int | None) -> list[Reply]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if status is not None:
            return [Reply(status, (), text.encode())]
        raise UnusableError(f"{source} begins like JSON and is none ({error}); give {FORMS}") from error
    if isinstance(found, Mapping) and ("log" in found or recordings.interactions(found) is not None):
        return _recorded(found, source)
    if status is not None:
        return [Reply(status, (), text.encode())]
    raise UnusableError(
        f"{source} is JSON, but neither a HAR (log.entries) nor a cassette (interactions); for a body alone say its --status"
    )


def _yaml(text: str, source: str) -> Any:
    try:
        from adaptive_rate_limiter.cli import plain_yaml  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing(f"{source} is a cassette in YAML: to read it", "adaptive-rate-limiter[cli]") from error
    try:
        return plain_yaml.load(text)
    except ValueError as error:
        raise UnusableError(f"{source} begins like a cassette and is no YAML: {error}") from error


def _recorded(document: Any, source: str) -> list[Reply]:
    found = recordings.responses(document)
    if not found:
        raise UnusableError(
            f"{source} holds no response: a HAR has them in log.entries, a cassette in interactions"
        )
    return [
        Reply(
            told.status, told.headers, _bytes(told.body, told.encoding), told.url, _bytes(told.request, None)
        )
        for told in found
    ]


def _bytes(text: str | bytes | None, encoding: str | None) -> bytes | None:
    if text is None or isinstance(text, bytes):
        return text
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=False)
        except (ValueError, binascii.Error):
            return None
    return text.encode("utf-8", "surrogatepass")
