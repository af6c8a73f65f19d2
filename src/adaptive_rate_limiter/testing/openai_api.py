"""OpenAI's chat completions and embeddings; also served by Azure, Groq and most others."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.testing.calls import (
    Completion,
    RequestInfo,
    Tool,
    ToolCall,
    characters,
    json_size,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DIMENSIONS = 64
"""Length of an embedding when the request asks for none; short, so that large batches stay cheap."""


def server_sent(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class ChatCompletions:
    def read(self, body: Mapping[str, Any], *, index: int, at: float, path: str) -> RequestInfo:
        messages = body["messages"]
        tools = [part["function"] for part in body.get("tools") or () if part.get("type") == "function"]
        response_format = body.get("response_format") or {}
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return RequestInfo(
            index=index,
            at=at,
            path=path,
            body=body,
            model=model_of(body, path),
            prompt_tokens=tokens(characters(messages) + (json_size(tools) if tools else 0)),
            max_tokens=limit,
            stream=bool(body.get("stream")),
            choices=body.get("n") or 1,
            tools=tuple(Tool(tool["name"], tool.get("parameters") or {}) for tool in tools),
            tool_choice=_tool_choice(body.get("tool_choice")),
            answered=bool(messages) and messages[-1].get("role") == "tool",
            schema=response_format.get("json_schema", {}).get("schema"),
        )

    def reply(self, call: RequestInfo, completion: Completion) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": completion.text or None, "refusal": None}
        if completion.tool_calls:
            message["tool_calls"] = [
                _tool_call(call, n, made) for n, made in enumerate(completion.tool_calls)
            ]
        choices = [
            {"index": n, "message": message, "logprobs": None, "finish_reason": _finish(completion)}
            for n in range(call.choices)
        ]
        return {**_head(call, "chat.completion"), "choices": choices, "usage": usage(call, completion)}

    def events(self, call: RequestInfo, completion: Completion) -> list[tuple[bytes, int]]:
        head = _head(call, "chat.completion.chunk")
        with_usage = (call.body.get("stream_options") or {}).get("include_usage")

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choices = [
                {"index": n, "delta": delta, "logprobs": None, "finish_reason": finish}
                for n in range(call.choices)
            ]
            return server_sent({**head, "choices": choices, **({"usage": None} if with_usage else {})})

        events = [(chunk({"role": "assistant", "content": ""}), 0)]
        for text, count in completion.pieces():
            delta: dict[str, Any] = {"content": text}
            if completion.tool_calls:
                delta = {
                    "tool_calls": [
                        _tool_call(call, n, made) | {"index": n}
                        for n, made in enumerate(completion.tool_calls)
                    ]
                }
            events.append((chunk(delta), count * call.choices))
        events.append((chunk({}, _finish(completion)), 0))
        if with_usage:
            events.append((server_sent({**head, "choices": [], "usage": usage(call, completion)}), 0))
        return [*events, (DONE, 0)]


class Embeddings:
    def read(self, body: Mapping[str, Any], *, index: int, at: float, path: str) -> RequestInfo:
        return RequestInfo(
            index=index,
            at=at,
            path=path,
            body=body,
            model=model_of(body, path),
            prompt_tokens=sum(_embedded_tokens(text) for text in _inputs(body)),
            max_tokens=None,
            generates=False,
        )

    def reply(self, call: RequestInfo, _completion: Completion) -> dict[str, Any]:
        form = _packed if call.body.get("encoding_format") == "base64" else _vector
        size = call.body.get("dimensions") or DIMENSIONS
        data = [
            {"object": "embedding", "index": n, "embedding": form(zlib.crc32(repr(text).encode()), size)}
            for n, text in enumerate(_inputs(call.body))
        ]
        spent = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
        return {"object": "list", "data": data, "model": call.model, "usage": spent}

    def events(self, call: RequestInfo, completion: Completion) -> list[tuple[bytes, int]]:
        raise NotImplementedError


def model_of(body: Mapping[str, Any], path: str) -> str:
    """Azure names the deployment in the path."""
    _, found, rest = path.partition("/deployments/")
    return rest.partition("/")[0] if found else str(body.get("model", "unknown"))


def models(names: tuple[str, ...] = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "emulator"} for name in names],
    }


def usage(call: RequestInfo, completion: Completion) -> dict[str, Any]:
    out = completion.output_tokens * call.choices
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": out,
        "total_tokens": call.prompt_tokens + out,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _head(call: RequestInfo, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.index}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "system_fingerprint": None,
    }


def _finish(completion: Completion) -> str:
    if completion.tool_calls:
        return "tool_calls"
    return "length" if completion.cut else "stop"


def _tool_call(call: RequestInfo, position: int, made: ToolCall) -> dict[str, Any]:
    function = {"name": made.name, "arguments": json.dumps(made.arguments)}
    return {"id": f"call_{call.index}_{position}", "type": "function", "function": function}


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(choice.get("function", choice).get("name", "auto"))
    return str(choice or "auto")


def _inputs(body: Mapping[str, Any]) -> list[Any]:
    """One text, several texts, one list of token numbers, or several lists of them."""
    given = body["input"]
    return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


def _embedded_tokens(text: str | list[int]) -> int:
    return tokens(len(text)) if isinstance(text, str) else len(text)


@lru_cache(maxsize=256)
def _vector(seed: int, size: int) -> list[float]:
    """A unit vector; the same text has the same one."""
    wave = [math.sin(seed % 9973 + n * (1 + seed % 89)) for n in range(size)]
    length = math.sqrt(sum(value * value for value in wave)) or 1.0
    return [value / length for value in wave]


@lru_cache(maxsize=256)
def _packed(seed: int, size: int) -> str:
    return base64.b64encode(struct.pack(f"<{size}f", *_vector(seed, size))).decode()
