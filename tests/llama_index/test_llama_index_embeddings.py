"""AdaptiveEmbedding: counted, split where it cannot fit, in order, under one budget with LLMs."""

import pickle
import time

import openai
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.embeddings.loading import load_embed_model
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.core.storage.kvstore import SimpleKVStore

from adaptive_rate_limiter import ConfigurationError, Limiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter, AdaptiveLLM

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}
TEXTS = [f"text {number} " * (number + 1) for number in range(20)]


def test_vectors_come_in_order_and_are_counted(lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    bare = lab.embedding(lab.provider(), client, embed_batch_size=6)
    model = AdaptiveEmbedding(lab.embedding(emulator, client, embed_batch_size=6), limiter)
    assert model.get_text_embedding_batch(TEXTS) == bare.get_text_embedding_batch(TEXTS)
    assert model.get_query_embedding("hello") == bare.get_query_embedding("hello")
    assert model.get_text_embedding("hello") == bare.get_text_embedding("hello")
    same_books(emulator, 6)


@pytest.mark.parametrize("workers", [None, 2])
async def test_vectors_come_in_order_in_async(workers, lab, async_client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    bare = lab.embedding(lab.provider(), async_client, embed_batch_size=6)
    inner = lab.embedding(emulator, async_client, embed_batch_size=6, num_workers=workers)
    model = AdaptiveEmbedding(embed_model=inner, limiter=limiter)
    assert await model.aget_text_embedding_batch(TEXTS) == await bare.aget_text_embedding_batch(TEXTS)
    assert await model.aget_query_embedding("hello") == await bare.aget_query_embedding("hello")
    assert await model.aget_text_embedding("hello") == await bare.aget_text_embedding("hello")
    same_books(emulator, 6)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_batch_that_cannot_fit_is_split(known, lab, client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1000, tokens_per_minute=200, window=0.5)
    model = AdaptiveEmbedding(lab.embedding(emulator, client), limiter)
    if known:
        model.get_query_embedding("tells the limit")
    started = time.monotonic()
    texts = [chr(97 + number) * 240 for number in range(6)]  # 360 tokens, where 200 are the whole limit
    bare = lab.embedding(lab.provider(), client)
    assert model.get_text_embedding_batch(texts) == bare.get_text_embedding_batch(texts)
    assert emulator.stats().refused == (0 if known else 1)
    assert time.monotonic() - started >= 0.3
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_a_batch_that_cannot_fit_is_split_in_async(known, lab, async_client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1000, tokens_per_minute=200, window=0.5)
    model = AdaptiveEmbedding(lab.embedding(emulator, async_client), limiter)
    if known:
        await model.aget_query_embedding("tells the limit")
    assert len(await model.aget_text_embedding_batch(["word" * 60] * 6)) == 6
    assert emulator.stats().refused == (0 if known else 1)
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


def test_a_text_that_cannot_fit_alone_is_the_providers_to_refuse(lab, client, limiter, bucket_of):
    emulator = lab.provider(tokens_per_minute=100)
    model = AdaptiveEmbedding(lab.embedding(emulator, client), limiter)
    with pytest.raises(openai.RateLimitError, match="too large") as raised:
        model.get_text_embedding_batch(["word" * 1000])
    assert "request_too_large" in str(raised.value.__notes__)
    assert emulator.stats().requests == 1
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


def test_what_is_known_not_to_fit_is_split_before_it_is_sent(lab, client):
    emulator = lab.provider(headers=False)
    model = AdaptiveEmbedding(
        lab.embedding(emulator, client), quotas=[{"unit": "tokens", "limit": 100, "window": 1}]
    )
    assert len(model.get_text_embedding_batch(["word" * 40] * 5)) == 5
    assert emulator.stats().requests == 3


def test_without_network_what_is_guessed_is_charged():
    limiter = Limiter(quotas={"tokens": 1000})
    model = AdaptiveEmbedding(MockEmbedding(embed_dim=2), limiter)
    assert len(model.get_text_embedding_batch(["word" * 10] * 5)) == 5
    assert model.get_text_embedding_batch([]) == []
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.bucket_id, bucket.admitted) == ("default/MockEmbedding", 5)  # it has no batches
    assert round(bucket.limits[0].remaining) == pytest.approx(950, abs=5)


async def test_what_is_in_the_cache_costs_nothing(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    model = AdaptiveEmbedding(
        lab.embedding(emulator, async_client, embeddings_cache=SimpleKVStore()), limiter
    )
    first = await model.aget_text_embedding_batch(TEXTS)
    assert await model.aget_text_embedding_batch(TEXTS) == first
    assert await model.aget_text_embedding(TEXTS[2]) == first[2]
    assert (bucket_of().admitted, emulator.stats().requests) == (1, 1)


def test_llm_and_embeddings_share_a_limiter(lab, client, limiter):
    emulator = lab.provider(per_model=True, **PLENTY)
    AdaptiveEmbedding(lab.embedding(emulator, client), limiter).get_text_embedding("hello")
    AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter).chat(
        [ChatMessage(role="user", content="hello")]
    )
    assert sorted(bucket.admitted for bucket in limiter.snapshot().buckets) == [1, 1]


def test_what_llamaindex_reads_is_the_wrapped_ones(lab, client):
    inner = lab.embedding(lab.provider(), client, embed_batch_size=7, num_workers=3)
    model = AdaptiveEmbedding(inner)
    assert isinstance(model, BaseEmbedding)
    assert (model.model_name, model.embed_batch_size, model.num_workers) == ("text-embedding-3-small", 7, 3)
    assert AdaptiveEmbedding(inner, embed_batch_size=9, max_wait=5).embed_batch_size == 9


def test_to_dict_from_dict_and_pickle(lab, client):
    model = AdaptiveEmbedding(lab.embedding(lab.provider(), client, embed_batch_size=7))
    told = model.to_dict()
    assert told["class_name"] == AdaptiveEmbedding.class_name() == "AdaptiveEmbedding"
    assert "limiter" not in told
    for again in (AdaptiveEmbedding.from_dict(told), load_embed_model(told)):
        assert (again.embed_model.model_name, again.embed_batch_size) == ("text-embedding-3-small", 7)
    model.embed_model._http_client = None  # which cannot be copied, as LlamaIndex would warn
    again = pickle.loads(pickle.dumps(model))
    assert again.limiter is model.limiter
    assert again.embed_batch_size == 7


class Own(MockEmbedding):
    @classmethod
    def class_name(cls):
        return "own_embedding"


def test_from_dict_of_a_model_that_is_only_imported():
    told = AdaptiveEmbedding(Own(embed_dim=2)).to_dict()
    assert isinstance(AdaptiveEmbedding.from_dict(told).embed_model, Own)
    with pytest.raises(ValueError, match="no_such"):
        AdaptiveEmbedding.from_dict({"embed_model": {"class_name": "no_such"}})


def _limited():
    model = MockEmbedding(embed_dim=2)
    model.rate_limiter = AdaptiveLimiter()
    return model


def _mock():
    return MockEmbedding(embed_dim=2)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptiveEmbedding("small"), "embed_model must be a LlamaIndex embedding model, got 'small'"),
        (
            lambda: AdaptiveEmbedding(AdaptiveEmbedding(_mock())),
            "limited already, by its own AdaptiveEmbedding",
        ),
        (lambda: AdaptiveEmbedding(_limited()), "limited already, by rate_limiter=<"),
        (lambda: AdaptiveEmbedding(_mock(), 3), "limiter must be a Limiter, got 3"),
        (lambda: AdaptiveEmbedding(_mock(), Limiter(), max_wait=1), "max_wait=1"),
        (lambda: AdaptiveEmbedding(_mock(), batch_size=0), "'batch_size'"),
        (
            lambda: AdaptiveEmbedding(_mock(), rate_limiter=TokenBucketRateLimiter()),
            "limited by its limiter=, not by rate_limiter=Token",
        ),
        (
            lambda: setattr(AdaptiveEmbedding(_mock()), "rate_limiter", AdaptiveLimiter()),
            "limited by its limiter=, not by rate_limiter=<",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()
