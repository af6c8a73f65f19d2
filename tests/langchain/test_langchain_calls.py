"""Every way to call a chat model is admitted once, settled once, and learned from."""

import asyncio
import time

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_openai import AzureChatOpenAI

# LangChain sums up the usage of several prompts, and stumbles over a field that is None. Its events v3 are in beta.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is in beta"),
]

PROMPTS = [[HumanMessage(text)] for text in ("a", "bb" * 9, "c" * 99)]
CALM = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}

needs_v3 = pytest.mark.skipif(
    not hasattr(BaseChatModel, "_chat_model_stream_v3"), reason="this LangChain has no version v3 of events"
)


async def _collect(stream):
    return [item async for item in stream]


SYNC = {
    "invoke": (1, lambda llm: llm.invoke("hello")),
    "batch": (9, lambda llm: llm.batch(["hello"] * 9)),
    "batch_as_completed": (4, lambda llm: list(llm.batch_as_completed(["hello"] * 4))),
    "stream": (1, lambda llm: list(llm.stream("hello"))),
    "stream with usage": (1, lambda llm: list(llm.stream("hello", stream_usage=True))),
    "generate": (3, lambda llm: llm.generate(PROMPTS)),
    "chain": (2, lambda llm: (llm | (lambda message: message.content) | llm).invoke("hello")),
}
ASYNC = {
    "ainvoke": (1, lambda llm: llm.ainvoke("hello")),
    "abatch": (9, lambda llm: llm.abatch(["hello"] * 9)),
    "astream": (1, lambda llm: _collect(llm.astream("hello"))),
    "astream with usage": (1, lambda llm: _collect(llm.astream("hello", stream_usage=True))),
    "astream_events": (1, lambda llm: _collect(llm.astream_events("hello", version="v2"))),
    "agenerate": (3, lambda llm: llm.agenerate(PROMPTS)),
}


def _same_books(emulator, left, calls):
    """Limiter and provider have counted the same."""
    stats = emulator.stats()
    assert (stats.admitted, stats.refused) == (calls, 0)
    assert left() == {name: round(amount) for name, amount in stats.remaining.items()}


@pytest.mark.parametrize("form", SYNC)
def test_each_sync_form_is_counted_as_the_provider_counts_it(form, lab, client, limiter, left):
    emulator = lab.provider(**CALM)
    calls, run = SYNC[form]
    run(lab.chat(emulator, client, limiter))
    _same_books(emulator, left, calls)


@pytest.mark.parametrize("form", ASYNC)
async def test_each_async_form_is_counted_as_the_provider_counts_it(form, lab, async_client, limiter, left):
    emulator = lab.provider(**CALM)
    calls, run = ASYNC[form]
    await run(lab.chat(emulator, async_client, limiter))
    _same_books(emulator, left, calls)


@needs_v3
def test_a_stream_of_protocol_events_is_counted_as_the_provider_counts_it(lab, client, limiter, left):
    emulator = lab.provider(**CALM)
    assert list(lab.chat(emulator, client, limiter).stream_events("hello", version="v3"))
    _same_books(emulator, left, 1)


@needs_v3
async def test_so_is_an_async_one(lab, async_client, limiter, left):
    emulator = lab.provider(**CALM)
    llm = lab.chat(emulator, async_client, limiter)
    assert await _collect(await llm.astream_events("hello", version="v3"))
    _same_books(emulator, left, 1)


def test_a_batch_waits_and_none_is_refused(lab, client, limiter):
    emulator = lab.provider("azure", requests_per_minute=10, window=1.0)
    started = time.monotonic()
    llm = AzureChatOpenAI(
        azure_endpoint=emulator.base_url, azure_deployment="gpt-4o", api_version="2024-10-21", api_key="k",
        http_client=client, rate_limiter=limiter, max_tokens=20, max_retries=0,
    )  # fmt: skip
    llm.invoke("first")  # tells the limit
    llm.batch(["hello"] * 18, config={"max_concurrency": 16})
    assert emulator.stats().refused == 0
    assert time.monotonic() - started >= 0.8


async def test_a_gathered_batch_of_a_hundred_is_paced(lab, async_client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=60, window=1.0)
    llm = lab.chat(emulator, async_client, limiter)
    started = time.monotonic()
    await llm.ainvoke("first")
    await asyncio.gather(*(llm.ainvoke("hello") for _ in range(100)))
    assert time.monotonic() - started >= 0.6  # 101 calls, of which 60 go at once
    assert emulator.stats().refused <= 2  # each was tried again by the SDK, after another admission
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)
