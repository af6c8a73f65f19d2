"""AdaptiveLimiter as `rate_limiter=`: each call is announced by LlamaIndex's events, and settled by them."""

import asyncio
import pickle
import threading

import httpx
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent
from llama_index.core.llms import LLM, CustomLLM, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel

from adaptive_rate_limiter import ConfigurationError, Limiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveLimiter, AdaptiveLLM

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


class City(BaseModel):
    name: str


def _said(text="hello"):
    return [ChatMessage(role="user", content=text)]


async def _collect(stream):
    return [item async for item in await stream]


SYNC = {
    "chat": lambda llm: llm.chat(_said()),
    "complete": lambda llm: llm.complete("hello"),
    "stream_chat": lambda llm: list(llm.stream_chat(_said())),
    "stream_complete": lambda llm: list(llm.stream_complete("hello")),
    "predict": lambda llm: llm.predict(PromptTemplate("hello")),
    "structured_predict": lambda llm: llm.structured_predict(City, PromptTemplate("a city")),
}
ASYNC = {
    "achat": lambda llm: llm.achat(_said()),
    "acomplete": lambda llm: llm.acomplete("hello"),
    "astream_chat": lambda llm: _collect(llm.astream_chat(_said())),
    "astream_complete": lambda llm: _collect(llm.astream_complete("hello")),
    "apredict": lambda llm: llm.apredict(PromptTemplate("hello")),
    "astructured_predict": lambda llm: llm.astructured_predict(City, PromptTemplate("a city")),
}


@pytest.mark.parametrize("form", SYNC)
def test_each_sync_form_is_counted_as_the_provider_counts_it(form, lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    SYNC[form](lab.llm(emulator, client, max_tokens=200, rate_limiter=AdaptiveLimiter(limiter)))
    same_books(emulator, 1)


@pytest.mark.parametrize("form", ASYNC)
async def test_each_async_form_is_counted_as_the_provider_counts_it(
    form, lab, async_client, limiter, same_books
):
    emulator = lab.provider(**PLENTY)
    await ASYNC[form](lab.llm(emulator, async_client, max_tokens=200, rate_limiter=AdaptiveLimiter(limiter)))
    same_books(emulator, 1)


async def test_a_hundred_tasks_match_every_call(lab, async_client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    llm = lab.llm(emulator, async_client, rate_limiter=AdaptiveLimiter(limiter))
    await asyncio.gather(*(llm.achat(_said("word" * size)) for size in range(1, 101)))
    assert sorted(recorded) == [(size, size) for size in range(1, 101)]


def test_threads_match_every_call(lab, client, limiter, recorded):
    emulator = lab.provider(**PLENTY)
    llm = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter))
    threads = [
        threading.Thread(target=lambda size=size: llm.chat(_said("word" * size))) for size in range(1, 17)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(recorded) == [(size, size) for size in range(1, 17)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_streams_opened_before_any_is_read_each_send_under_a_reservation(
    order, lab, client, limiter, same_books
):
    """OpenAI's LLM sends a stream's request when it is first read."""
    emulator = lab.provider(**PLENTY)
    llm = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter))
    streams = [llm.stream_chat(_said("word" * 50)) for _ in order]
    for place in order:
        assert list(streams[place])
    same_books(emulator, 3)


async def test_async_streams_opened_before_any_is_read(lab, async_client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    llm = lab.llm(emulator, async_client, rate_limiter=AdaptiveLimiter(limiter))
    streams = [await llm.astream_chat(_said("word" * 50)) for _ in range(3)]
    for stream in streams:
        assert [chunk async for chunk in stream]
    same_books(emulator, 3)


@pytest.mark.parametrize("between", ["the same", "AdaptiveLLM"])
def test_a_call_between_the_opening_and_the_reading_of_a_stream(between, lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    llm = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter))
    other = llm if between == "the same" else AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter)
    stream = llm.stream_chat(_said("word" * 50))
    other.chat(_said("word" * 50))
    assert list(stream)
    same_books(emulator, 2)


@pytest.mark.parametrize("through", ["rate_limiter", "AdaptiveLLM"])
def test_nothing_leaks_into_what_is_called_while_a_stream_is_read(through, lab, client, limiter, bucket_of):
    emulator, other = lab.provider(**PLENTY), lab.provider(requests_per_minute=5)
    if through == "AdaptiveLLM":
        llm = AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter)
    else:
        llm = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter))
    for seen, _ in enumerate(llm.stream_chat(_said())):
        if not seen:
            lab.llm(other, client, model="gpt-4").chat(_said("another host"))
            httpx.post(other.base_url + "/embeddings", json={"model": "e", "input": "x"})
            lab.llm(emulator, client).chat(_said("the same host, without a limiter"))
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)
    assert (emulator.stats().requests, other.stats().requests) == (2, 2)
    httpx.post(emulator.base_url + "/embeddings", json={"model": "e", "input": "x"})
    assert bucket_of().admitted == 1


@pytest.mark.parametrize("through", ["rate_limiter", "AdaptiveLLM"])
def test_a_limited_call_while_a_stream_is_read_is_its_own(through, lab, client, bucket_of, recorded):
    emulator = lab.provider(**PLENTY)
    usage = {"additional_kwargs": {"stream_options": {"include_usage": True}}}
    inner = lab.llm(emulator, client, model="gpt-4", rate_limiter=AdaptiveLimiter(lab.limiter))
    if through == "AdaptiveLLM":
        outer = AdaptiveLLM(llm=lab.llm(emulator, client, **usage), limiter=lab.limiter)
    else:
        outer = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(lab.limiter), **usage)
    for number, _ in enumerate(outer.stream_chat(_said("word" * 30))):
        if number < 2:
            inner.chat(_said("word" * 4))
    assert sorted(recorded) == [(4, 4), (4, 4), (30, 30)]
    assert (bucket_of("gpt-4o").admitted, emulator.stats().requests) == (1, 3)


class Twice(CustomLLM):
    """Its `complete` is its `chat`, and LlamaIndex asks the limiter in both."""

    inner: LLM

    @property
    def metadata(self):
        return LLMMetadata(model_name="twice")

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        return self.inner.chat(messages, **kwargs)

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.chat(_said(prompt)).message.content)

    @llm_completion_callback()
    async def acomplete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=(await self.inner.achat(_said(prompt))).message.content)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


async def test_a_call_that_llamaindex_limits_twice_in_async(lab, async_client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    rate_limiter = AdaptiveLimiter(limiter)
    inner = lab.llm(emulator, async_client, rate_limiter=rate_limiter)
    assert (await Twice(inner=inner, rate_limiter=rate_limiter).acomplete("hello")).text
    same_books(emulator, 1)


def test_a_call_that_llamaindex_limits_twice_is_admitted_once(lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    rate_limiter = AdaptiveLimiter(limiter)
    inner = lab.llm(emulator, client, rate_limiter=rate_limiter)
    assert Twice(inner=inner, rate_limiter=rate_limiter).complete("hello").text
    same_books(emulator, 1)
    assert [bucket.bucket_id for bucket in limiter.snapshot().buckets] == ["default/twice"]


def test_an_adaptive_llm_around_an_llm_whose_own_model_is_limited_admits_once(
    lab, client, limiter, same_books
):
    emulator = lab.provider(**PLENTY)
    inner = lab.llm(emulator, client, max_tokens=200, rate_limiter=AdaptiveLimiter(limiter))
    AdaptiveLLM(llm=inner.as_structured_llm(City), limiter=limiter).chat(_said("a city"))
    same_books(emulator, 1)


def test_an_llm_without_limiter_is_not_taken_for_the_next_acquire(limiter):
    MockLLM().complete("never on the wire")
    MockEmbedding(embed_dim=2).get_text_embedding("never on the wire")
    AdaptiveLimiter(limiter).acquire()
    assert [bucket.bucket_id for bucket in limiter.snapshot().buckets] == ["default/*"]


class ToldTwice(MockLLM):
    """Tells of its call twice, within one span."""

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        return self._answer(messages)

    @llm_chat_callback()
    def _answer(self, messages, **kwargs):
        return ChatResponse(message=ChatMessage(role="assistant", content="x"))


def test_a_call_that_was_told_twice_stayed_announced(limiter):
    adaptive = AdaptiveLimiter(limiter)
    ToldTwice().chat(_said())
    adaptive.acquire()
    assert [bucket.bucket_id for bucket in limiter.snapshot().buckets] == ["default/*"]


def test_a_call_that_has_no_span_is_sized_by_its_event(limiter):
    said = {"messages": _said(), "additional_kwargs": {}, "span_id": None}
    adaptive = AdaptiveLimiter(limiter)
    for model in ("never-admitted", "m"):
        get_dispatcher().event(LLMChatStartEvent(model_dict={"model_name": model}, **said))
    adaptive.acquire()
    adaptive.acquire()
    buckets = [(bucket.bucket_id, bucket.in_flight) for bucket in limiter.snapshot().buckets]
    assert buckets == [("default/m", 0), ("default/*", 0)]


async def test_acquire_by_hand_counts_what_it_is_told():
    limiter = AdaptiveLimiter(quotas={"requests": 5, "tokens": 1000})
    limiter.acquire()
    limiter.acquire(num_tokens=100)
    await limiter.async_acquire(num_tokens=250)
    (bucket,) = limiter.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (3, 0)
    left = {limit.unit: limit.remaining for limit in bucket.limits}
    assert left == {"requests": pytest.approx(2, abs=0.1), "tokens": pytest.approx(650, abs=5)}


def test_an_llm_that_does_not_use_httpx_is_charged_by_what_it_answers():
    limiter = AdaptiveLimiter(quotas={"tokens": 1000})
    llm = MockLLM(max_tokens=40)
    llm.rate_limiter = limiter
    llm.complete("word " * 40)
    llm.chat(_said("word " * 40))
    (bucket,) = limiter.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (2, 0)
    assert 1000 - bucket.limits[0].remaining == pytest.approx(2 * (50 + 50), rel=0.1)


class Billed(MockLLM):
    """Tells its usage in the form of the SDK that it stands for."""

    told: dict = {}  # noqa: RUF012 - pydantic copies it

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        return ChatResponse(message=ChatMessage(role="assistant", content="x"), **self.told)


class Usage(BaseModel):
    input_tokens: int = 70
    output_tokens: int = 7


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"raw": {"usage": Usage()}}, 77),  # Anthropic
        ({"raw": {"usage": {"inputTokens": 60, "outputTokens": 6, "totalTokens": 66}}}, 66),  # Bedrock
        ({"raw": {"usage_metadata": {"prompt_token_count": 9, "totalTokenCount": 55}}}, 55),
        ({"raw": {"prompt_eval_count": 40, "eval_count": 4, "done": True}}, 44),  # Ollama
        ({"raw": {"x": 1}, "additional_kwargs": {"prompt_tokens": 30, "completion_tokens": 3}}, 33),
        ({"raw": None}, 101),  # nothing: the prompt as guessed, and the answer
        ({"raw": {"usage": None}}, 101),
    ],
)
def test_usage_is_read_where_providers_put_it(told, tokens):
    limiter = AdaptiveLimiter(quotas={"tokens": 1000})
    llm = Billed(is_chat_model=True)
    llm.told, llm.rate_limiter = told, limiter
    llm.chat(_said("word" * 100))
    (bucket,) = limiter.limiter.snapshot().buckets
    assert 1000 - bucket.limits[0].remaining == pytest.approx(tokens, abs=2)


@pytest.mark.parametrize("through", ["AdaptiveLLM", "rate_limiter"])
def test_usage_that_the_sdk_read_but_is_no_number_is_read_from_the_reply(through):
    unread = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"))
    usage = unread | {"input_tokens": 70, "output_tokens": 7}
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [message]}
    limiter = Limiter(quotas={"tokens": 1000})
    with httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, json=reply | {"usage": usage}))
    ) as client:
        llm = OpenAI(model="gpt-4o", api_key="k", max_retries=0, http_client=client)
        if through == "AdaptiveLLM":
            llm = AdaptiveLLM(llm=llm, limiter=limiter)
        else:
            llm.rate_limiter = AdaptiveLimiter(limiter)
        llm.chat(_said())
    (bucket,) = limiter.snapshot().buckets
    assert 1000 - bucket.limits[0].remaining == pytest.approx(77, abs=2)


def test_two_keys_have_two_buckets(lab, client, limiter):
    emulator = lab.provider(**PLENTY)
    rate_limiter = AdaptiveLimiter(limiter)
    for key in ("one", "two", "one"):
        lab.llm(emulator, client, api_key=key, rate_limiter=rate_limiter).chat(_said())
    assert sorted(bucket.admitted for bucket in limiter.snapshot().buckets) == [1, 2]
    assert [bucket.in_flight for bucket in limiter.snapshot().buckets] == [0, 0]
    assert not any("one" in bucket.bucket_id for bucket in limiter.snapshot().buckets)


def test_without_observation_limits_are_not_learned_from_headers(lab, client, limiter):
    emulator = lab.provider(**PLENTY)
    lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(limiter, observe_http=False)).chat(_said())
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (1, 0)


def test_pickled_it_shares_the_limiter():
    limiter = AdaptiveLimiter(quotas={"requests": 7}, max_wait=60)
    again = pickle.loads(pickle.dumps(limiter))
    assert again.limiter is limiter.limiter


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptiveLimiter(limiter="redis"), "limiter must be a Limiter, got 'redis'"),
        (lambda: AdaptiveLimiter(max_wait=-1), "max_wait must be .* got -1"),
        (lambda: AdaptiveLimiter(requests_per_minute=1), "'requests_per_minute'"),
        (lambda: AdaptiveLimiter(Limiter(), max_wait=3), "max_wait=3 belongs to the Limiter"),
        (lambda: AdaptiveLimiter(observe_http="no"), "observe_http must be True or False, got 'no'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()
