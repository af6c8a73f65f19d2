"""AdaptiveLLM is called: every form of a call is admitted once, settled once, and answered as by the wrapped one."""

import asyncio
import time
from inspect import isawaitable

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    TextBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler, NullEventHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from adaptive_rate_limiter import Limiter
from llama_index.llms.adaptive_rate_limiter import (
    AdaptiveLimiter,
    AdaptiveLLM,
    RateLimiterWaitEvent,
)

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


# LlamaIndex's streams of structured output use what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")


class City(BaseModel):
    """A city."""

    name: str
    people: int


def _prompt():
    """A new one each time: LlamaIndex's programs leave their output parser in it."""
    return PromptTemplate("The largest city of {country}?")


def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


TOOL = FunctionTool.from_defaults(population)


async def _collect(stream):
    return [item async for item in await stream]


def _said(text):
    return [ChatMessage(role="user", content=text)]


CHAT = {
    "chat": lambda llm: llm.chat(_said("hello")),
    "complete": lambda llm: llm.complete("hello"),
    "stream_chat": lambda llm: list(llm.stream_chat(_said("hello"))),
    "stream_complete": lambda llm: list(llm.stream_complete("hello")),
    "predict": lambda llm: llm.predict(_prompt(), country="Italy"),
    "stream": lambda llm: list(llm.stream(_prompt(), country="Italy")),
    "chat_with_tools": lambda llm: llm.chat_with_tools([TOOL], "Rome?"),
    "stream_chat_with_tools": lambda llm: list(
        llm.stream_chat_with_tools([TOOL], chat_history=_said("Rome?"))
    ),
    "predict_and_call": lambda llm: llm.predict_and_call([TOOL], "Rome?"),
}


ACHAT = {
    "achat": lambda llm: llm.achat(_said("hello")),
    "acomplete": lambda llm: llm.acomplete("hello"),
    "astream_chat": lambda llm: _collect(llm.astream_chat(_said("hello"))),
    "astream_complete": lambda llm: _collect(llm.astream_complete("hello")),
    "apredict": lambda llm: llm.apredict(_prompt(), country="Italy"),
    "astream": lambda llm: _collect(llm.astream(_prompt(), country="Italy")),
    "achat_with_tools": lambda llm: llm.achat_with_tools(tools=[TOOL], chat_history=_said("Rome?")),
    "astream_chat_with_tools": lambda llm: _collect(llm.astream_chat_with_tools([TOOL], "Rome?")),
    "apredict_and_call": lambda llm: llm.apredict_and_call([TOOL], "Rome?"),
}


STRUCTURED = {
    "structured_predict": lambda llm: llm.structured_predict(City, _prompt(), country="Italy"),
    "stream_structured_predict": lambda llm: list(
        llm.stream_structured_predict(City, _prompt(), country="Italy")
    )[-1],
    "as_structured_llm": lambda llm: llm.as_structured_llm(City).chat(_said("a city")).raw,
    "as_structured_llm, stream": lambda llm: (
        list(llm.as_structured_llm(City).stream_chat(_said("a city")))[-1].raw
    ),
}


ASTRUCTURED = {
    "astructured_predict": lambda llm: llm.astructured_predict(City, _prompt(), country="Italy"),
    "astream_structured_predict": lambda llm: _collect(
        llm.astream_structured_predict(City, _prompt(), country="Italy")
    ),
    "as_structured_llm": lambda llm: llm.as_structured_llm(City).achat(_said("a city")),
    "as_structured_llm, stream": lambda llm: _collect(
        llm.as_structured_llm(City).astream_chat(_said("a city"))
    ),
}


def _plain(answer):
    """What two calls of the same kind answer alike."""
    if isinstance(answer, list):
        return [_plain(part) for part in answer]
    found = getattr(answer, "message", None)
    return found.blocks[:1] if found is not None else getattr(answer, "text", None) or str(answer)


@pytest.mark.parametrize("form", CHAT)
def test_each_sync_form_is_counted_as_the_provider_counts_it(form, lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    bare = lab.llm(lab.provider(), client, max_tokens=200)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client, max_tokens=200), limiter=limiter)
    assert str(_plain(CHAT[form](llm))) == str(_plain(CHAT[form](bare)))
    same_books(emulator, 1)


@pytest.mark.parametrize("form", ACHAT)
async def test_each_async_form_is_counted_as_the_provider_counts_it(
    form, lab, async_client, limiter, same_books
):
    emulator = lab.provider(**PLENTY)
    bare = lab.llm(lab.provider(), async_client, max_tokens=200)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, max_tokens=200), limiter=limiter)
    assert str(_plain(await ACHAT[form](llm))) == str(_plain(await ACHAT[form](bare)))
    same_books(emulator, 1)


@pytest.mark.parametrize("form", STRUCTURED)
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4-turbo"])  # by JSON schema, and by function calling
def test_structured_output_is_the_wrapped_llms_own(form, model, lab, client, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client, model=model, max_tokens=200), limiter=lab.limiter)
    city = STRUCTURED[form](llm)
    assert City.model_validate(city.model_dump()) == City(name="text", people=1)
    assert (bucket_of().admitted, bucket_of().in_flight, emulator.stats().requests) == (1, 0, 1)


@pytest.mark.parametrize("form", ASTRUCTURED)
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4-turbo"])
async def test_structured_output_in_async(form, model, lab, async_client, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, model=model, max_tokens=200), limiter=lab.limiter)
    answer = await ASTRUCTURED[form](llm)
    last = answer[-1] if isinstance(answer, list) else answer
    city = getattr(last, "raw", last)
    assert City.model_validate(city.model_dump()) == City(name="text", people=1)
    assert (bucket_of().admitted, bucket_of().in_flight, emulator.stats().requests) == (1, 0, 1)


def test_structured_output_of_an_llm_that_calls_no_functions():
    """Its text does not parse, which is its own affair: the error is LlamaIndex's, and nothing stays open."""
    llm = AdaptiveLLM(llm=MockLLM(max_tokens=5))
    with pytest.raises(ValueError, match="Could not extract json"):
        STRUCTURED["structured_predict"](llm)
    (bucket,) = llm.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (1, 0)


def test_an_llm_without_network_is_counted_as_guessed():
    limiter = Limiter(quotas={"tokens": 1000})
    llm = AdaptiveLLM(llm=MockLLM(max_tokens=30), limiter=limiter)
    assert llm.complete("word " * 40).text
    assert list(llm.stream_complete("word " * 40))
    assert llm.chat(_said("word " * 40)).message.content
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.bucket_id, bucket.admitted, bucket.in_flight) == ("default/MockLLM", 3, 0)
    assert 1000 - bucket.limits[0].remaining == pytest.approx(50 + 38 + 50 + 50 + 50 + 38, rel=0.1)


def test_predict_sends_the_wrapped_ones_system_prompt(lab, client):
    seen = []
    emulator = lab.provider(latency=lambda call: seen.append(call.body["messages"]) or 0.0)
    AdaptiveLLM(llm=lab.llm(emulator, client, system_prompt="Be brief.")).predict(_prompt(), country="Italy")
    assert [message["content"] for message in seen[0]] == ["Be brief.", "The largest city of Italy?"]


def test_a_message_with_a_picture_is_sent_as_it_is(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    picture = ImageBlock(image=b"\x89PNG\r\n\x1a\n" + b"\0" * 64, image_mimetype="image/png")
    message = ChatMessage(role="user", blocks=[TextBlock(text="What is it?"), picture])
    llm = AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter)
    assert llm.chat([message]).raw.usage.prompt_tokens > 85  # an image is 85 tokens there
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)


class Heard(BaseEventHandler):
    waits: list = []  # noqa: RUF012 - pydantic copies it

    def handle(self, event, **_):
        if isinstance(event, RateLimiterWaitEvent):
            self.waits.append(event)


@pytest.fixture
def heard():
    handler = Heard()
    get_dispatcher().add_event_handler(handler)
    yield handler.waits
    get_dispatcher().event_handlers.remove(handler)


TIGHT = {"quotas": [{"unit": "requests", "limit": 1, "window": 0.3}]}


@pytest.mark.parametrize("through", ["AdaptiveLLM", "rate_limiter"])
def test_a_wait_is_an_event_of_the_calls_span(through, lab, client, heard):
    emulator = lab.provider(headers=False)
    if through == "AdaptiveLLM":
        llm = AdaptiveLLM(llm=lab.llm(emulator, client), **TIGHT)
    else:
        llm = lab.llm(emulator, client, rate_limiter=AdaptiveLimiter(**TIGHT))
    llm.chat(_said("first"))
    assert not heard
    llm.chat(_said("second"))
    (wait,) = heard
    assert 0.05 < wait.waited < 5
    assert (wait.reason, wait.class_name()) == ("requests", "RateLimiterWaitEvent")
    assert ".chat-" in wait.span_id


class Spanned(Limiter):
    """Notes the span in which it is asked."""

    def acquire(self, *args, **options):
        self.span = active_span_id.get()
        return super().acquire(*args, **options)

    async def aacquire(self, *args, **options):
        self.span = active_span_id.get()
        return await super().aacquire(*args, **options)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_call_has_a_span_of_its_own_while_somebody_hears_of_it(heard, monkeypatch):
    """A span takes as long as the admission of a call."""
    monkeypatch.setattr(get_dispatcher(), "span_handlers", [NullSpanHandler()])
    monkeypatch.setattr(get_dispatcher(), "event_handlers", [Heard()] if heard else [NullEventHandler()])
    AdaptiveLimiter()  # its handlers are in place as well, and need no span of an AdaptiveLLM
    limiter = Spanned()
    llm = AdaptiveLLM(MockLLM(), limiter)
    for form, send in (("chat", llm.chat), ("achat", llm.achat)):
        answer = send(_said("hello"))
        assert (await answer if isawaitable(answer) else answer).message.content
        assert (limiter.span or "").partition("-")[0] == (f"AdaptiveLLM.{form}" if heard else "")


async def test_a_gathered_hundred_is_paced(lab, async_client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=60, window=1.0)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client), limiter=limiter)
    started = time.monotonic()
    await llm.achat(_said("first"))
    answers = await asyncio.gather(*(llm.achat(_said("hello")) for _ in range(100)))
    assert time.monotonic() - started >= 0.6  # 101 calls, of which 60 go at once
    assert all(answer.message.content for answer in answers)
    assert emulator.stats().refused <= 2
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


async def test_events_of_one_call_come_once(lab, async_client):
    events = []

    class Names(BaseEventHandler):
        def handle(self, event, **_):
            events.append(event.class_name())

    handler = Names()
    get_dispatcher().add_event_handler(handler)
    try:
        await AdaptiveLLM(llm=lab.llm(lab.provider(**PLENTY), async_client)).achat(_said("hello"))
    finally:
        get_dispatcher().event_handlers.remove(handler)
    assert events == ["LLMChatStartEvent", "LLMChatEndEvent"]


def test_the_callback_manager_hears_it_once(lab, client):
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = AdaptiveLLM(
        llm=lab.llm(lab.provider(**PLENTY), client), callback_manager=CallbackManager([counter])
    )
    llm.complete("hello")
    assert len(counter.llm_token_counts) == 1
    assert CBEventType.LLM not in counter.event_starts_to_ignore


def test_it_wraps_a_structured_llm_too(lab, client, limiter, same_books):
    emulator = lab.provider(**PLENTY)
    inner = lab.llm(emulator, client, max_tokens=200).as_structured_llm(City)
    assert isinstance(inner, StructuredLLM)
    answer = AdaptiveLLM(llm=inner, limiter=limiter).chat(_said("a city"))
    assert answer.raw == City(name="text", people=1)
    same_books(emulator, 1)


def test_what_is_wrong_with_a_prompt_is_the_wrapped_llms_to_say(lab, client):
    class Broken(PromptTemplate):
        def format_messages(self, *_, **__):
            raise KeyError("country")

    llm = AdaptiveLLM(llm=lab.llm(lab.provider(), client))
    with pytest.raises(KeyError, match="country"):
        llm.structured_predict(City, Broken("The largest city of {country}?"), country="Italy")
    assert llm.limiter.snapshot().buckets[0].in_flight == 0
