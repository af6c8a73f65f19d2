"""What a request body says of the call, and a response body of its usage, in the forms that providers share."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

LARGEST = 16 * 1024 * 1024  # bytes of a response that are kept to find its usage

PROMPTS = ("messages", "input", "prompt", "contents", "system", "tools", "functions", "instructions")
OUTPUT_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def describe(content: bytes) -> dict[str, Any]:
    """Arguments of `Limiter.acquire` for a JSON request body; none for anything else."""
    try:
        body = json.loads(content) if content else None
    except (ValueError, UnicodeDecodeError):
        return {}
    if not isinstance(body, dict):
        return {}
    described: dict[str, Any] = {}
    if isinstance(body.get("model"), str):
        described["model"] = body["model"]
    prompt = [body[name] for name in PROMPTS if body.get(name)]
    if prompt:
        described["prompt"] = prompt
    for name in OUTPUT_BOUNDS:
        bound = body.get(name)
        if isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0:
            described["max_tokens"] = bound
            break
    if "input" in body and "messages" not in body and body.keys() & {"encoding_format", "dimensions"}:
        described["max_tokens"] = 0  # embeddings have no answer
    return described


def usage_of(body: Any) -> dict[str, float] | None:
    """Arguments of `Reservation.settle` from a response or a stream's event; None if it tells no usage."""
    if not isinstance(body, Mapping):
        return None
    usage = body.get("usage") or body.get("usageMetadata")
    for wrapper in ("message", "response"):  # Anthropic's first event, OpenAI's Responses events
        inner = body.get(wrapper)
        if usage is None and isinstance(inner, Mapping):
            usage = inner.get("usage")
    if not isinstance(usage, Mapping):
        return None
    told = {
        "input_tokens": _first(usage, "prompt_tokens", "input_tokens", "promptTokenCount"),
        "output_tokens": _first(usage, "completion_tokens", "output_tokens", "candidatesTokenCount"),
        "tokens": _first(usage, "total_tokens", "totalTokenCount"),
    }
    found = {name: value for name, value in told.items() if value is not None}
    return found or None


def _first(usage: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:  # noqa: PLR2004 - beyond, nonsense
            return float(value)
    return None


class UsageReader:
    """Is shown a response's bytes as they pass, and knows its usage at the end."""

    def __init__(self, content_type: str, encoding: str) -> None:
        self._events = "event-stream" in content_type
        self._inflate = _inflater(encoding)
        self._kept = bytearray()
        self._readable = not encoding or self._inflate is not None
        self.usage: dict[str, float] = {}

    def feed(self, chunk: bytes) -> None:
        if not self._readable or len(self._kept) > LARGEST:
            return
        try:
            self._kept += self._inflate.decompress(chunk) if self._inflate else chunk
        except zlib.error:
            self._readable = False
            return
        if self._events:
            *lines, rest = self._kept.split(b"\n")
            self._kept = bytearray(rest)
            for line in lines:
                if line.startswith(b"data:") and b'sage' in line:
                    self._take(line[5:])

    def finish(self) -> dict[str, float] | None:
        """The usage, if the body told one."""
        if not self._events and self._kept:
            self._take(bytes(self._kept))
        return self.usage or None

    def _take(self, text: bytes | bytearray) -> None:
        try:
            usage = usage_of(json.loads(text))
        except (ValueError, UnicodeDecodeError):
            return
        self.usage.update(usage or {})


def _inflater(encoding: str) -> Any:
    if encoding in {"gzip", "deflate"}:
        return zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: tell gzip from zlib by the first bytes
    return None
