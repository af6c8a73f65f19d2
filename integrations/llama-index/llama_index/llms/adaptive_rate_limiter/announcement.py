"""What LlamaIndex says of a call before it asks its limiter, which it tells nothing itself."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from adaptive_rate_limiter.core.estimate import guess_tokens
from llama_index.llms.adaptive_rate_limiter.calls import (
    describe_llm,
    describe_payload,
    describe_texts,
    messages_prompt,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent


class Announcement:
    """One span of this context whose LLM or embedding model may ask for admission.

    It is in force until that has asked, or its span has ended; then the one before it is again.
    """

    def __init__(self, span_id: str | None) -> None:
        self.span_id = span_id
        self.previous = announced.get() if span_id is not None else None
        announced.set(self)

    def claim(self) -> dict[str, Any]:
        """Arguments of `Limiter.acquire` for the call that asks now."""
        raise NotImplementedError

    def withdraw(self) -> None:
        if announced.get() is self:
            announced.set(self.previous)


announced: ContextVar[Announcement | None] = ContextVar("llama_index_adaptive_announced", default=None)


class LLMCall(Announcement):
    """From a start event; `llm` is None where its span did not pass our handler."""

    def __init__(self, llm: Any, event: LLMChatStartEvent | LLMCompletionStartEvent) -> None:
        super().__init__(event.span_id)
        self._llm = llm
        self._event = event

    def claim(self) -> dict[str, Any]:
        self.withdraw()
        return describe_event(self._event, self._llm)


class TextBatches(Announcement):
    """From the span of an embedding model's method: its texts, in the batches in which it asks.

    The batches of one span are claimed in order, also by tasks that it has started.
    """

    def __init__(self, span_id: str, embed_model: BaseEmbedding, texts: list[str]) -> None:
        super().__init__(span_id)
        self._embed_model = embed_model
        self._texts = texts
        self._place = 0

    def claim(self) -> dict[str, Any]:
        size = self._embed_model.embed_batch_size
        batch = self._texts[self._place : self._place + size]
        self._place += size
        if self._place >= len(self._texts):
            self.withdraw()
        call = describe_texts(self._embed_model, 0.0)
        tokens = sum([max(1.0, guess_tokens(text, call["model"])) for text in batch])
        if _one_by_one(self._embed_model):  # each of its requests is admitted anew, as large as the first
            tokens /= max(1, len(batch))
        call["input_tokens"] = tokens
        return call


def describe_event(event: LLMChatStartEvent | LLMCompletionStartEvent, llm: Any = None) -> dict[str, Any]:
    messages = getattr(event, "messages", None)
    prompt = [event.prompt] if messages is None else messages_prompt(messages)  # type: ignore[union-attr]
    if llm is not None:
        return describe_llm(llm, prompt, event.additional_kwargs)
    return describe_payload(event.model_dict, prompt, event.additional_kwargs)


def texts_in(arguments: Mapping[str, Any]) -> list[str] | None:
    """What a public method of an embedding model was given to embed."""
    texts = arguments.get("texts")
    if texts is not None:
        return list(texts)
    text = arguments.get("text", arguments.get("query"))
    return [text] if isinstance(text, str) else None


def _one_by_one(embed_model: BaseEmbedding) -> bool:
    kind = type(embed_model)
    return (
        kind._get_text_embeddings is BaseEmbedding._get_text_embeddings  # noqa: SLF001 - what a model that takes batches overrides
        and kind._aget_text_embeddings is BaseEmbedding._aget_text_embeddings  # noqa: SLF001
    )
