"""Model, size and destination of one call, as arguments of `Limiter.acquire`."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.tools import BaseTool

# The first that is found counts: what Azure limits is the deployment, not the model.
MODEL_NAMES = ("azure_deployment", "deployment_name", "engine", "model", "model_name", "model_id")
BASES = ("api_base", "base_url", "azure_endpoint", "endpoint_url", "region_name")
OUTPUT_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens")
EXTRAS = ("tools", "functions", "response_format")  # parts of the prompt that are no message
MEDIA = {"image": "image", "audio": "audio", "video": "video", "document": "file"}
UNKNOWN = "unknown"  # LlamaIndex's own word for a model that does not say its name
TYPES = 1024  # of LLMs and embedding models whose fields are remembered


class Fields(NamedTuple):
    """Of a kind of LLM or embedding model: its name, and which of the names above are fields of it."""

    class_name: str
    model_names: tuple[str, ...]
    bases: tuple[str, ...]
    output_bounds: tuple[str, ...]


@lru_cache(maxsize=TYPES)
def _fields_of(kind: Any) -> Fields:
    declared = kind.model_fields
    found = [tuple(filter(declared.__contains__, names)) for names in (MODEL_NAMES, BASES, OUTPUT_BOUNDS)]
    return Fields(kind.class_name(), *found)


def describe_llm(llm: Any, prompt: list[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` are the keyword arguments of the call, which go before the fields of the LLM."""
    named = None
    if options:
        prompt += [options[name] for name in EXTRAS if options.get(name)]
        named = _name(options.get("model"))
    return {
        "model": named or model_of(llm),
        "prompt": prompt,
        "max_tokens": _bound_of(llm, options),
        "route": _route(llm),
        "estimated": True,
    }


def describe_payload(
    payload: Mapping[str, Any], prompt: list[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The same from what LlamaIndex's events tell of an LLM."""
    prompt += [options[name] for name in EXTRAS if options.get(name)]
    named = _name(options.get("model")) or _name(payload.get("model_name")) or _name(payload.get("model"))
    return {
        "model": named if named and named != UNKNOWN else payload.get("class_name"),
        "prompt": prompt,
        "max_tokens": _bound(options, OUTPUT_BOUNDS),
        "estimated": True,
    }


def describe_texts(embed_model: Any, model: str, tokens: float) -> dict[str, Any]:
    return {
        "model": model,
        "input_tokens": tokens,
        "output_tokens": 0.0,
        "route": _route(embed_model),
        "estimated": True,
    }


def model_of(component: Any) -> str:
    """The name under which the provider limits an LLM or an embedding model; else the name of its class."""
    values = component.__dict__  # pydantic takes microseconds to say that there is no such field
    for name in _fields_of(component.__class__).model_names:
        if (found := _name(values.get(name))) and found != UNKNOWN:
            return found
    found = getattr(getattr(component, "metadata", None), "model_name", None)
    return found if found and found != UNKNOWN else str(component.class_name())


def messages_prompt(messages: Iterable[ChatMessage]) -> list[Any]:
    """What of messages is charged as input: text, calls of tools, media."""
    prompt: list[Any] = []
    for message in messages:
        blocks = getattr(message, "blocks", None)
        if blocks is None:
            prompt.append(str(message))
            continue
        called = _blocks_prompt(blocks, prompt)
        if not called and (calls := message.additional_kwargs.get("tool_calls")):
            prompt.append(calls)
    return prompt


def tools_prompt(tools: Sequence[BaseTool]) -> list[Any]:
    return [
        (tool.metadata.name, tool.metadata.description, tool.metadata.get_parameters_dict()) for tool in tools
    ]


def _blocks_prompt(blocks: Iterable[Any], prompt: list[Any]) -> bool:
    called = False
    for block in blocks:
        kind = getattr(block, "block_type", None)
        if kind == "text":
            prompt.append(block.text)
        elif kind in MEDIA:
            prompt.append({"type": MEDIA[kind]})
        elif kind == "tool_call":
            called = True
            prompt += (block.tool_name, block.tool_kwargs)
        elif kind == "thinking":
            prompt.append(block.content)
        elif kind == "citable":
            _blocks_prompt(block.content, prompt)
    return called


def _bound_of(llm: Any, options: Mapping[str, Any]) -> int | None:
    """The most tokens that the answer may have, from the first place that tells it."""
    values = llm.__dict__
    for place in (options, values.get("additional_kwargs")):
        if place and (bound := _bound(place, OUTPUT_BOUNDS)) is not None:
            return bound
    return _bound(values, _fields_of(llm.__class__).output_bounds)


def _bound(place: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        bound = place.get(name)
        if isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0:
            return bound
    return None


def _route(component: Any) -> tuple[Any, ...]:
    """Two keys or two hosts of one model are two routes. The key's hash is Python's own, and stays in memory."""
    values, fields = component.__dict__, _fields_of(component.__class__)
    key = values.get("api_key")
    bases = map(str, filter(None, map(values.get, fields.bases)))
    return (fields.class_name, *bases, hash(key) if isinstance(key, str) else None)


def _name(value: Any) -> str | None:
    if type(value) is str:
        return value or None
    if isinstance(value, Enum):
        value = value.value
    return str(value) if value else None
