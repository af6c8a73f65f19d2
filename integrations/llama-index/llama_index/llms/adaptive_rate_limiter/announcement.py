"""What LlamaIndex says of a call before it asks its limiter, which it tells nothing itself."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.llms.adaptive_rate_limiter.calls import (
    describe_llm,
    describe_payload,
    describe_texts,
    messages_prompt,
    text_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent

    from llama_index.llms.adaptive_rate_limiter.spans import Admitted


class Announcement:
    """A method of an LLM or embedding model that has not returned yet, and may ask for admission.

    Once announced, it is in force in this context until it has asked, or its span has ended; then the one before it
    is again. `aside`: what has stepped aside for it.
    """

    __slots__ = ("aside", "instance", "previous", "span_id")

    previous: Announcement | None

    def __init__(self, span_id: str | None, instance: Any, aside: Admitted | None = None) -> None:
        self.span_id = span_id
        self.instance = instance
        self.aside = aside

    def claim(self) -> dict[str, Any]:
        """Arguments of `Limiter.acquire` for the call that asks now."""
        raise NotImplementedError


announced: ContextVar[Announcement | None] = ContextVar("llama_index_adaptive_announced", default=None)


class LLMCall(Announcement):
    """`instance` is None where its span did not pass our handler."""

    __slots__ = ("event",)

    event: LLMChatStartEvent | LLMCompletionStartEvent

    def claim(self) -> dict[str, Any]:
        announced.set(self.previous)
        return describe_event(self.event, self.instance)


class TextBatches(Announcement):
    """From the span of an embedding model's method: its texts, in the batches in which it asks.

    The batches of one span are claimed in order, also by tasks that it has started.
    """

    __slots__ = ("_place", "_texts")

    def announce(self, arguments: Mapping[str, Any]) -> None:
        texts = texts_in(arguments)
        if texts:
            self._texts = texts
            self._place = 0
            self.previous = announced.get()
            announced.set(self)

    def claim(self) -> dict[str, Any]:
        call = describe_texts(self.instance, 0.0)
        if len(self._texts) == 1:
            announced.set(self.previous)
            call["input_tokens"] = text_tokens(self._texts[0], call["model"])
        else:
            call["input_tokens"] = self._batch_tokens(call["model"])
        return call

    def _batch_tokens(self, model: str) -> float:
        size = self.instance.embed_batch_size
        batch = self._texts[self._place : self._place + size]
        self._place += size
        if self._place >= len(self._texts):
            announced.set(self.previous)
        tokens = sum([text_tokens(text, model) for text in batch])
        # One by one: each of its requests is admitted anew, as large as the first.
        return tokens / max(1, len(batch)) if _one_by_one(self.instance) else tokens


class Unannounced(Announcement):
    """A request of `tokens`, 0 if that is not known."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: int) -> None:
        super().__init__(None, None)
        self._tokens = tokens

    def claim(self) -> dict[str, Any]:
        return {"tokens": self._tokens} if self._tokens else {}


def describe_event(event: LLMChatStartEvent | LLMCompletionStartEvent, llm: Any = None) -> dict[str, Any]:
    messages = getattr(event, "messages", None)
    prompt = [event.prompt] if messages is None else messages_prompt(messages)  # type: ignore[union-attr]
    if llm is not None:
        return describe_llm(llm, prompt, event.additional_kwargs)
    return describe_payload(event.model_dict, prompt, event.additional_kwargs)


def texts_in(arguments: Mapping[str, Any]) -> list[str] | None:
    """What a public method of an embedding model was given to embed."""
    for name in ("query", "text"):
        text = arguments.get(name)
        if isinstance(text, str):
            return [text]
    texts = arguments.get("texts")
    return None if texts is None else list(texts)


def _one_by_one(embed_model: BaseEmbedding) -> bool:
    kind = type(embed_model)
    return (
        kind._get_text_embeddings is BaseEmbedding._get_text_embeddings  # noqa: SLF001 - what a model that takes batches overrides
        and kind._aget_text_embeddings is BaseEmbedding._aget_text_embeddings  # noqa: SLF001
    )
