"""One call, whatever API it came through: what was asked, what it costs, what is answered."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adaptive_rate_limiter.testing.schemas import sample

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 85
"""What OpenAI counts for an image of low detail; here each image costs as much."""
PIECES = 8
"""A streamed answer comes in at most so many pieces of text."""


@dataclass(frozen=True)
class Tool:
    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class RequestInfo:
    """A request as `latency`, `output_tokens`, `tool_calls` and `faults` see it."""

    index: int
    """0 for the first request that arrived, whatever became of it."""
    at: float
    """Seconds since the first request."""
    path: str
    body: Mapping[str, Any]
    model: str
    prompt_tokens: int
    max_tokens: int | None
    stream: bool = False
    generates: bool = True
    """False for embeddings."""
    choices: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """auto, none, required, or the name of a tool."""
    answered: bool = False
    """The last message is a tool's result."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the answer has to match."""


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Completion:
    text: str
    tool_calls: Sequence[ToolCall]
    output_tokens: int
    cut: bool = False
    """It ends at `max_tokens`."""

    def pieces(self) -> list[tuple[str, int]]:
        """The text in order, each piece with its tokens; the tokens of tool calls come with the last."""
        size = max(1, math.ceil(len(self.text) / PIECES / CHARACTERS_PER_TOKEN)) * CHARACTERS_PER_TOKEN
        texts = [self.text[start : start + size] for start in range(0, len(self.text), size)] or [""]
        counts = [tokens(len(text)) for text in texts]
        counts[-1] += self.output_tokens - sum(counts)
        return list(zip(texts, counts, strict=True))


OutputTokens = int | Callable[[RequestInfo], int]
Calls = ToolCall | str | Sequence[ToolCall | str] | None
ToolScript = bool | Callable[[RequestInfo], Calls]


class Endpoint(Protocol):
    """One API: how it asks and how it answers."""

    def read(self, body: Mapping[str, Any], *, index: int, at: float, path: str) -> RequestInfo: ...
    def reply(self, call: RequestInfo, completion: Completion, /) -> dict[str, Any]: ...
    def events(self, call: RequestInfo, completion: Completion, /) -> list[tuple[bytes, int]]:
        """Server-sent events, each with the output tokens that it carries."""


def tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def characters(content: Any) -> int:
    """Of a prompt in any of the APIs' forms: text, lists of parts or messages, calls and results of tools."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list | tuple):
        return sum(characters(part) for part in content)
    if not isinstance(content, dict):
        return 0
    if "image" in content.get("type", ""):
        return IMAGE_TOKENS * CHARACTERS_PER_TOKEN
    count = sum(
        characters(content.get(key)) for key in ("text", "content", "output", "arguments", "tool_calls")
    )
    if "input" in content:
        count += json_size(content["input"])
    if "function" in content:
        count += characters(content["function"])
    return count


def json_size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def compose(call: RequestInfo, output_tokens: OutputTokens, script: ToolScript) -> Completion:
    """What the model says: calls of tools, JSON for the schema, or filler of the wanted length."""
    calls = tool_calls(call, script)
    if calls:
        size = sum(len(made.name) + json_size(made.arguments) for made in calls)
        return Completion("", calls, max(1, tokens(size)))
    if call.schema is not None:
        text = json.dumps(sample(call.schema))
        return Completion(text, (), tokens(len(text)))
    wanted = output_tokens if isinstance(output_tokens, int) else output_tokens(call)
    count = max(1, wanted if call.max_tokens is None else min(wanted, call.max_tokens))
    return Completion(filler(count), (), count, cut=count < wanted)


def filler(count: int) -> str:
    """Text of `count` tokens."""
    return ("word and more text " * math.ceil(count * CHARACTERS_PER_TOKEN / 19))[
        : count * CHARACTERS_PER_TOKEN - 1
    ] + "."


def tool_calls(call: RequestInfo, script: ToolScript) -> list[ToolCall]:
    if callable(script):
        wanted = script(call)
        chosen = [] if wanted is None else [wanted] if isinstance(wanted, str | ToolCall) else list(wanted)
        return [_filled(call, one) for one in chosen]
    if not call.tools or not script or call.tool_choice == "none":
        return []
    if call.tool_choice == "auto" and call.answered:
        return []
    named = [tool for tool in call.tools if tool.name == call.tool_choice]
    return [_filled(call, (named or call.tools)[0].name)]


def _filled(call: RequestInfo, chosen: ToolCall | str) -> ToolCall:
    if isinstance(chosen, ToolCall):
        return chosen
    schema = next((tool.schema for tool in call.tools if tool.name == chosen), {})
    arguments = sample(schema)
    return ToolCall(chosen, arguments if isinstance(arguments, dict) else {})
