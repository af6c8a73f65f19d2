"""What the body of a refusal tells, gathered from any shape: wrapped, flat, an array, a string, plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.providers.times import number

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Evidence", "gather", "is_error"]

_MAX_TEXT = 65_536  # characters of a body that are looked at
_MAX_SENTENCES = 4_000  # characters of its messages
_MAX_NODES = 400
_LARGEST = 1e300
_MAX_NESTED = 8  # bodies looked for inside a message

_CODES = frozenset({
    "code", "type", "status", "reason", "title", "error", "error_type", "errortype", "error_code", "errorcode",
    "errcode", "__type", "name", "param",
})  # fmt: skip
_SENTENCES = frozenset({
    "message", "msg", "detail", "details", "description", "error", "raw", "title", "reason", "hint", "errors",
    "error_message", "errormessage", "error_description", "custommessage", "error_msg", "text",
})  # fmt: skip
# Keys that tell a wait, and the seconds of their unit. Instants are told by their size.
_WAITS: Mapping[str, float] = MappingProxyType({
    **dict.fromkeys(("retry_after", "retryafter", "retry-after", "retry_after_seconds", "retryafterseconds",
                     "retry_after_secs", "retrydelay", "retry_delay", "retry_in", "wait_seconds", "reset_after",
                     "reset_in", "resets_in", "resets_in_seconds", "reset_in_seconds", "resets_at", "reset_at",
                     "resetat", "resetsat", "next_flush_time"), 1.0),
    **dict.fromkeys(("retry_after_ms", "retryafterms", "retry-after-ms"), 1e-3),
})  # fmt: skip
_STATUS = frozenset({"status", "status_code", "statuscode", "code", "http_status", "raw_status_code"})
# Google's QuotaFailure: which quota, and how large it is.
_QUOTA_NAMES = frozenset({"quotaid", "quotametric", "quota_id", "quota_metric"})
_QUOTA_VALUES = frozenset({"quotavalue", "quota_value", "quota_limit_value"})


@dataclass(slots=True)
class Evidence:
    """Machine words, sentences, waits (as written, with their unit), quotas (name, size) and quoted headers of a body."""

    codes: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)
    quotas: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    headers: list[dict[Any, Any]] = field(default_factory=list)
    status: int | None = None


def is_error(body: object) -> bool:
    """Whether a body that came with a success is an error all the same (streams and gateways do that)."""
    if isinstance(body, dict):
        return bool(body.get("error")) or body.get("type") == "error"
    if isinstance(body, (bytes, bytearray)):
        return is_error(body[:80].decode("utf-8", "replace"))
    if isinstance(body, str):
        start = body[:80].replace(" ", "")
        return start.startswith(
            ('{"error":{', '{"type":"error"', "event:error", 'data:{"error":{', 'data:{"type":"error"')
        )
    return False


def gather(body: object) -> Evidence:
    """Everything of use in `body`, with bounded work."""
    evidence = Evidence()
    nodes: list[tuple[str, Any]] = [("message", _decoded(body))]
    nested = seen = 0
    while nodes and seen < _MAX_NODES:
        key, value = nodes.pop()
        seen += 1
        if isinstance(value, str):
            quoted = None
            if nested < _MAX_NESTED and ("{" in value or "[" in value):
                nested += 1
                value, quoted = _quoted(value)
            if quoted is not None:
                nodes.append((key, quoted))
            if value:
                _take_text(evidence, key, value)
        elif isinstance(value, dict):
            nodes.extend(_children(evidence, value))
        elif isinstance(value, (list, tuple)):
            nodes.extend((key, item) for item in reversed(value[:_MAX_NODES]))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _take_number(evidence, key, value)
    return evidence


def _children(evidence: Evidence, node: dict[Any, Any]) -> list[tuple[str, Any]]:
    children = []
    for i, (key, value) in enumerate(node.items()):
        if i >= _MAX_NODES:
            break
        name = key.lower() if isinstance(key, str) and len(key) <= 64 else ""  # noqa: PLR2004 - longer is no key of ours
        if name == "headers" and isinstance(value, dict):
            evidence.headers.append(value)
        elif name in _WAITS and isinstance(value, dict):
            children.append((name, value.get("seconds")))
        else:
            children.append((name, value))
    return children[::-1]


def _take_text(evidence: Evidence, key: str, value: str) -> None:
    value = value[:_MAX_SENTENCES]
    if key in _WAITS:
        evidence.waits.append((value, _WAITS[key]))
    elif key in _QUOTA_NAMES:
        evidence.quotas.append(value)
    elif key in _QUOTA_VALUES:
        evidence.sizes += [size] if (size := number(value)) is not None else []
    else:
        if key in _CODES and len(value) <= 80:  # noqa: PLR2004 - codes are words; longer is prose
            evidence.codes.append(value)
            if key in _STATUS and evidence.status is None and value.isdecimal() and len(value) == 3:  # noqa: PLR2004
                evidence.status = int(value)
        if key in _SENTENCES:
            evidence.sentences.append(value)


def _take_number(evidence: Evidence, key: str, value: float) -> None:
    if key in _WAITS:
        if abs(value) < _LARGEST:  # an int may be too large for a float
            evidence.waits.append((repr(value)[:80], _WAITS[key]))
    elif key in _QUOTA_VALUES:
        evidence.sizes += [float(value)] if abs(value) < _LARGEST else []
    elif key in _CODES or key in _STATUS:
        if key in _STATUS and evidence.status is None and 400 <= value <= 599:  # noqa: PLR2004 - HTTP's errors
            evidence.status = int(value)
        elif isinstance(value, int) and 0 <= value < 10**9:
            evidence.codes.append(str(value))


def _decoded(body: object) -> object:
    if isinstance(body, (bytes, bytearray, memoryview)):
        body = bytes(body[:_MAX_TEXT]).decode("utf-8", "replace")
    if isinstance(body, str):
        body = body[:_MAX_TEXT].lstrip("\ufeff \r\n\t")
        if body.startswith(("event:", "data:")):
            _, _, body = body.partition("data:")
            body = body.split("\n", 1)[0].strip()
    return body


def _quoted(text: str) -> tuple[str, object]:
    """The words before a body that a text is or quotes, and that body: the upstream's, behind a gateway."""
    text = text[:_MAX_TEXT]
    opening, closing = "[]" if text.lstrip().startswith("[") else "{}"
    start = max(0, text.find(opening))
    body = text[start : text.rfind(closing) + 1]
    if text[:start].endswith(("b'", 'b"')):  # as Python prints bytes
        body = body.replace("\\n", " ").replace("\\'", "'")
    parsed = _json(body)
    return (text, None) if parsed is None else (text[:start].strip(), parsed)


def _json(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, (dict, list)) else None
