"""Embeddings under the same budget: each batch is counted in tokens, and one that cannot fit is split."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, SerializeAsAny, WithJsonSchema
from llama_index.core.embeddings.loading import RECOGNIZED_EMBEDDINGS, load_embed_model

from adaptive_rate_limiter import CapacityExceededError, ConfigurationError, Limiter
from adaptive_rate_limiter.adapters import in_words, limiter_from
from adaptive_rate_limiter.http import observe_http
from llama_index.llms.adaptive_rate_limiter.attempts import Attempts
from llama_index.llms.adaptive_rate_limiter.calls import describe_texts, model_of, text_tokens
from llama_index.llms.adaptive_rate_limiter.limiter import AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter.responses import settle_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["AdaptiveEmbedding"]

Vector = list[float]

MIRRORED = ("callback_manager", "embed_batch_size", "embeddings_cache", "model_name", "num_workers")


class AdaptiveEmbedding(BaseEmbedding):
    """Wraps any embedding model: counts the tokens of each batch, and splits a batch that cannot fit.

    `embed_model`: what really embeds. `limiter`: shared with LLMs, if they share a key; instead of it, any
    argument of `Limiter`. Batch size, workers and cache are those of `embed_model` unless given; what is found in
    the cache costs nothing. Refusals are treated as by `AdaptiveLLM`.

    Raises ConfigurationError naming the argument and its value.
    """

    embed_model: SerializeAsAny[BaseEmbedding] = Field(description="The model that really embeds.")
    limiter: Annotated[Limiter, WithJsonSchema({"type": "object"})] = Field(
        description="Paces the batches.", exclude=True, repr=False
    )

    def __init__(self, embed_model: BaseEmbedding, limiter: Limiter | None = None, **options: Any) -> None:
        _check_embed_model(embed_model)
        own = {name: options.pop(name) for name in MIRRORED if name in options}
        _check_rate_limiter(options.pop("rate_limiter", None))
        chosen = limiter_from(limiter, options)
        mirrored = {name: getattr(embed_model, name) for name in MIRRORED if name not in own}
        super().__init__(embed_model=embed_model, limiter=chosen, **mirrored, **own)  # type: ignore[call-arg]
        observe_http()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rate_limiter":
            _check_rate_limiter(value)
        super().__setattr__(name, value)

    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveEmbedding"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        data = {**data, **kwargs}
        if isinstance(data.get("embed_model"), dict):
            data["embed_model"] = _load(data["embed_model"])
        return super().from_dict(data)

    # What BaseEmbedding asks for, after its cache, in its batches

    def _get_query_embedding(self, query: str) -> Vector:
        send = partial(self.embed_model._get_query_embedding, query)
        return self._attempts(query).call(send, settle_vectors)

    async def _aget_query_embedding(self, query: str) -> Vector:
        send = partial(self.embed_model._aget_query_embedding, query)
        return await self._attempts(query).acall(send, settle_vectors)

    def _get_text_embedding(self, text: str) -> Vector:
        send = partial(self.embed_model._get_text_embedding, text)
        return self._attempts(text).call(send, settle_vectors)

    async def _aget_text_embedding(self, text: str) -> Vector:
        send = partial(self.embed_model._aget_text_embedding, text)
        return await self._attempts(text).acall(send, settle_vectors)

    def _get_text_embeddings(self, texts: list[str]) -> list[Vector]:
        if type(self.embed_model)._get_text_embeddings is BaseEmbedding._get_text_embeddings:
            return super()._get_text_embeddings(texts)  # it sends one by one
        vectors: list[Vector] = []
        batches = _Batches(self, texts)
        for batch, tokens in batches:
            attempts = Attempts(self.limiter, describe_texts(self.embed_model, tokens))
            try:
                send = partial(self.embed_model._get_text_embeddings, batch)
                vectors += attempts.call(send, settle_vectors)
            except Exception as error:  # noqa: BLE001 - raised on, unless it was too large
                batches.split(batch, attempts, error)
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Vector]:
        if type(self.embed_model)._aget_text_embeddings is BaseEmbedding._aget_text_embeddings:
            return await super()._aget_text_embeddings(texts)
        vectors: list[Vector] = []
        batches = _Batches(self, texts)
        for batch, tokens in batches:
            attempts = Attempts(self.limiter, describe_texts(self.embed_model, tokens))
            try:
                send = partial(self.embed_model._aget_text_embeddings, batch)
                vectors += await attempts.acall(send, settle_vectors)
            except Exception as error:  # noqa: BLE001 - raised on, unless it was too large
                batches.split(batch, attempts, error)
        return vectors

    def _attempts(self, text: str) -> Attempts:
        tokens = text_tokens(text, self.model_name)
        return Attempts(self.limiter, describe_texts(self.embed_model, tokens))


# LlamaIndex makes a span of each of these. The public methods and the wrapped model have theirs: a third, between
# them, tells nothing, and takes as long as the limiter.
for _name in (
    "_get_query_embedding", "_aget_query_embedding", "_get_text_embedding", "_aget_text_embedding",
    "_get_text_embeddings", "_aget_text_embeddings",
):  # fmt: skip
    _method = getattr(AdaptiveEmbedding, _name)
    setattr(AdaptiveEmbedding, _name, getattr(_method, "__wrapped__", _method))


class _Batches:
    """Texts in order, in batches that fit under what is known of the limit when each of them is sent."""

    def __init__(self, embedding: AdaptiveEmbedding, texts: list[str]) -> None:
        self._embedding = embedding
        self._waiting = [texts] if texts else []  # the next at the end

    def __iter__(self) -> Iterator[tuple[list[str], float]]:
        while self._waiting:
            texts = self._waiting.pop()
            count, tokens = self._fitting(texts)
            if count < len(texts):
                self._waiting.append(texts[count:])
            yield texts[:count], tokens

    def _fitting(self, texts: list[str]) -> tuple[int, float]:
        most = self._embedding.limiter.largest(model_of(self._embedding.embed_model))
        total = 0.0
        for count, text in enumerate(texts):
            tokens = text_tokens(text, self._embedding.model_name)
            if count and total + tokens > most:
                return count, total
            total += tokens
        return len(texts), total

    def split(self, batch: list[str], attempts: Attempts, error: Exception) -> None:
        """After a failure: two halves instead, if the batch was too large; any other error is raised on."""
        never = isinstance(error, CapacityExceededError) and error.retry_after is None
        if len(batch) == 1 or not (never or attempts.too_large):
            raise error
        middle = len(batch) // 2
        self._waiting += [batch[middle:], batch[:middle]]


def _check_embed_model(embed_model: Any) -> None:
    if isinstance(embed_model, AdaptiveEmbedding):
        raise ConfigurationError("embed_model is limited already, by its own AdaptiveEmbedding")
    if not isinstance(embed_model, BaseEmbedding):
        raise ConfigurationError(
            f"embed_model must be a LlamaIndex embedding model, got {in_words(embed_model)}"
        )
    if isinstance(embed_model.rate_limiter, AdaptiveLimiter):
        raise ConfigurationError(
            f"embed_model is limited already, by rate_limiter={embed_model.rate_limiter!r}"
        )


def _check_rate_limiter(rate_limiter: Any) -> None:
    if rate_limiter is not None:
        raise ConfigurationError(
            f"AdaptiveEmbedding is limited by its limiter=, not by rate_limiter={rate_limiter!r}"
        )


def _load(data: dict[str, Any]) -> BaseEmbedding:
    """An embedding model from its dictionary: one that LlamaIndex recognizes, or any class that is imported."""
    name = data.get("class_name")
    if name not in RECOGNIZED_EMBEDDINGS:
        known = [BaseEmbedding]
        for kind in known:
            known += kind.__subclasses__()
        for kind in known:
            if kind.class_name() == name:
                return kind.from_dict(data)
    return load_embed_model(data)


RECOGNIZED_EMBEDDINGS[AdaptiveEmbedding.class_name()] = AdaptiveEmbedding
