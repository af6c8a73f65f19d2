"""Embeddings under the same budget: LangChain's have no `rate_limiter` of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from adaptive_rate_limiter import ConfigurationError, Limiter, Reservation
from adaptive_rate_limiter.adapters import in_words, limiter_from
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.http import observe_http

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AdaptiveEmbeddings"]

Vector = list[float]

NAMES = ("model", "model_name", "model_id", "deployment")
MOST_TEXTS = 512  # in one request, where the wrapped one does not say; OpenAI allows 2,048, Cohere 96


class AdaptiveEmbeddings(Embeddings):
    """Wraps any Embeddings: counts the tokens of each batch, and splits a batch that cannot fit.

    `embeddings`: what really embeds. `limiter`: shared with chat models, if they share a key; instead of it,
    any argument of `Limiter`. `batch_size`: texts in one request at the most, by default the wrapped one's
    `chunk_size` or `batch_size`, else 512. Vectors come in the order of the texts.

    Raises ConfigurationError naming the argument and its value.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        limiter: Limiter | None = None,
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if isinstance(embeddings, AdaptiveEmbeddings):
            raise ConfigurationError(
                f"embeddings are limited already, by their own AdaptiveEmbeddings: {in_words(embeddings)}"
            )
        if not isinstance(embeddings, Embeddings):
            raise ConfigurationError(f"embeddings must be LangChain Embeddings, got {in_words(embeddings)}")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ConfigurationError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        self.embeddings = embeddings
        self.limiter = limiter_from(limiter, options)
        named = (getattr(embeddings, name, None) for name in NAMES)
        self.model = next((str(name) for name in named if name), type(embeddings).__name__)
        own = getattr(embeddings, "chunk_size", None) or getattr(embeddings, "batch_size", None)
        self.batch_size = batch_size or (own if isinstance(own, int) and own > 0 else MOST_TEXTS)
        observe_http()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.embeddings, self.limiter, self.batch_size)

    def embed_documents(self, texts: list[str]) -> list[Vector]:
        vectors: list[Vector] = []
        for batch, tokens in self._batches(texts):
            with self.limiter.acquire(self.model, **_size(tokens)) as reservation:
                vectors += self.embeddings.embed_documents(batch)
                _settle(reservation, tokens)
        return vectors

    def embed_query(self, text: str) -> Vector:
        tokens = self._tokens(text)
        with self.limiter.acquire(self.model, **_size(tokens)) as reservation:
            vector = self.embeddings.embed_query(text)
            _settle(reservation, tokens)
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[Vector]:
        vectors: list[Vector] = []
        for batch, tokens in self._batches(texts):
            async with await self.limiter.aacquire(self.model, **_size(tokens)) as reservation:
                vectors += await self.embeddings.aembed_documents(batch)
                _settle(reservation, tokens)
        return vectors

    async def aembed_query(self, text: str) -> Vector:
        tokens = self._tokens(text)
        async with await self.limiter.aacquire(self.model, **_size(tokens)) as reservation:
            vector = await self.embeddings.aembed_query(text)
            _settle(reservation, tokens)
        return vector

    def _tokens(self, text: str) -> float:
        return max(1.0, guess_tokens(text, self.model))

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[str], float]]:
        """Batches that fit: at most `batch_size` texts, and no more tokens than the whole limit holds.

        The limit is looked up for each text, since the reply to the batch before may have told it.
        """
        batch: list[str] = []
        total = 0.0
        for text in texts:
            tokens = self._tokens(text)
            if batch and (len(batch) >= self.batch_size or total + tokens > self.limiter.largest(self.model)):
                yield batch, total
                batch, total = [], 0.0
            batch.append(text)
            total += tokens
        if batch:
            yield batch, total


def _restored(embeddings: Embeddings, limiter: Limiter, batch_size: int) -> AdaptiveEmbeddings:
    return AdaptiveEmbeddings(embeddings, limiter, batch_size=batch_size)


def _size(tokens: float) -> dict[str, Any]:
    return {"input_tokens": tokens, "output_tokens": 0.0, "estimated": True}


def _settle(reservation: Reservation, tokens: float) -> None:
    """Where no response on the wire told the usage, what was counted is the usage; `tokens` alone teaches nothing."""
    if reservation.reply is None:
        reservation.settle(tokens=tokens)
