"""Each reservation belongs to the run that asked for it."""

import asyncio
import threading
from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult

from langchain_adaptive_rate_limiter import AdaptiveLimiter

pytestmark = pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")
PLENTY = {"requests_per_minute": 10_000, "tokens_per_minute": 10_000_000, "algorithm": "fixed_window"}


PROMPTS = ["word" * size for size in range(1, 101)]


def test_a_batch_in_sixteen_threads_matches_every_run(lab, client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    lab.chat(emulator, client, limiter).batch(PROMPTS, config={"max_concurrency": 16})
    assert sorted(recorded) == [(size, size) for size in range(1, 101)]


async def test_a_hundred_tasks_match_every_run(lab, async_client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    await lab.chat(emulator, async_client, limiter).abatch(PROMPTS)
    assert sorted(recorded) == [(size, size) for size in range(1, 101)]


async def test_streams_that_overlap_in_one_task_match_every_run(lab, async_client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, async_client, limiter, stream_usage=True)
    first, second = llm.astream("word" * 7), llm.astream("word" * 21)
    await anext(first)
    await anext(second)
    async for _ in first:
        pass
    async for _ in second:
        pass
    assert sorted(recorded) == [(7, 7), (21, 21)]


@pytest.mark.parametrize("cached", [0, 1, 2])
def test_generate_matches_the_runs_that_are_not_in_the_cache(cached, lab, client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter, cache=InMemoryCache())
    prompts = [[HumanMessage("word" * size)] for size in (3, 5, 8)]
    llm.generate([prompts[cached]])
    recorded.clear()
    llm.generate(prompts)
    assert recorded == [(size, size) for place, size in enumerate((3, 5, 8)) if place != cached]
    assert emulator.stats().requests == 3


async def test_agenerate_matches_the_runs_that_are_not_in_the_cache(lab, async_client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, async_client, limiter, cache=InMemoryCache())
    prompts = [[HumanMessage("word" * size)] for size in (3, 5, 8)]
    await llm.agenerate([prompts[0]])
    await llm.agenerate(prompts)
    assert sorted(recorded) == [(3, 3), (5, 5), (8, 8)]


def test_a_cache_hit_costs_nothing(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter, cache=InMemoryCache())
    assert len({llm.invoke("hello").content for _ in range(3)}) == 1
    assert (bucket_of().admitted, emulator.stats().requests) == (1, 1)


class Wrapping(BaseChatModel):
    """A model that asks another one."""

    inner: Any

    @property
    def _llm_type(self):
        return "wrapping"

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_model_name": "outer", "ls_model_type": "chat"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[self.inner.generate([messages]).generations[0][0]])


def test_a_limited_model_inside_one_without_limiter_is_its_own_run(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    Wrapping(inner=lab.chat(emulator, client, limiter)).invoke("hello")
    assert [bucket.bucket_id for bucket in limiter.limiter.snapshot().buckets] == ["default/gpt-4o"]
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)


def test_a_model_without_limiter_inside_a_limited_one_sends_for_it(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    Wrapping(inner=lab.chat(emulator, client, None), rate_limiter=limiter).invoke("hello")
    assert (bucket_of("outer").admitted, bucket_of("outer").in_flight) == (1, 0)
    assert {limit.unit for limit in bucket_of("outer").limits} == {"requests", "tokens"}


def test_a_run_without_limiter_is_not_taken_for_the_next_acquire(lab, client, limiter):
    FakeListChatModel(responses=["never on the wire"]).invoke("hello")
    limiter.acquire()
    assert [bucket.bucket_id for bucket in limiter.limiter.snapshot().buckets] == ["default/*"]


def test_acquire_by_hand_counts_one_request():
    limiter = AdaptiveLimiter(quotas={"requests": 2})
    assert limiter.acquire()
    assert limiter.acquire(blocking=False)
    assert not limiter.acquire(blocking=False)
    (bucket,) = limiter.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (2, 0)


async def test_aacquire_by_hand_counts_one_request():
    limiter = AdaptiveLimiter(quotas={"requests": 2})
    assert await limiter.aacquire()
    assert await limiter.aacquire(blocking=False)
    assert not await limiter.aacquire(blocking=False)


def test_nothing_leaks_into_what_is_called_while_a_stream_is_read(lab, client, limiter, bucket_of):
    """Other models, and other requests, in the body of `for chunk in llm.stream()`."""
    emulator, other = lab.provider(**PLENTY), lab.provider(requests_per_minute=5)
    stranger = lab.chat(other, client, None, model="stranger")
    for seen, _ in enumerate(lab.chat(emulator, client, limiter).stream("hello")):
        if not seen:
            stranger.invoke("one")
            httpx.post(other.base_url + "/embeddings", json={"model": "e", "input": "x"})
            lab.chat(emulator, client, None).invoke("the same host, without a limiter")
    assert [bucket.bucket_id for bucket in limiter.limiter.snapshot().buckets] == ["default/gpt-4o"]
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)
    assert (emulator.stats().requests, other.stats().requests) == (2, 2)


def test_a_limited_call_while_a_stream_is_read_is_its_own(lab, client, limiter, bucket_of, recorded):
    emulator = lab.provider(**PLENTY)
    outer = lab.chat(emulator, client, limiter, stream_usage=True)
    for number, _ in enumerate(outer.stream("word" * 30)):
        if number < 2:
            lab.chat(emulator, client, limiter, model="inner").invoke("word" * 4)
    assert sorted(recorded) == [(4, 4), (4, 4), (30, 30)]
    assert (bucket_of("gpt-4o").admitted, bucket_of("inner").admitted) == (1, 2)


def test_after_its_end_a_call_leaves_the_context_unlimited(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    lab.chat(emulator, client, limiter).invoke("hello")
    lab.chat(emulator, client, None).invoke("hello")
    httpx.post(emulator.base_url + "/embeddings", json={"model": "e", "input": "x"})
    assert bucket_of().admitted == 1


class Heard(BaseCallbackHandler):
    def __init__(self):
        self.events = []

    def on_custom_event(self, name, data, *, run_id, **_):
        self.events.append((name, data, run_id))


class AsyncHeard(AsyncCallbackHandler):
    def __init__(self):
        self.events = []

    async def on_custom_event(self, name, data, *, run_id, **_):
        self.events.append((name, data, run_id))


def _a_wait(heard):
    ((name, data, run_id),) = heard.events
    assert name == "rate_limiter_wait"
    assert 0.05 < data["waited"] < 5
    assert data["reason"] == "requests"
    assert run_id


TIGHT = {"quotas": [{"unit": "requests", "limit": 1, "window": 0.3}]}


@pytest.mark.parametrize("form", ["invoke", "stream", "chain"])
def test_a_wait_is_told_to_the_handlers_of_the_run(form, lab, client):
    emulator = lab.provider(headers=False)
    llm = lab.chat(emulator, client, AdaptiveLimiter(**TIGHT))
    llm.invoke("first")
    heard = Heard()
    config = {"callbacks": [heard]}
    if form == "stream":
        list(llm.stream("second", config))
    else:
        (llm if form == "invoke" else llm | (lambda message: message.content)).invoke("second", config)
    _a_wait(heard)


@pytest.mark.parametrize("form", ["ainvoke", "astream", "chain"])
@pytest.mark.parametrize("kind", [Heard, AsyncHeard])
async def test_a_wait_is_told_to_async_handlers(form, kind, lab, async_client):
    emulator = lab.provider(headers=False)
    llm = lab.chat(emulator, async_client, AdaptiveLimiter(**TIGHT))
    await llm.ainvoke("first")
    heard = kind()
    config = {"callbacks": [heard]}
    if form == "astream":
        [chunk async for chunk in llm.astream("second", config)]
    else:
        await (llm if form == "ainvoke" else llm | (lambda message: message.content)).ainvoke(
            "second", config
        )
    _a_wait(heard)


async def test_a_wait_is_among_the_events_of_a_chain(lab, async_client):
    emulator = lab.provider(headers=False)
    llm = lab.chat(emulator, async_client, AdaptiveLimiter(**TIGHT))
    await llm.ainvoke("first")
    events = [event async for event in llm.astream_events("second", version="v2")]
    (wait,) = [event for event in events if event["event"] == "on_custom_event"]
    assert wait["name"] == "rate_limiter_wait"


def test_many_event_loops_share_one_limiter(lab, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)

    async def some():
        async with httpx.AsyncClient() as client:
            await lab.chat(emulator, client, limiter).abatch(["hello"] * 5)

    threads = [threading.Thread(target=asyncio.run, args=(some(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (bucket_of().admitted, bucket_of().in_flight) == (20, 0)
