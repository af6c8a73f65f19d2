"""Model, size and destination of one call, as arguments of `Limiter.acquire`."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import TextBlock

from adaptive_rate_limiter.core.estimate import guess_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.tools import BaseTool

# The first that is found counts: what Azure limits is the deployment, not the model.
MODEL_NAMES = ("azure_deployment", "deployment_name", "engine", "model", "model_name", "model_id")
BASES = ("api_base", "base_url", "azure_endpoint", "endpoint_url", "region_name")
OUTPUT_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens")
EXTRAS = ("tools", "functions", "response_format")  # parts of the prompt that are no message
MEDIA = {"image": "image", "audio": "audio", "video": "video", "document": "file"}
UNKNOWN = "unknown"  # LlamaIndex's own word for a model that does not say its name
MOST_KINDS, MOST_MODELS = 1024, 1024  # of LLMs and embedding models, and what they say of themselves


def told_by(component: Any) -> Mapping[str, Any]:
    """What an LLM or an embedding model says of each of its calls; of the model, None if its fields do not name it.

    It is asked before each call, since fields may be set; but what they held before was read before.
    """
    values, kind = component.__dict__, component.__class__
    key = values.get("api_key")
    try:
        return _read(kind, key and hash(key), *_fields_of(kind)(values))
    except (KeyError, TypeError):  # a field that was never set, or a value that has no hash
        return _read_anew(kind, values)


@lru_cache(maxsize=MOST_KINDS)
def _names_of(kind: Any) -> tuple[str, ...]:
    return tuple(filter(kind.model_fields.__contains__, (*MODEL_NAMES, *BASES, *OUTPUT_BOUNDS)))


@lru_cache(maxsize=MOST_KINDS)
def _fields_of(kind: Any) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    names = _names_of(kind)
    return itemgetter(*names) if len(names) > 1 else lambda values: tuple(map(values.get, names))


@lru_cache(maxsize=MOST_MODELS, typed=True)
def _read(kind: Any, key: int | None, *given: Any) -> Mapping[str, Any]:
    """Two keys or two hosts of one model are two routes. `key` is Python's own hash, and stays in memory."""
    values = dict(zip(_names_of(kind), given, strict=True))
    named = (_name(values.get(name)) for name in MODEL_NAMES)
    model = next((found for found in named if found and found != UNKNOWN), None)
    bases = [str(values[name]) for name in BASES if values.get(name)]
    told = {"model": model, "route": (kind.class_name(), *bases, key), "estimated": True}
    answered = {"output_tokens": 0.0} if issubclass(kind, BaseEmbedding) else {"max_tokens": _bound(values)}
    return told | answered


def _read_anew(kind: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    key = values.get("api_key")
    return _read.__wrapped__(
        kind, hash(key) if isinstance(key, str) else None, *map(values.get, _names_of(kind))
    )


def model_of(component: Any) -> str:
    """The name under which the provider limits an LLM or an embedding model; else the name of its class."""
    return told_by(component)["model"] or _model_elsewhere(component)


def _model_elsewhere(component: Any) -> str:
    found = getattr(getattr(component, "metadata", None), "model_name", None)
    return found if found and found != UNKNOWN else str(component.class_name())


def describe_llm(llm: Any, prompt: list[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` are the keyword arguments of the call, which go before the fields of the LLM."""
    call = {**told_by(llm), "prompt": prompt}
    if call["model"] is None:
        call["model"] = _model_elsewhere(llm)
    if options or llm.__dict__.get("additional_kwargs"):
        _override(call, options, llm.__dict__.get("additional_kwargs") or {})
    return call


def _override(call: dict[str, Any], options: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    call["prompt"] += [options[name] for name in EXTRAS if options.get(name)]
    call["model"] = _name(options.get("model")) or call["model"]
    for place in (more, options):
        bound = _bound(place)
        call["max_tokens"] = call["max_tokens"] if bound is None else bound


def describe_payload(
    payload: Mapping[str, Any], prompt: list[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The same from what LlamaIndex's events tell of an LLM."""
    prompt += [options[name] for name in EXTRAS if options.get(name)]
    named = _name(options.get("model")) or _name(payload.get("model_name")) or _name(payload.get("model"))
    return {
        "model": named if named and named != UNKNOWN else payload.get("class_name"),
        "prompt": prompt,
        "max_tokens": _bound(options),
        "estimated": True,
    }


def describe_texts(embed_model: Any, tokens: float) -> dict[str, Any]:
    call = {**told_by(embed_model), "input_tokens": tokens}
    if call["model"] is None:
        call["model"] = _model_elsewhere(embed_model)
    return call


def text_tokens(text: str, model: str | None) -> float:
    """Of a text that is embedded."""
    return max(1.0, guess_tokens(text, model))


def messages_prompt(messages: Iterable[ChatMessage]) -> list[Any]:
    """What of messages is charged as input: text, calls of tools, media."""
    prompt: list[Any] = []
    for message in messages:
        try:
            blocks = message.blocks
        except AttributeError:
            prompt.append(str(message))
            continue
        for block in blocks:
            if block.__class__ is TextBlock:
                prompt.append(block.text)
            else:
                prompt += _block_prompt(block)
        if message.additional_kwargs:
            prompt += _calls_beside(message)
    return prompt


def tools_prompt(tools: Sequence[BaseTool]) -> list[Any]:
    return [
        (tool.metadata.name, tool.metadata.description, tool.metadata.get_parameters_dict()) for tool in tools
    ]


def _block_prompt(block: Any) -> list[Any]:
    kind = getattr(block, "block_type", None)
    if kind == "text":
        return [block.text]
    if kind in MEDIA:
        return [{"type": MEDIA[kind]}]
    if kind == "tool_call":
        return [block.tool_name, block.tool_kwargs]
    if kind == "thinking":
        return [block.content]
    if kind == "citable":
        return [part for inner in block.content for part in _block_prompt(inner)]
    return []


def _calls_beside(message: ChatMessage) -> list[Any]:
    """Calls of tools that no block tells."""
    told = any(getattr(block, "block_type", None) == "tool_call" for block in message.blocks)
    calls = None if told else message.additional_kwargs.get("tool_calls")
    return [calls] if calls else []


def _bound(place: Mapping[str, Any]) -> int | None:
    """The most tokens that the answer may have."""
    for name in OUTPUT_BOUNDS:
        bound = place.get(name)
        if isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0:
            return bound
    return None


def _name(value: Any) -> str | None:
    if type(value) is str:
        return value or None
    if isinstance(value, Enum):
        value = value.value
    return str(value) if value else None
