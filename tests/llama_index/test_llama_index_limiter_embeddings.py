"""AdaptiveLimiter as `rate_limiter=` of an embedding model: each of its requests is known by its size."""

import asyncio

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from adaptive_rate_limiter import Limiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter.observer import spans

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}

TEXTS = [f"text {number} " * (number + 1) for number in range(20)]
EMBED = {
    "get_text_embedding": (1, lambda model: model.get_text_embedding("hello")),
    "get_query_embedding": (1, lambda model: model.get_query_embedding("hello")),
    "get_text_embedding_batch": (4, lambda model: model.get_text_embedding_batch(TEXTS)),
    "get_agg_embedding_from_queries": (2, lambda model: model.get_agg_embedding_from_queries(["a", "b"])),
    "nodes": (4, lambda model: model([TextNode(text=text) for text in TEXTS])),
}
AEMBED = {
    "aget_text_embedding": (1, lambda model: model.aget_text_embedding("hello")),
    "aget_query_embedding": (1, lambda model: model.aget_query_embedding("hello")),
    "aget_text_embedding_batch": (4, lambda model: model.aget_text_embedding_batch(TEXTS)),
    "nodes": (4, lambda model: model.acall([TextNode(text=text) for text in TEXTS])),
}


@pytest.mark.parametrize("form", EMBED)
def test_each_form_of_embedding_is_counted(form, lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    calls, run = EMBED[form]
    run(lab.embedding(emulator, client, embed_batch_size=6, rate_limiter=AdaptiveLimiter(limiter)))
    same_books(emulator, calls)


@pytest.mark.parametrize("form", AEMBED)
@pytest.mark.parametrize("workers", [None, 2])
async def test_each_async_form_of_embedding_is_counted(form, workers, lab, async_client, same_books):
    emulator = lab.provider(**PLENTY)
    calls, run = AEMBED[form]
    model = lab.embedding(
        emulator,
        async_client,
        embed_batch_size=6,
        num_workers=workers,
        rate_limiter=AdaptiveLimiter(lab.limiter),
    )
    await run(model)
    same_books(emulator, calls)


async def test_batches_at_once_are_each_known_by_their_size(lab, async_client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    model = lab.embedding(emulator, async_client, embed_batch_size=1, rate_limiter=AdaptiveLimiter(limiter))
    await model.aget_text_embedding_batch(["word" * size for size in range(1, 21)])
    assert sorted(recorded) == [(size, size) for size in range(1, 21)]


def test_a_batch_found_in_the_cache_is_not_paid_for_twice(lab, client, limiter, bucket_of):
    """LlamaIndex asks its rate limiter even for a batch that is in the cache, but not for a single text."""
    emulator = lab.provider(**PLENTY)
    cache = SimpleKVStore()
    model = lab.embedding(emulator, client, embeddings_cache=cache, rate_limiter=AdaptiveLimiter(limiter))
    assert len(model.get_text_embedding_batch(TEXTS)) == 20
    assert model.get_text_embedding(TEXTS[3])
    assert (bucket_of().admitted, bucket_of().in_flight, emulator.stats().requests) == (1, 0, 1)


class OneByOne(MockEmbedding):
    """A model without batches, over HTTP."""

    emulator: object = None
    client: object = None

    def _get_text_embedding(self, text):
        sent = {"model": "one", "input": text}
        answer = self.client.post(self.emulator.url + "/v1/embeddings", json=sent)
        return answer.json()["data"][0]["embedding"]


@pytest.mark.parametrize("through", ["rate_limiter", "AdaptiveEmbedding"])
def test_a_model_that_sends_one_by_one_is_charged_for_each_text_once(
    through, lab, client, limiter, same_books
):
    emulator = lab.provider(**PLENTY)
    model = OneByOne(embed_dim=2, emulator=emulator, client=client, model_name="one")
    if through == "AdaptiveEmbedding":
        model = AdaptiveEmbedding(model, limiter)
    else:
        model.rate_limiter = AdaptiveLimiter(limiter)
    assert len(model.get_text_embedding_batch(["word" * 10] * 8)) == 8
    same_books(emulator, 8)


class OneFails(MockEmbedding):
    """The first of its batches fails, while the others stand in line."""

    async def _aget_text_embeddings(self, texts):
        if texts == ["first"]:
            raise ZeroDivisionError
        return [[0.0] for _ in texts]


async def test_a_batch_that_outlived_its_method_was_kept_for_ever():
    limiter = Limiter(max_concurrency=1)
    model = OneFails(embed_dim=1, embed_batch_size=1)
    model.rate_limiter = AdaptiveLimiter(limiter)
    with pytest.raises(ZeroDivisionError):
        await model.aget_text_embedding_batch(["first", "second", "third"])
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    await asyncio.sleep(0)  # for what is called when they are done
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight, spans._admitted) == (3, 0, {})


def test_a_private_method_called_while_a_stream_is_open_is_not_the_stream(lab, client, limiter, same_books):
    emulator, other = lab.provider(**PLENTY), lab.provider()
    stream = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter)).stream_chat(
        [ChatMessage(role="user", content="hello")]
    )
    assert lab.embedding(other, client)._get_query_embedding("hello")
    assert list(stream)
    same_books(emulator, 1)


def test_chat_and_embeddings_share_a_limiter_through_an_index(lab, client):
    emulator = lab.provider(per_model=True, **PLENTY)
    rate_limiter = AdaptiveLimiter()
    llm = lab.llm(emulator, client, rate_limiter=rate_limiter, max_tokens=200)
    model = lab.embedding(emulator, client, rate_limiter=rate_limiter)
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=model)
    assert index.as_query_engine(llm=llm).query("What is text 3?").response
    buckets = {bucket.bucket_id: bucket for bucket in rate_limiter.limiter.snapshot().buckets}
    assert buckets["default/gpt-4o"].admitted >= 1
    assert buckets["default/text-embedding-3-small"].admitted == 2  # the texts and the question
    assert sum(bucket.admitted for bucket in buckets.values()) == emulator.stats().requests
    assert all(bucket.in_flight == 0 for bucket in buckets.values())
