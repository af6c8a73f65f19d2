"""Anthropic's messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.testing.calls import Completion, RequestInfo, Tool, characters, json_size, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

CHOICES = {"any": "required", "none": "none", "auto": "auto"}


class Messages:
    def read(self, body: Mapping[str, Any], *, index: int, at: float, path: str) -> RequestInfo:
        messages = body["messages"]
        tools = [tool for tool in body.get("tools") or () if "input_schema" in tool]
        choice = body.get("tool_choice") or {}
        return RequestInfo(
            index=index,
            at=at,
            path=path,
            body=body,
            model=str(body.get("model", "unknown")),
            prompt_tokens=tokens(
                characters(body.get("system")) + characters(messages) + (json_size(tools) if tools else 0)
            ),
            max_tokens=body["max_tokens"],
            stream=bool(body.get("stream")),
            tools=tuple(Tool(tool["name"], tool["input_schema"]) for tool in tools),
            tool_choice=choice.get("name") or CHOICES.get(choice.get("type", "auto"), "auto"),
            answered=_answered(messages),
            schema=_schema(body),
        )

    def reply(self, call: RequestInfo, completion: Completion) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": completion.text}] if completion.text else []
        content += _tool_uses(call, completion)
        return {
            **_head(call),
            "content": content,
            "stop_reason": _stop_reason(completion),
            "usage": _usage(call, completion.output_tokens),
        }

    def events(self, call: RequestInfo, completion: Completion) -> list[tuple[bytes, int]]:
        start = {**_head(call), "content": [], "stop_reason": None, "usage": _usage(call, 1)}
        events = [(_event("message_start", message=start), 0)]
        for position, (block, deltas) in enumerate(_blocks(call, completion)):
            events.append((_event("content_block_start", index=position, content_block=block), 0))
            for delta, count in deltas:
                events.append((_event("content_block_delta", index=position, delta=delta), count))
            events.append((_event("content_block_stop", index=position), 0))
        delta = {"stop_reason": _stop_reason(completion), "stop_sequence": None}
        usage = {"output_tokens": completion.output_tokens}
        events.append((_event("message_delta", delta=delta, usage=usage), 0))
        return [*events, (_event("message_stop"), 0)]


Block = tuple[dict[str, Any], list[tuple[dict[str, Any], int]]]


def _blocks(call: RequestInfo, completion: Completion) -> list[Block]:
    if not completion.tool_calls:
        deltas = [({"type": "text_delta", "text": text}, count) for text, count in completion.pieces()]
        return [({"type": "text", "text": ""}, deltas)]
    counts = [0] * (len(completion.tool_calls) - 1) + [completion.output_tokens]
    return [
        (
            use | {"input": {}},
            [({"type": "input_json_delta", "partial_json": json.dumps(use["input"])}, count)],
        )
        for use, count in zip(_tool_uses(call, completion), counts, strict=True)
    ]


def _tool_uses(call: RequestInfo, completion: Completion) -> list[dict[str, Any]]:
    return [
        {
            "type": "tool_use",
            "id": f"toolu_{call.index}_{n}",
            "name": made.name,
            "input": dict(made.arguments),
        }
        for n, made in enumerate(completion.tool_calls)
    ]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _head(call: RequestInfo) -> dict[str, Any]:
    return {
        "id": f"msg_{call.index}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "stop_sequence": None,
    }


def _usage(call: RequestInfo, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": call.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop_reason(completion: Completion) -> str:
    if completion.tool_calls:
        return "tool_use"
    return "max_tokens" if completion.cut else "end_turn"


def _answered(messages: list[Any]) -> bool:
    content = messages[-1].get("content") if messages else None
    return isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)


def _schema(body: Mapping[str, Any]) -> Any:
    wanted = body.get("output_format") or (body.get("output_config") or {}).get("format") or {}
    return wanted.get("schema")
