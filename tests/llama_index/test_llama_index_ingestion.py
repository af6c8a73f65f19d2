"""Ingestion pipelines and indexes are paced by tokens: no refusal, and no node is lost."""

import math
import time

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode

from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter

NODES = 200
TOKENS = 50  # of each
PER_WINDOW, WINDOW = 6000, 1.0  # tokens, seconds: more than half of all
LIMIT = {"tokens_per_minute": PER_WINDOW, "requests_per_minute": 100_000, "window": WINDOW}


def _nodes():
    return [TextNode(text=f"{number:04}" + "x" * (TOKENS * 4 - 4)) for number in range(NODES)]


def _embedded(nodes):
    """Each node has the vector of its own text; the emulator makes one from each text."""
    assert len(nodes) == NODES
    assert all(node.embedding for node in nodes)
    return [node.embedding for node in nodes]


@pytest.fixture(params=["AdaptiveEmbedding", "rate_limiter"])
def limited(request, lab, limiter):
    def build(emulator, client):
        inner = lab.embedding(emulator, client, embed_batch_size=20)
        if request.param == "AdaptiveEmbedding":
            return AdaptiveEmbedding(inner, limiter)
        inner.rate_limiter = AdaptiveLimiter(limiter)
        return inner

    return build


def test_a_pipeline_of_hundreds_of_nodes(limited, lab, client, bucket_of):
    emulator = lab.provider("ietf", **LIMIT)
    expected = _embedded(lab.embedding(lab.provider(), client)(_nodes()))
    started = time.monotonic()
    nodes = IngestionPipeline(transformations=[limited(emulator, client)]).run(nodes=_nodes())
    seconds = time.monotonic() - started
    assert _embedded(nodes) == expected
    assert emulator.stats().refused == 0
    assert seconds >= (NODES * TOKENS / PER_WINDOW - 1) * WINDOW
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


async def test_a_pipeline_in_async_sends_all_batches_at_once(limited, lab, async_client, bucket_of):
    """Ten batches ask together while nothing is known of the limit."""
    emulator = lab.provider("ietf", **LIMIT)
    nodes = await IngestionPipeline(transformations=[limited(emulator, async_client)]).arun(nodes=_nodes())
    _embedded(nodes)
    assert emulator.stats().refused == 0
    assert emulator.stats().admitted == math.ceil(NODES / 20)
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


def test_an_index_of_documents(limited, lab, client, bucket_of):
    emulator = lab.provider("ietf", **LIMIT)
    documents = [Document(text=f"{number} " + "word " * 150) for number in range(30)]
    index = VectorStoreIndex.from_documents(
        documents,
        embed_model=limited(emulator, client),
        transformations=[SentenceSplitter(chunk_size=100, chunk_overlap=0)],
    )
    stored = index.vector_store.data.embedding_dict
    assert len(stored) >= 60
    assert emulator.stats().refused == 0
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


def test_a_pipeline_in_several_processes():
    """LlamaIndex pickles the model into each of them."""
    nodes = IngestionPipeline(
        transformations=[AdaptiveEmbedding(MockEmbedding(embed_dim=2), quotas={"tokens": 100_000})],
        disable_cache=True,
    ).run(nodes=[TextNode(text="word") for _ in range(8)], num_workers=2)
    assert [node.embedding for node in nodes] == [[0.5, 0.5]] * 8
