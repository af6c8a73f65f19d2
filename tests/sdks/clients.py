"""The SDKs, each with the forms in which it asks, and the answers of its provider as they are on the wire."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai

from adaptive_rate_limiter.http import AdaptiveTransport, AsyncAdaptiveTransport


def _if_installed(name: str) -> Any:
    """`make compat` has openai and anthropic alone."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


cohere, groq, ollama = map(_if_installed, ("cohere", "groq", "ollama"))
genai, mistral = map(_if_installed, ("google.genai", "mistralai.client"))


def taken_by(sdk: ModuleType) -> Any:
    """The library, httpx or httpx2, whose clients an SDK makes by itself."""
    return httpx if issubclass(sdk.DefaultHttpxClient, httpx.Client) else httpx2


MODEL = "model-1"
BOUND = 140  # tokens that the answer may have, fewer than a limiter that knows no bound reserves
INPUT, OUTPUT = 170, 130  # together more than any of the calls reserves: OpenAI's habit is to keep that
EVENTS = "text/event-stream"
SAID = [{"role": "user", "content": "hello"}]
WORDS = ("one ", "two ", "three")
TEXT = "".join(WORDS)


@dataclass(frozen=True)
class Sdk:
    """One SDK: clients on a transport of ours, the calls of both kinds, and its provider's answers."""

    path: str
    answer: bytes
    stream: Sequence[bytes]
    client: Callable[[str, AdaptiveTransport], Any]
    async_client: Callable[[str, AsyncAdaptiveTransport], Any]
    ask: Callable[[Any], Any]
    read: Callable[[Any], str]
    ask_stream: Callable[[Any], Any]
    piece: Callable[[Any], str]
    stream_type: str = EVENTS


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _event(name: str | None = None, **fields: Any) -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + _json(**fields) + b"\n\n"


# OpenAI's form, which Groq and Mistral share but for the place of a stream's usage

USAGE = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
HEAD = {"id": "1", "created": 1, "model": MODEL}
COMPLETION = _json(
    **HEAD,
    object="chat.completion",
    choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
    usage=USAGE,
)


def _chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event(**HEAD, object="chat.completion.chunk", **{"choices": [choice]} | fields)


SPOKEN = [_chunk({"content": word}) for word in WORDS]
DONE = b"data: [DONE]\n\n"


def _chat(client: Any, **options: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=SAID, max_tokens=BOUND, **options)


def _content(reply: Any) -> str:
    return str(reply.choices[0].message.content)


def _delta(chunk: Any) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def openai_on(library: Any) -> Sdk:
    return Sdk(
        path="/chat/completions",
        answer=COMPLETION,
        stream=[*SPOKEN, _chunk({}, "stop"), _chunk({}, choices=[], usage=USAGE), DONE],
        client=lambda url, transport: openai.OpenAI(
            api_key="k", base_url=url, http_client=library.Client(transport=transport), max_retries=0
        ),
        async_client=lambda url, transport: openai.AsyncOpenAI(
            api_key="k", base_url=url, http_client=library.AsyncClient(transport=transport), max_retries=0
        ),
        ask=_chat,
        read=_content,
        ask_stream=lambda client: _chat(client, stream=True, stream_options={"include_usage": True}),
        piece=_delta,
    )


GROQ = Sdk(
    path="/openai/v1/chat/completions",
    answer=COMPLETION,
    stream=[*SPOKEN, _chunk({}, "stop", x_groq={"id": "1", "usage": USAGE | {"total_time": 0.1}}), DONE],
    client=lambda url, transport: groq.Groq(
        api_key="k", base_url=url, http_client=httpx.Client(transport=transport), max_retries=0
    ),
    async_client=lambda url, transport: groq.AsyncGroq(
        api_key="k", base_url=url, http_client=httpx.AsyncClient(transport=transport), max_retries=0
    ),
    ask=_chat,
    read=_content,
    ask_stream=lambda client: _chat(client, stream=True),
    piece=_delta,
)


class _Mistral:
    """One client serves both kinds of calls: the methods of one have another name."""

    def __init__(self, suffix: str, **options: Any) -> None:
        self._client = mistral.Mistral(api_key="k", **options)
        self._suffix = suffix

    def asks(self, form: str) -> Any:
        method = getattr(self._client.chat, form + self._suffix)
        return method(model=MODEL, messages=SAID, max_tokens=BOUND)


MISTRAL = Sdk(
    path="/v1/chat/completions",
    answer=COMPLETION,
    stream=[*SPOKEN, _chunk({"content": ""}, "stop", usage=USAGE), DONE],
    client=lambda url, transport: _Mistral("", server_url=url, client=httpx2.Client(transport=transport)),
    async_client=lambda url, transport: _Mistral(
        "_async", server_url=url, async_client=httpx2.AsyncClient(transport=transport)
    ),
    ask=lambda client: client.asks("complete"),
    read=_content,
    ask_stream=lambda client: client.asks("stream"),
    piece=lambda event: _delta(event.data),
)

# Anthropic


def _message(client: Any, **options: Any) -> Any:
    return client.messages.create(model=MODEL, messages=SAID, max_tokens=BOUND, **options)


MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": MODEL}
ANTHROPIC = Sdk(
    path="/v1/messages",
    answer=_json(
        **MESSAGE,
        content=[{"type": "text", "text": TEXT}],
        stop_reason="end_turn",
        usage={"input_tokens": INPUT, "output_tokens": OUTPUT},
    ),
    stream=[
        _event(
            "message_start",
            type="message_start",
            message=MESSAGE | {"content": [], "usage": {"input_tokens": INPUT, "output_tokens": 1}},
        ),
        _event(
            "content_block_start",
            type="content_block_start",
            index=0,
            content_block={"type": "text", "text": ""},
        ),
        *(
            _event(
                "content_block_delta",
                type="content_block_delta",
                index=0,
                delta={"type": "text_delta", "text": word},
            )
            for word in WORDS
        ),
        _event("content_block_stop", type="content_block_stop", index=0),
        _event(
            "message_delta",
            type="message_delta",
            delta={"stop_reason": "end_turn"},
            usage={"output_tokens": OUTPUT},
        ),
        _event("message_stop", type="message_stop"),
    ],
    client=lambda url, transport: anthropic.Anthropic(
        api_key="k", base_url=url, http_client=taken_by(anthropic).Client(transport=transport), max_retries=0
    ),
    async_client=lambda url, transport: anthropic.AsyncAnthropic(
        api_key="k",
        base_url=url,
        http_client=taken_by(anthropic).AsyncClient(transport=transport),
        max_retries=0,
    ),
    ask=_message,
    read=lambda reply: str(reply.content[0].text),
    ask_stream=lambda client: _message(client, stream=True),
    piece=lambda event: event.delta.text if event.type == "content_block_delta" else "",
)

# Gemini


def _candidate(text: str, output: int) -> dict[str, Any]:
    return {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}],
        "usageMetadata": {
            "promptTokenCount": INPUT,
            "candidatesTokenCount": output,
            "totalTokenCount": INPUT + output,
        },
    }


def gemini_on(library: Any) -> Sdk:
    def asks(client: Any, form: str) -> Any:
        return getattr(client.models, form)(
            model=MODEL, contents="hello", config={"max_output_tokens": BOUND}
        )

    return Sdk(
        path=f"/v1/models/{MODEL}:",
        answer=_json(**_candidate(TEXT, OUTPUT)),
        stream=[
            _event(**_candidate(word, sofar)) for word, sofar in zip(WORDS, (10, 20, OUTPUT), strict=True)
        ],
        client=lambda url, transport: genai.Client(
            api_key="k", http_options={"base_url": url, "httpx_client": library.Client(transport=transport)}
        ),
        async_client=lambda url, transport: (
            genai.Client(
                api_key="k",
                http_options={
                    "base_url": url,
                    "httpx_async_client": library.AsyncClient(transport=transport),
                },
            ).aio
        ),
        ask=lambda client: asks(client, "generate_content"),
        read=lambda reply: str(reply.text),
        ask_stream=lambda client: asks(client, "generate_content_stream"),
        piece=lambda chunk: str(chunk.text),
    )


# Cohere


def _cohere_asks(client: Any, form: str) -> Any:
    return getattr(client, form)(model=MODEL, messages=SAID, max_tokens=BOUND)


BILLED = {
    "billed_units": {"input_tokens": 3, "output_tokens": OUTPUT},
    "tokens": {"input_tokens": INPUT, "output_tokens": OUTPUT},
}
COHERE = Sdk(
    path="/v2/chat",
    answer=_json(
        id="1",
        finish_reason="COMPLETE",
        message={"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
        usage=BILLED,
    ),
    stream=[
        _event("message-start", type="message-start", id="1", delta={"message": {"role": "assistant"}}),
        *(
            _event(
                "content-delta",
                type="content-delta",
                index=0,
                delta={"message": {"content": {"text": word}}},
            )
            for word in WORDS
        ),
        _event("message-end", type="message-end", delta={"finish_reason": "COMPLETE", "usage": BILLED}),
    ],
    client=lambda url, transport: cohere.ClientV2(
        "k", base_url=url, httpx_client=httpx.Client(transport=transport), max_retries=0
    ),
    async_client=lambda url, transport: cohere.AsyncClientV2(
        "k", base_url=url, httpx_client=httpx.AsyncClient(transport=transport), max_retries=0
    ),
    ask=lambda client: _cohere_asks(client, "chat"),
    read=lambda reply: str(reply.message.content[0].text),
    ask_stream=lambda client: _cohere_asks(client, "chat_stream"),
    piece=lambda event: event.delta.message.content.text if event.type == "content-delta" else "",
)

# Ollama, whose streams are lines of JSON


def _ollama_asks(client: Any, **options: Any) -> Any:
    return client.chat(model=MODEL, messages=SAID, options={"num_predict": BOUND}, **options)


def _line(word: str, **fields: Any) -> bytes:
    message = {"role": "assistant", "content": word}
    return _json(model=MODEL, message=message, **{"done": False} | fields) + b"\n"


COUNTED = {"done": True, "prompt_eval_count": INPUT, "eval_count": OUTPUT}
OLLAMA = Sdk(
    path="/api/chat",
    answer=_line(TEXT, **COUNTED),
    stream=[*(_line(word) for word in WORDS), _line("", **COUNTED)],
    stream_type="application/x-ndjson",
    client=lambda url, transport: ollama.Client(url, transport=transport),
    async_client=lambda url, transport: ollama.AsyncClient(url, transport=transport),
    ask=_ollama_asks,
    read=lambda reply: str(reply.message.content),
    ask_stream=lambda client: _ollama_asks(client, stream=True),
    piece=lambda part: str(part.message.content),
)

SDKS = {"openai on httpx": openai_on(httpx), "anthropic": ANTHROPIC}
if taken_by(openai) is httpx2:
    SDKS["openai on httpx2"] = openai_on(httpx2)
if mistral:
    SDKS["mistralai"] = MISTRAL
if groq:
    SDKS["groq"] = GROQ
if cohere:
    SDKS["cohere"] = COHERE
if ollama:
    SDKS["ollama"] = OLLAMA
if genai:
    SDKS |= {"google-genai on httpx": gemini_on(httpx), "google-genai on httpx2": gemini_on(httpx2)}
