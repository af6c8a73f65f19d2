"""However a call ends, its hold ends with it."""

import asyncio

import httpx
import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.llms.openai import OpenAI
from tests.garbage import collect

from adaptive_rate_limiter import CapacityExceededError, Limiter, Quota
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter, AdaptiveLLM
from llama_index.llms.adaptive_rate_limiter.announcement import announced
from llama_index.llms.adaptive_rate_limiter.observer import spans

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}
REQUEST = httpx.Request("POST", "http://127.0.0.1/")
SLOW = PLENTY | {"latency": 0.4, "output_tokens": 200}


class BoomError(Exception):
    pass


def _said(text="hello"):
    return [ChatMessage(role="user", content=text)]


@pytest.fixture(params=["AdaptiveLLM", "rate_limiter"])
def limited(request, lab, limiter):
    """An LLM under the limiter, in each of the two ways; afterwards nothing is kept of any call."""

    def build(emulator, client, with_limiter=limiter, **options):
        if request.param == "AdaptiveLLM":
            return AdaptiveLLM(llm=lab.llm(emulator, client, **options), limiter=with_limiter)
        return lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(with_limiter), **options)

    yield build
    assert (spans._open, spans._admitted, announced.get()) == ({}, {}, None)


async def _until(true):
    while not true():  # noqa: ASYNC110 - another thread's doing; pytest's time limit is the bound
        await asyncio.sleep(0.005)


def test_a_stream_that_is_left_ends_the_hold_and_keeps_it_charged(lab, client, limited, left):
    emulator = lab.provider(**SLOW)
    stream = limited(emulator, client, max_tokens=200).stream_chat(_said())
    next(stream)
    stream.close()
    assert left() == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_break_ends_the_hold(lab, client, limited, left):
    emulator = lab.provider(**PLENTY)
    for _ in limited(emulator, client).stream_complete("hello"):
        break
    collect()
    assert left()["requests"] == 999


def test_an_exception_in_the_readers_loop_ends_the_hold(lab, client, limited, left):
    emulator = lab.provider(**PLENTY)

    def read():
        for _ in limited(emulator, client).stream_chat(_said()):
            raise BoomError

    with pytest.raises(BoomError):
        read()
    collect()
    assert left()["requests"] == 999


async def test_a_stream_that_is_never_read_leaves_no_hold(lab, async_client, limited, limiter):
    emulator = lab.provider(**PLENTY)
    llm = limited(emulator, async_client)
    stream = await llm.astream_chat(_said())
    del stream
    llm.stream_chat(_said())
    collect()
    await _until(lambda: all(bucket.in_flight == 0 for bucket in limiter.snapshot().buckets))
    assert emulator.stats().requests == 0


def test_a_stream_that_breaks_in_the_middle_raises_what_it_raises(lab, client, limited, bucket_of):
    emulator = lab.provider(faults=["drop_after"], **PLENTY)
    with pytest.raises(Exception, match=r"(?i)connection|disconnected|closed"):
        list(limited(emulator, client).stream_chat(_said()))
    assert bucket_of().in_flight == 0


def test_an_error_of_the_provider_ends_the_hold(lab, client, limited, bucket_of):
    emulator = lab.provider(faults=[500, 500], **PLENTY)
    llm = limited(emulator, client)
    for run in (llm.chat, lambda messages: list(llm.stream_chat(messages))):
        with pytest.raises(Exception, match="500"):
            run(_said())
        assert bucket_of().in_flight == 0
    assert emulator.stats().requests == 2


async def test_leaving_an_async_stream_ends_the_hold(lab, async_client, limited, left):
    emulator = lab.provider(**SLOW)
    stream = await limited(emulator, async_client, max_tokens=200).astream_chat(_said())
    await anext(stream)
    await stream.aclose()
    assert left()["requests"] == 999


@pytest.mark.parametrize("form", ["achat", "acomplete", "astream_chat", "astream_complete"])
async def test_a_task_cancelled_in_flight_leaves_no_hold(form, lab, async_client, limited, bucket_of):
    emulator = lab.provider(**SLOW)
    llm = limited(emulator, async_client, max_tokens=200)

    async def call():
        answer = await getattr(llm, form)(_said() if "chat" in form else "hello")
        if "stream" in form:
            async for _ in answer:
                pass

    task = asyncio.ensure_future(call())
    await _until(lambda: emulator.stats().admitted)
    assert bucket_of().in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as kept:  # its traceback keeps the frames alive
        await task
    await _until(lambda: bucket_of().in_flight == 0)
    assert bucket_of().admitted == 1
    assert kept


async def test_a_task_cancelled_between_two_chunks_leaves_no_hold(lab, async_client, limited, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = limited(emulator, async_client)
    reading = asyncio.Event()

    async def read():
        async for _ in await llm.astream_chat(_said()):
            reading.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    collect()
    await _until(lambda: bucket_of().in_flight == 0)


async def test_a_task_cancelled_while_it_waits_takes_nothing(lab, async_client, limited):
    emulator = lab.provider(**PLENTY)
    limiter = Limiter(quotas={"requests": 1})
    llm = limited(emulator, async_client, limiter)
    await llm.achat(_said())
    waiting = [asyncio.ensure_future(llm.achat(_said())) for _ in range(3)]
    await _until(lambda: limiter.snapshot().waiting == 3)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*waiting, return_exceptions=True)
    )
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.waiting, bucket.in_flight, bucket.admitted) == (0, 0, 1)
    assert emulator.stats().requests == 1


def test_a_call_that_may_not_wait_is_refused_with_the_time(lab, client, limited):
    emulator = lab.provider(**PLENTY)
    llm = limited(emulator, client, Limiter(quotas={"requests": 1}, max_wait=0.5))
    llm.chat(_said())
    for run in (llm.chat, lambda messages: list(llm.stream_chat(messages))):
        with pytest.raises(CapacityExceededError) as refused:
            run(_said())
        assert refused.value.retry_after > 0.5
    assert emulator.stats().requests == 1


def test_a_stream_without_usage_is_charged_by_its_text(lab, client, limited):
    emulator = lab.provider(output_tokens=400, headers=False, charge="usage", **PLENTY)
    limiter = Limiter(quotas=[Quota("tokens", 100_000, 86_400.0)])
    list(limited(emulator, client, limiter, max_tokens=None).stream_chat(_said("hello " * 40)))
    (bucket,) = limiter.snapshot().buckets
    (tokens,) = [limit for limit in bucket.limits if limit.source == "stated"]
    assert 100_000 - tokens.remaining == pytest.approx(460, rel=0.1)


@pytest.mark.parametrize("through", ["AdaptiveEmbedding", "rate_limiter"])
async def test_embeddings_that_are_cancelled_leave_no_hold(through, lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**SLOW)
    model = lab.embedding(emulator, async_client, embed_batch_size=2)
    if through == "AdaptiveEmbedding":
        model = AdaptiveEmbedding(model, limiter)
    else:
        model.rate_limiter = AdaptiveLimiter(limiter)
    task = asyncio.ensure_future(model.aget_text_embedding_batch(["text"] * 8))
    await _until(lambda: emulator.stats().admitted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: (bucket_of().in_flight, bucket_of().waiting) == (0, 0))
    assert spans._admitted == {}


async def test_one_batch_that_fails_leaves_no_hold(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(faults=[500], **PLENTY)
    model = lab.embedding(emulator, async_client, embed_batch_size=2, rate_limiter=AdaptiveLimiter(limiter))
    with pytest.raises(Exception, match="500"):
        await model.aget_text_embedding_batch(["text"] * 8)
    await _until(lambda: bucket_of().in_flight == 0)


class Failing(MockEmbedding):
    def _get_text_embedding(self, text):
        raise BoomError(text)


@pytest.mark.parametrize("through", ["AdaptiveEmbedding", "rate_limiter"])
def test_embeddings_that_fail_leave_no_hold(through, limiter, bucket_of):
    model = Failing(embed_dim=2)
    if through == "AdaptiveEmbedding":
        model = AdaptiveEmbedding(model, limiter)
    else:
        model.rate_limiter = AdaptiveLimiter(limiter)
    with pytest.raises(BoomError):
        model.get_text_embedding_batch(["a", "b"])
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)


class Wrong(MockLLM):
    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        raise BoomError


async def _read(stream, seen):
    async for chunk in stream:
        seen += [chunk.delta]


class Broken(MockLLM):
    """Its streams break after the first chunk, with what looks like a refusal."""

    @llm_chat_callback()
    def stream_chat(self, messages, **kwargs):
        yield ChatResponse(message=ChatMessage(role="assistant", content="a"), delta="a")
        raise openai.APIStatusError("slow down", response=httpx.Response(429, request=REQUEST), body=None)

    @llm_chat_callback()
    async def astream_chat(self, messages, **kwargs):
        async def chunks():
            for chunk in self.stream_chat.__wrapped__(messages):
                yield chunk

        return chunks()


async def test_a_stream_that_breaks_after_its_first_chunk_is_not_sent_again(limiter, bucket_of):
    llm = AdaptiveLLM(llm=Broken(), limiter=limiter)
    seen = []
    with pytest.raises(openai.APIStatusError, match="slow down"):
        seen.extend(chunk.delta for chunk in llm.stream_chat(_said()))
    with pytest.raises(openai.APIStatusError, match="slow down"):
        await _read(await llm.astream_chat(_said()), seen)
    assert seen == ["a", "a"]
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)


def test_an_error_before_anything_was_sent_is_raised_unchanged(limiter, bucket_of):
    for llm in (AdaptiveLLM(llm=Wrong(), limiter=limiter), Wrong()):
        if llm.rate_limiter is None and not isinstance(llm, AdaptiveLLM):
            llm.rate_limiter = AdaptiveLimiter(limiter)
        with pytest.raises(BoomError) as raised:
            llm.chat(_said())
        assert not getattr(raised.value, "__notes__", None)
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)


def test_an_error_in_reading_the_answer_is_settled_with_its_usage(lab, client, limiter, left):
    emulator = lab.provider(**PLENTY)

    class Misread(type(lab.llm(emulator, client))):
        def _get_response_token_counts(self, raw):
            raise BoomError

    llm = AdaptiveLLM(
        llm=Misread(
            model="gpt-4o", api_key="k", api_base=emulator.base_url, max_retries=0, http_client=client
        ),
        limiter=limiter,
    )
    with pytest.raises(BoomError):
        llm.chat(_said("word" * 30))
    assert left()["requests"] == 999
    assert emulator.stats().requests == 1


def _page(_):
    return httpx.Response(200, headers={"content-type": "text/html"}, content=b"<html>gateway</html>")


def _ending(llm):
    with pytest.raises(Exception) as raised:
        llm.chat(_said())
    return type(raised.value), str(raised.value)


@pytest.mark.parametrize("through", ["AdaptiveLLM", "rate_limiter"])
def test_a_reply_that_is_no_json_ends_as_it_does_without_a_limiter(through, limiter, bucket_of):
    with httpx.Client(transport=httpx.MockTransport(_page)) as client:

        def bare():
            return OpenAI(model="gpt-4o", api_key="k", max_retries=0, http_client=client)

        limited = bare()
        if through == "AdaptiveLLM":
            limited = AdaptiveLLM(llm=limited, limiter=limiter)
        else:
            limited.rate_limiter = AdaptiveLimiter(limiter)
        assert _ending(limited) == _ending(bare())
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)
