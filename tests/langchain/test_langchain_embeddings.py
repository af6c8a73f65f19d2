"""Embeddings: counted, split where they cannot fit, in order, under one budget with chat."""

import copy
import pickle
import time

import pytest
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings

from adaptive_rate_limiter import ConfigurationError, Limiter
from langchain_adaptive_rate_limiter import AdaptiveCallbackHandler, AdaptiveEmbeddings, AdaptiveLimiter

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


class Constant(Embeddings):
    """Embeddings that need no network."""

    def embed_documents(self, texts):
        return [[1.0, 0.0] for _ in texts]

    def embed_query(self, text):
        return [1.0, 0.0]


TEXTS = [f"text {number} " * (number + 1) for number in range(20)]


def wrapped(emulator, client, limiter=None, **options):
    side = {"http_client": client} if not hasattr(client, "aclose") else {"http_async_client": client}
    inner = OpenAIEmbeddings(
        model="text-embedding-3-small",
        api_key="k",
        base_url=emulator.url + "/v1",
        check_embedding_ctx_length=False,
        **side,
    )
    return AdaptiveEmbeddings(inner, limiter, **options), inner


def _bucket(limiter):
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.in_flight, bucket.waiting) == (0, 0)
    return bucket


def _told(bucket):
    return {limit.unit: round(limit.remaining) for limit in bucket.limits}


def test_vectors_come_in_order_and_tokens_are_counted(lab, client):
    emulator = lab.provider(**PLENTY)
    embeddings, inner = wrapped(emulator, client, batch_size=6)
    assert embeddings.embed_documents(TEXTS) == inner.embed_documents(TEXTS)
    assert embeddings.embed_query("hello") == inner.embed_query("hello")
    bucket = _bucket(embeddings.limiter)
    assert bucket.admitted == 5
    assert "text-embedding-3-small" in bucket.bucket_id


async def test_vectors_come_in_order_in_async(lab, async_client):
    emulator = lab.provider(**PLENTY)
    embeddings, inner = wrapped(emulator, async_client, batch_size=6)
    assert await embeddings.aembed_documents(TEXTS) == await inner.aembed_documents(TEXTS)
    assert await embeddings.aembed_query("hello") == await inner.aembed_query("hello")
    assert _bucket(embeddings.limiter).admitted == 5


def test_the_provider_counts_the_same(lab, client):
    emulator = lab.provider(**PLENTY)
    embeddings, _ = wrapped(emulator, client)
    embeddings.embed_documents(TEXTS)
    embeddings.embed_query("hello")
    told = _told(_bucket(embeddings.limiter))
    assert told == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_a_batch_that_cannot_fit_is_split(lab, client):
    emulator = lab.provider("azure", requests_per_minute=1000, tokens_per_minute=200, window=1.0)
    embeddings, _ = wrapped(emulator, client)
    embeddings.embed_query("tells the limit")
    started = time.monotonic()
    texts = ["word" * 60] * 6  # 360 tokens, where 200 a second are the whole limit
    assert len(embeddings.embed_documents(texts)) == 6
    assert emulator.stats().refused == 0
    assert time.monotonic() - started >= 0.7
    assert _bucket(embeddings.limiter).admitted == 1 + 2


async def test_a_batch_that_cannot_fit_is_split_in_async(lab, async_client):
    emulator = lab.provider("azure", requests_per_minute=1000, tokens_per_minute=200, window=1.0)
    embeddings, _ = wrapped(emulator, async_client)
    await embeddings.aembed_query("tells the limit")
    assert len(await embeddings.aembed_documents(["word" * 60] * 6)) == 6
    assert emulator.stats().refused == 0


def test_chat_and_embeddings_share_a_limiter(lab, client):
    emulator = lab.provider(per_model=True, **PLENTY)
    shared = Limiter()
    embeddings, _ = wrapped(emulator, client, shared)
    embeddings.embed_query("hello")
    lab.chat(emulator, client, AdaptiveLimiter(shared)).invoke("hello")
    assert sorted(bucket.admitted for bucket in shared.snapshot().buckets) == [1, 1]


def test_a_retry_of_the_sdk_is_admitted_again(lab, client):
    emulator = lab.provider("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    _, inner = wrapped(emulator, client)
    inner.embed_query("takes the limit")
    embeddings, _ = wrapped(emulator, client)
    assert embeddings.embed_query("hello")
    bucket = _bucket(embeddings.limiter)
    assert (bucket.admitted, bucket.refused) == (2, 1)
    assert emulator.stats().refused == 1


def test_a_failure_leaves_no_hold(lab, client):
    class Failing(Constant):
        def embed_documents(self, texts):
            raise ValueError("no")

    embeddings = AdaptiveEmbeddings(Failing())
    with pytest.raises(ValueError, match="no"):
        embeddings.embed_documents(["a"])
    assert _bucket(embeddings.limiter).in_flight == 0


def test_embeddings_without_http_are_counted_as_guessed():
    limiter = Limiter(quotas={"tokens": 1000})
    embeddings = AdaptiveEmbeddings(Constant(), limiter, batch_size=2)
    assert len(embeddings.embed_documents(["word" * 10] * 5)) == 5
    assert embeddings.embed_documents([]) == []
    bucket = _bucket(limiter)
    assert (bucket.admitted, round(bucket.limits[0].remaining)) == (3, 950)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptiveLimiter(limiter="redis"), "limiter must be a Limiter, got 'redis'"),
        (lambda: AdaptiveLimiter(max_wait=-1), "max_wait must be .* got -1"),
        (lambda: AdaptiveLimiter(requests_per_second=1), "'requests_per_second'"),
        (lambda: AdaptiveLimiter(Limiter(), max_wait=3), "max_wait=3 belongs to the Limiter"),
        (lambda: AdaptiveLimiter(observe_http="no"), "observe_http must be True or False, got 'no'"),
        (lambda: AdaptiveLimiter(max_concurrency=0), "max_concurrency must be .* got 0"),
        (lambda: AdaptiveCallbackHandler(3), "limiter must be a Limiter, got 3"),
        (lambda: AdaptiveEmbeddings(AdaptiveEmbeddings(Constant())), "embeddings are limited already"),
        (lambda: AdaptiveEmbeddings("model"), "embeddings must be LangChain Embeddings, got 'model'"),
        (lambda: AdaptiveEmbeddings(object()), "embeddings must be LangChain Embeddings, got object"),
        (
            lambda: AdaptiveEmbeddings(Constant(), 3),
            "limiter must be a Limiter, got 3",
        ),
        (lambda: AdaptiveEmbeddings(Constant(), batch_size=0), "batch_size .* got 0"),
        (lambda: AdaptiveEmbeddings(Constant(), Limiter(), max_wait=1), "max_wait=1"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()


def test_a_copy_shares_the_limiter():
    embeddings = AdaptiveEmbeddings(Constant(), quotas={"tokens": 1000}, batch_size=7)
    limiter = AdaptiveLimiter(embeddings.limiter, observe_http=False)
    for copied in (copy.copy, copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))):
        again = copied(embeddings)
        assert again.limiter is embeddings.limiter
        assert (again.batch_size, again.embed_query("hello")) == (7, [1.0, 0.0])
        assert copied(limiter).limiter is embeddings.limiter
        assert copied(limiter)._http is None


def test_it_is_an_embeddings():
    assert isinstance(AdaptiveEmbeddings(Constant()), Embeddings)
