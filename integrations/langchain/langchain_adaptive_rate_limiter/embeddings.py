"""Embeddings under the same budget: LangChain's have no `rate_limiter` of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from adaptive_rate_limiter import Limiter, Reservation
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.http import observe_http
from langchain_core.embeddings import Embeddings

Vector = list[float]


class AdaptiveEmbeddings(Embeddings):
    """Wraps any Embeddings: counts the tokens of each batch, and splits a batch that cannot fit.

    `embeddings`: what really embeds. `limiter`: shared with chat models, if they share a key; else any
    argument of `Limiter`. `batch_size`: texts in one request at the most, by default the wrapped one's
    `chunk_size` or `batch_size`, else 512. Vectors come in the order of the texts.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        limiter: Limiter | None = None,
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        self.embeddings = embeddings
        self.limiter = limiter or Limiter(**options)
        self.model = next(
            (
                str(value)
                for name in ("model", "model_name", "model_id", "deployment")
                if (value := getattr(embeddings, name, None))
            ),
            type(embeddings).__name__,
        )
        own = getattr(embeddings, "chunk_size", None) or getattr(embeddings, "batch_size", None)
        self.batch_size = batch_size or (own if isinstance(own, int) else 512)
        self._http = observe_http()

    def embed_documents(self, texts: list[str]) -> list[Vector]:
        vectors: list[Vector] = []
        for batch, tokens in self._batches(texts):
            vectors += self._limited(lambda batch=batch: self.embeddings.embed_documents(batch), tokens)  # type: ignore[misc]
        return vectors

    def embed_query(self, text: str) -> Vector:
        return self._limited(lambda: self.embeddings.embed_query(text), guess_tokens(text, self.model))

    async def aembed_documents(self, texts: list[str]) -> list[Vector]:
        vectors: list[Vector] = []
        for batch, tokens in self._batches(texts):
            vectors += await self._alimited(
                lambda batch=batch: self.embeddings.aembed_documents(batch),  # type: ignore[misc]
                tokens,
            )
        return vectors

    async def aembed_query(self, text: str) -> Vector:
        return await self._alimited(
            lambda: self.embeddings.aembed_query(text), guess_tokens(text, self.model)
        )

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[str], float]]:
        """Batches that fit: at most `batch_size` texts, and no more tokens than the whole limit holds.

        The limit is looked up before each batch, since the first reply may have told it.
        """
        batch: list[str] = []
        total = 0.0
        for text in texts:
            tokens = max(1.0, guess_tokens(text, self.model))
            most = self.limiter.largest(self.model)
            if batch and (len(batch) >= self.batch_size or total + tokens > most):
                yield batch, total
                batch, total = [], 0.0
            batch.append(text)
            total += tokens
        if batch:
            yield batch, total

    def _limited(self, embed: Callable[[], Any], tokens: float) -> Any:
        reservation = self.limiter.acquire(self.model, **_size(tokens))
        with reservation:
            result = embed()
            _settle(reservation, tokens)
            return result

    async def _alimited(self, embed: Callable[[], Awaitable[Any]], tokens: float) -> Any:
        reservation = await self.limiter.aacquire(self.model, **_size(tokens))
        async with reservation:
            result = await embed()
            _settle(reservation, tokens)
            return result


def _size(tokens: float) -> dict[str, Any]:
    return {"input_tokens": tokens, "output_tokens": 0.0, "estimated": True}


def _settle(reservation: Reservation, tokens: float) -> None:
    reservation.settle(input_tokens=tokens, output_tokens=0.0)
