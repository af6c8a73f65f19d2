"""What a request says of the call, and a response of its usage, in the forms that providers share."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

SHORT = (
    4 * 1024
)  # bytes of a body that is read as a whole; of a longer one (embeddings) its end is looked at first
WHOLE = 256 * 1024  # bytes of a body that is read as a whole if need be
LONGEST_EVENT = 1024 * 1024  # bytes of one line of a stream; OpenAI's last event repeats the whole answer

PROMPTS = frozenset({
    "messages", "input", "prompt", "contents", "system", "systemInstruction", "instructions", "tools", "functions",
    "message", "chat_history", "preamble", "documents", "texts", "query", "inputs",
})  # fmt: skip
OUTPUT_BOUNDS = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "maxOutputTokens",
    "maxTokens",
    "num_predict",
)
BOUND_HOLDERS = ("generationConfig", "generation_config", "inferenceConfig", "options")
WITHOUT_ANSWER = re.compile(r"embed|rerank|moderations|batchEmbedContents|countTokens", re.IGNORECASE)
MODEL_IN_PATH = re.compile(r"/(?:models|model|deployments)/([^/:?]+)")

FIGURES = (
    ("input_tokens", ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count")),
    ("output_tokens", ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count")),
    ("tokens", ("total_tokens", "totalTokenCount", "totalTokens")),
    ("cached_tokens", ("cache_read_input_tokens", "cacheReadInputTokens")),
    ("written_tokens", ("cache_creation_input_tokens", "cacheWriteInputTokens")),
)  # fmt: skip
FIELDS = {name: field for field, names in FIGURES for name in names}
FIRST = frozenset(names[0] for _, names in FIGURES)  # which goes before others that are told beside it
PLAIN = tuple(names[0] for _, names in FIGURES[:3])
OTHERS = frozenset(FIELDS).difference(PLAIN)
NUMBERS = (int, float)
MOST = 1e15  # tokens; beyond, nonsense
DECODER = json.JSONDecoder()
HOLDERS = ("usage", "usageMetadata", "usage_metadata", "meta")
WRAPPERS = ("message", "response", "delta", "metadata", "x_groq")  # of events
LAST_USAGE = re.compile(rb'"usage(?:Metadata)?"\s*:\s*(?=\{)')


def describe(content: bytes, path: str = "") -> dict[str, Any]:
    """Arguments of `Limiter.acquire` for a request with a JSON body; none for anything else."""
    body = _read(content) if content else None
    return described(body, path) if isinstance(body, dict) else {}


def described(body: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`describe` for a body that was read already."""
    call: dict[str, Any] = {}
    named, answered = _told_by(path)
    if isinstance(body.get("model"), str):
        call["model"] = body["model"]
    elif named:
        call["model"] = named
    prompt = [value for name, value in body.items() if name in PROMPTS and value]
    if prompt:
        call["prompt"] = prompt
    if not answered:
        call["max_tokens"] = 0
    elif (bound := _bound(body)) is not None:
        call["max_tokens"] = bound
    return call


@lru_cache(maxsize=256)
def _told_by(path: str) -> tuple[str | None, bool]:
    """The model that a path names (Azure, Gemini, Bedrock), and whether what it asks for has an answer in tokens."""
    named = MODEL_IN_PATH.search(path)
    return named[1] if named else None, WITHOUT_ANSWER.search(path) is None


def _bound(body: dict[str, Any]) -> int | None:
    """The most tokens that the answer may have; for each of `n` answers."""
    bound = _bound_in(body)
    for name in BOUND_HOLDERS:
        if bound is not None:
            break
        if name in body:
            bound = _bound_in(body[name])
    if bound is None:
        return None
    answers = body.get("n")
    return bound * (answers if isinstance(answers, int) and 1 <= answers <= 1000 else 1)  # noqa: PLR2004 - beyond, nonsense


def _bound_in(place: Any) -> int | None:
    if isinstance(place, dict):
        for name in OUTPUT_BOUNDS:
            bound = place.get(name)
            if type(bound) is int and 0 <= bound < 10**15:
                return bound
    return None


def usage_of(body: Any) -> dict[str, float] | None:
    """Arguments of `Reservation.settle` from a response or a stream's event; None if it tells no usage."""
    if type(body) is dict:
        plain = _plain(body.get("usage"))
        if plain is not None:
            return plain
    elif isinstance(body, list) and body:  # Gemini streams one array
        body = body[-1]
    if not isinstance(body, Mapping):
        return None
    usage = _usage_in(body)
    started = False
    if usage is None:
        for wrapper in WRAPPERS:
            inner = body.get(wrapper)
            if usage is None and isinstance(inner, Mapping):
                usage = _usage_in(inner)
                # Anthropic's first event: of the answer, it counts only the start
                started = wrapper == "message"
        if usage is None:
            return _told(body) if "eval_count" in body else None  # Ollama
    told = _told(usage)
    if told and started:
        told.pop("output_tokens", None)
    return told


def usage_in(content: bytes) -> dict[str, float] | None:
    """The usage that a whole body tells. Its last one counts: in a string, quotes are escaped.

    To read a hundred vectors takes milliseconds, and whoever asked for them will read them as well.
    """
    if len(content) > SHORT:
        told = _last_usage_in(content)
        if told or len(content) > WHOLE:
            return told
    return usage_of(_read(content))


def _read(content: bytes | bytearray) -> Any:
    """None if it is no JSON."""
    try:
        try:
            return DECODER.decode(content.decode())
        except ValueError:
            return json.loads(content)  # looks for other encodings, and for a mark of this one
    except (ValueError, RecursionError):
        return None


def _last_usage_in(content: bytes) -> dict[str, float] | None:
    found = None
    for found in LAST_USAGE.finditer(content, max(0, len(content) - WHOLE)):  # noqa: B007 - the last one counts
        pass
    if found is None:
        return None
    try:
        usage, _ = DECODER.raw_decode(content[found.end() :].decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return usage_of({"usage": usage})


def _usage_in(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for name in HOLDERS:
        usage = body.get(name)
        if type(usage) is dict or isinstance(usage, Mapping):
            for inner in ("tokens", "billed_units"):  # Cohere
                held = usage.get(inner)
                if held is not None and isinstance(held, Mapping):
                    return held
            return usage
    return None


def _plain(usage: Any) -> dict[str, float] | None:
    """What `_told` would say of OpenAI's usage, and of that of all who write it like them, in a third of the time."""
    if type(usage) is not dict or not OTHERS.isdisjoint(usage):
        return None
    read, answered, total = map(usage.get, PLAIN)
    if type(read) is not int or type(total) is not int or not 0 <= read <= total < MOST:
        return None
    if answered is None:
        return {"input_tokens": read, "tokens": total}
    if type(answered) is not int or not 0 <= answered < MOST:
        return None
    return {"input_tokens": read, "output_tokens": answered, "tokens": total}


def _told(usage: Mapping[str, Any]) -> dict[str, float] | None:
    told: dict[str, float] = {}
    named: Iterable[tuple[str, Any]] = (
        usage.items() if type(usage) is dict else [(name, usage.get(name)) for name in FIELDS]
    )
    for name, value in named:
        field = FIELDS.get(name)
        if field is None or type(value) not in NUMBERS or not 0 <= value < MOST:
            continue
        if field not in told or name in FIRST:
            told[field] = float(value)
    if "cached_tokens" in told:  # Anthropic counts them apart
        cached, written = told.pop("cached_tokens"), told.pop("written_tokens", 0.0)
        if "input_tokens" in told:
            told["input_tokens"] += cached + written
            told["cached_tokens"] = cached
    else:
        told.pop("written_tokens", None)
    return told or None


class UsageReader:
    """Is shown a response's bytes as they pass, and knows its usage at the end."""

    def __init__(self, content_type: str, encoding: str) -> None:
        self._events = "event-stream" in content_type
        self._lines = self._events or "ndjson" in content_type  # Ollama's streams are lines of JSON
        self._inflate = _inflater(encoding)
        self._kept = bytearray()
        self._readable = encoding in {"", "identity"} or self._inflate is not None
        self.usage: dict[str, float] = {}

    def feed(self, chunk: bytes) -> None:
        if not self._readable:
            return
        try:
            text = self._inflate.decompress(chunk) if self._inflate else chunk
        except zlib.error:
            self._readable = False
            return
        if self._lines:
            self._feed_lines(text)
        else:
            self._kept += text
            if len(self._kept) > 4 * WHOLE:
                del self._kept[: -2 * WHOLE]  # still too long to be taken for a whole body

    def _feed_lines(self, text: bytes) -> None:
        head, newline, rest = text.rpartition(b"\n")
        if newline:
            self._kept += head
            for line in self._kept.split(b"\n"):
                if not self._events and b"eval_count" in line:
                    self._take(line)
                elif self._events and line.startswith(b"data:") and b"sage" in line:
                    self._take(line[5:])
            self._kept = bytearray(rest)
        elif len(self._kept) <= LONGEST_EVENT:
            self._kept += text

    def finish(self) -> dict[str, float] | None:
        """The usage, if the body told one."""
        if not self._events and self._kept:  # also the last of the lines, where no newline ends it
            self.usage.update(usage_in(bytes(self._kept)) or {})
        return self.usage or None

    def _take(self, text: bytes | bytearray) -> None:
        self.usage.update(usage_of(_read(text)) or {})


def _inflater(encoding: str) -> Any:
    if encoding in {"gzip", "deflate"}:
        return zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: tell gzip from zlib by the first bytes
    return None
