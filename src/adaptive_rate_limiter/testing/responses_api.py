"""OpenAI's responses API: text, calls of functions and JSON, whole or streamed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.testing.calls import Completion, RequestInfo, Tool, characters, json_size, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping


class Responses:
    def read(self, body: Mapping[str, Any], *, index: int, at: float, path: str) -> RequestInfo:
        given = body["input"]
        tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
        choice = body.get("tool_choice") or "auto"
        form = (body.get("text") or {}).get("format") or {}
        asked = characters(body.get("instructions")) + characters(given) + (json_size(tools) if tools else 0)
        return RequestInfo(
            index=index,
            at=at,
            path=path,
            body=body,
            model=str(body.get("model", "unknown")),
            prompt_tokens=tokens(asked),
            max_tokens=body.get("max_output_tokens"),
            stream=bool(body.get("stream")),
            tools=tuple(Tool(tool["name"], tool.get("parameters") or {}) for tool in tools),
            tool_choice=choice if isinstance(choice, str) else str(choice.get("name", "auto")),
            answered=bool(given)
            and isinstance(given, list)
            and given[-1].get("type") == "function_call_output",
            schema=form.get("schema"),
        )

    def reply(self, call: RequestInfo, completion: Completion) -> dict[str, Any]:
        return _response(call, "completed", _items(call, completion), _usage(call, completion))

    def events(self, call: RequestInfo, completion: Completion) -> list[tuple[bytes, int]]:
        found: list[tuple[str, dict[str, Any], int]] = [
            (kind, {"response": _response(call, "in_progress", [], None)}, 0)
            for kind in ("response.created", "response.in_progress")
        ]
        for position, item in enumerate(_items(call, completion)):
            place = {"item_id": item["id"], "output_index": position}
            opened = {**item, "status": "in_progress"} | ({"content": []} if "content" in item else {})
            found.append(("response.output_item.added", {"output_index": position, "item": opened}, 0))
            found += _deltas(item, place, completion)
            found.append(("response.output_item.done", {"output_index": position, "item": item}, 0))
        found.append(("response.completed", {"response": self.reply(call, completion)}, 0))
        return [(_event(n, kind, fields), count) for n, (kind, fields, count) in enumerate(found)]


def _deltas(
    item: dict[str, Any], place: dict[str, Any], completion: Completion
) -> list[tuple[str, dict[str, Any], int]]:
    if item["type"] == "function_call":
        arguments = item["arguments"]
        size = completion.output_tokens // len(completion.tool_calls)
        return [
            ("response.function_call_arguments.delta", {**place, "delta": arguments}, size),
            ("response.function_call_arguments.done", {**place, "arguments": arguments}, 0),
        ]
    place = {**place, "content_index": 0}
    part = item["content"][0]
    deltas = [
        ("response.output_text.delta", {**place, "delta": text, "logprobs": []}, count)
        for text, count in completion.pieces()
    ]
    return [
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}, 0),
        *deltas,
        ("response.output_text.done", {**place, "text": part["text"], "logprobs": []}, 0),
        ("response.content_part.done", {**place, "part": part}, 0),
    ]


def _event(sequence: int, kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": sequence, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _items(call: RequestInfo, completion: Completion) -> list[dict[str, Any]]:
    if completion.tool_calls:
        return [
            {
                "type": "function_call",
                "id": f"fc_{call.index}_{n}",
                "call_id": f"call_{call.index}_{n}",
                "name": made.name,
                "arguments": json.dumps(made.arguments),
                "status": "completed",
            }
            for n, made in enumerate(completion.tool_calls)
        ]
    part = {"type": "output_text", "text": completion.text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": f"msg_{call.index}", "role": "assistant", "status": "completed"}
    return [{**message, "content": [part]}]


def _usage(call: RequestInfo, completion: Completion) -> dict[str, Any]:
    return {
        "input_tokens": call.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": call.prompt_tokens + completion.output_tokens,
    }


def _response(
    call: RequestInfo, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": f"resp_{call.index}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": call.model,
        "output": output,
        "usage": usage,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
    }
