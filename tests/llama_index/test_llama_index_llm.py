"""AdaptiveLLM is an LLM: every form of a call is admitted once, settled once, and answered as by the wrapped one."""

import asyncio
import copy
import enum
import pickle
import time
from inspect import isawaitable

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler, NullEventHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.loading import load_llm
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from adaptive_rate_limiter import ConfigurationError, Limiter
from adaptive_rate_limiter.core.estimate import guess_tokens
from llama_index.llms.adaptive_rate_limiter import (
    AdaptiveEmbedding,
    AdaptiveLimiter,
    AdaptiveLLM,
    RateLimiterWaitEvent,
)
from llama_index.llms.adaptive_rate_limiter.calls import describe_llm, messages_prompt, model_of

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


def test_it_calls_functions_if_the_wrapped_one_does(lab, client):
    inner = lab.llm(lab.provider(), client)
    assert isinstance(AdaptiveLLM(llm=inner), FunctionCallingLLM)
    assert isinstance(AdaptiveLLM(inner), AdaptiveLLM)
    plain = AdaptiveLLM(llm=MockLLM())
    assert isinstance(plain, LLM)
    assert not isinstance(plain, FunctionCallingLLM)
    assert not hasattr(plain, "chat_with_tools")


def test_an_llm_without_network_is_counted_as_guessed():
    limiter = Limiter(quotas={"tokens": 1000})
    llm = AdaptiveLLM(llm=MockLLM(max_tokens=30), limiter=limiter)
    assert llm.complete("word " * 40).text
    assert list(llm.stream_complete("word " * 40))
    assert llm.chat(_said("word " * 40)).message.content
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.bucket_id, bucket.admitted, bucket.in_flight) == ("default/MockLLM", 3, 0)
    assert 1000 - bucket.limits[0].remaining == pytest.approx(50 + 38 + 50 + 50 + 50 + 38, rel=0.1)


def test_what_llamaindex_reads_is_the_wrapped_ones(lab, client):
    inner = lab.llm(lab.provider(), client, system_prompt="Be brief.")
    llm = AdaptiveLLM(llm=inner)
    assert llm.metadata == inner.metadata
    assert (llm.system_prompt, llm.model, llm.max_tokens) == ("Be brief.", "gpt-4o", 20)
    if hasattr(inner, "to_payload"):  # since LlamaIndex 0.14.25
        assert llm.to_payload() == inner.to_payload()
    with pytest.raises(AttributeError):
        llm.no_such_thing  # noqa: B018 - reading is what is tested


def test_what_llamaindex_sets_is_set_on_the_wrapped_one(lab, client):
    emulator = lab.provider(**PLENTY)
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client))
    Settings.llm = llm
    Settings.callback_manager = CallbackManager([counter])
    try:
        Settings.llm.chat(_said("hello"))
    finally:
        Settings.llm = Settings.callback_manager = None
    assert counter.prompt_llm_token_count > 0
    assert len(counter.llm_token_counts) == 1  # once, not for the wrapper as well
    given = CallbackManager([])
    assert AdaptiveLLM(llm=llm.llm, callback_manager=given).llm.callback_manager is given
    llm.system_prompt = "Be kind."
    assert llm.llm.system_prompt == "Be kind."


def test_what_only_the_wrapped_one_has_is_set_there(lab, client):
    llm = AdaptiveLLM(llm=lab.llm(lab.provider(), client))
    llm.temperature, llm.model = 0.7, "gpt-4.1"
    assert (llm.llm.temperature, llm.llm.model) == (0.7, "gpt-4.1")
    assert (llm.temperature, llm.metadata.model_name) == (0.7, "gpt-4.1")
    with pytest.raises(ValueError, match="no_such"):
        llm.no_such = 1


def test_no_key_gets_into_an_error(lab, client):
    llm = lab.llm(lab.provider(), client, api_key="sk-secret")
    embedding = lab.embedding(lab.provider(), client, api_key="sk-secret")
    for build in (
        lambda: AdaptiveLLM(AdaptiveLLM(llm)),
        lambda: AdaptiveLLM(AdaptiveLLM(llm).as_structured_llm(City)),
        lambda: AdaptiveLLM(embedding),
        lambda: AdaptiveEmbedding(llm),
        lambda: AdaptiveEmbedding(AdaptiveEmbedding(embedding)),
    ):
        with pytest.raises(ConfigurationError) as raised:
            build()
        assert "secret" not in str(raised.value)


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


WORDS = "word " * 400  # 500 tokens


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        (TextBlock(text=WORDS), 500),
        (ImageBlock(url="http://127.0.0.1/a.png"), 800),
        (AudioBlock(audio=b"RIFF", format="wav"), 800),
        (VideoBlock(url="http://127.0.0.1/a.mp4"), 800),
        (DocumentBlock(data=b"%PDF", document_mimetype="application/pdf"), 800),
        (ThinkingBlock(content=WORDS), 500),
        (ToolCallBlock(tool_name="look", tool_kwargs={"at": WORDS}), 501),
        (CitableBlock(title="t", source="s", content=[TextBlock(text=WORDS)]), 500),
        (CachePoint(cache_control=CacheControl(type="ephemeral")), 0),
    ],
    ids=lambda value: getattr(value, "block_type", ""),
)
def test_each_kind_of_content_counts(block, tokens):
    prompt = messages_prompt([ChatMessage(role="user", blocks=[block])])
    assert guess_tokens(prompt) == tokens


def test_calls_of_tools_in_the_old_form_count():
    message = ChatMessage(
        role="assistant", content="", additional_kwargs={"tool_calls": [{"arguments": WORDS}]}
    )
    assert guess_tokens(messages_prompt([message])) == 500
    assert guess_tokens(messages_prompt(["no message"])) == 3


COPIES = {
    "pickle": lambda llm: pickle.loads(pickle.dumps(llm)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "model_copy": lambda llm: llm.model_copy(),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_shares_the_limiter(how, lab, client):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client), quotas={"requests": 30})
    llm.llm._http_client = None  # which cannot be copied, as LlamaIndex would warn
    clone = COPIES[how](llm)
    clone.llm._http_client = client
    assert isinstance(clone, FunctionCallingLLM)
    assert clone.limiter is llm.limiter
    assert clone.chat(_said("hello")).message.content
    (bucket,) = llm.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (1, 0)


def test_to_dict_and_from_dict(lab, client, monkeypatch):
    llm = AdaptiveLLM(llm=lab.llm(lab.provider(), client, temperature=0.7, system_prompt="Be brief."))
    told = llm.to_dict()
    assert told["class_name"] == AdaptiveLLM.class_name() == "AdaptiveLLM"
    assert "limiter" not in told
    for again in (AdaptiveLLM.from_dict(told), load_llm(told), AdaptiveLLM.from_json(llm.to_json())):
        assert isinstance(again, AdaptiveLLM)
        assert isinstance(again, FunctionCallingLLM)
        assert (again.llm.temperature, again.system_prompt) == (0.7, "Be brief.")
    limiter = Limiter()
    assert AdaptiveLLM.from_dict(told, limiter=limiter).limiter is limiter
    assert AdaptiveLLM.model_json_schema()["properties"]["llm"]


class Kind(str, enum.Enum):
    SMALL = "small"


class Named(MockLLM):
    @property
    def metadata(self):
        return LLMMetadata(model_name="of-metadata")


class Own(MockLLM):
    """An LLM that LlamaIndex's loader does not know."""

    @classmethod
    def class_name(cls):
        return "own_llm"


def test_from_dict_of_an_llm_that_is_only_imported():
    assert isinstance(AdaptiveLLM.from_dict(AdaptiveLLM(llm=Own()).to_dict()).llm, Own)
    with pytest.raises(ValueError, match="no_such"):
        AdaptiveLLM.from_dict({"llm": {"class_name": "no_such"}})


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


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptiveLLM(llm="gpt-4o"), "llm must be a LlamaIndex LLM, got 'gpt-4o'"),
        (lambda: AdaptiveLLM(llm=None), "llm must be a LlamaIndex LLM, got None"),
        (
            lambda: AdaptiveLLM(llm=AdaptiveLLM(llm=MockLLM())),
            "llm is limited already, by its own AdaptiveLLM",
        ),
        (
            lambda: AdaptiveLLM(llm=AdaptiveLLM(llm=MockLLM()).as_structured_llm(City)),
            "limited already, by the AdaptiveLLM that is its llm: StructuredLLM",
        ),
        (lambda: AdaptiveLLM(llm=MockLLM), "llm must be a LlamaIndex LLM, got <class '.*MockLLM'>"),
        (lambda: AdaptiveLLM(llm=MockEmbedding(embed_dim=2)), "got MockEmbedding"),
        (lambda: AdaptiveLLM(llm=_limited()), "llm is limited already, by rate_limiter=<"),
        (lambda: AdaptiveLLM(llm=MockLLM(), limiter="redis"), "limiter must be a Limiter, got 'redis'"),
        (
            lambda: AdaptiveLLM(llm=MockLLM(), limiter=Limiter(), max_wait=3),
            "max_wait=3 belongs to the Limiter",
        ),
        (lambda: AdaptiveLLM(llm=MockLLM(), requests_per_second=1), "'requests_per_second'"),
        (lambda: AdaptiveLLM(llm=MockLLM(), max_wait=-1), "max_wait must be .* got -1"),
        (
            lambda: AdaptiveLLM(llm=MockLLM(), rate_limiter=TokenBucketRateLimiter()),
            "limited by its limiter=, not by rate_limiter=Token",
        ),
        (
            lambda: setattr(AdaptiveLLM(llm=MockLLM()), "rate_limiter", AdaptiveLimiter()),
            "limited by its limiter=, not by rate_limiter=<",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()


def _limited():
    llm = MockLLM()
    llm.rate_limiter = AdaptiveLimiter()
    return llm


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


def test_the_rest_of_an_llm_is_the_wrapped_ones(lab, client):
    inner = lab.llm(lab.provider(), client)
    llm = AdaptiveLLM(llm=inner)
    messages = _said("hello")
    assert llm.convert_chat_messages(messages) == inner.convert_chat_messages(messages)
    prepared = llm._prepare_chat_with_tools([TOOL], "Rome?", tool_required=True)
    assert prepared == inner._prepare_chat_with_tools([TOOL], "Rome?", tool_required=True)
    with pytest.raises(AttributeError):
        llm._no_such_thing  # noqa: B018 - reading is what is tested


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "gpt-4o"}, "gpt-4o"),
        ({"engine": "my-deployment", "model": "gpt-4o"}, "my-deployment"),
        ({"model_name": "unknown"}, "of-metadata"),
        ({}, "of-metadata"),
        ({"model": Kind.SMALL}, "small"),
    ],
)
def test_the_name_under_which_a_provider_limits(fields, named):
    llm = Named()
    llm.__dict__.update(fields)
    assert model_of(llm) == named
    assert describe_llm(llm, [], {"model": "of-the-call"})["model"] == "of-the-call"


@pytest.mark.parametrize(
    ("fields", "options", "bound"),
    [
        ({}, {}, None),
        ({"max_tokens": 100}, {}, 100),
        ({"max_tokens": 100, "additional_kwargs": {"max_completion_tokens": 50}}, {}, 50),
        ({"max_tokens": 100, "additional_kwargs": {"max_completion_tokens": 50}}, {"max_tokens": 7}, 7),
        ({"max_tokens": "many"}, {"max_tokens": True}, None),
    ],
)
def test_the_bound_of_the_answer_is_the_calls_before_the_llms(fields, options, bound):
    llm = Named()
    llm.__dict__.update(fields)
    assert describe_llm(llm, [], options)["max_tokens"] == bound
