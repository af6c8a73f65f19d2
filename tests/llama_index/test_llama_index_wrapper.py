"""AdaptiveLLM is the LLM that it wraps: what is read of it, set on it, copied, written down, refused, and told of its calls."""

import copy
import enum
import pickle

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
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.loading import load_llm
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, create_model

from adaptive_rate_limiter import ConfigurationError, Limiter
from adaptive_rate_limiter.core.estimate import guess_tokens
from llama_index.llms.adaptive_rate_limiter import (
    AdaptiveEmbedding,
    AdaptiveLimiter,
    AdaptiveLLM,
)
from llama_index.llms.adaptive_rate_limiter.calls import describe_llm, messages_prompt, model_of

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


class City(BaseModel):
    """A city."""

    name: str
    people: int


def _said(text):
    return [ChatMessage(role="user", content=text)]


def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


TOOL = FunctionTool.from_defaults(population)


def test_it_calls_functions_if_the_wrapped_one_does(lab, client):
    inner = lab.llm(lab.provider(), client)
    assert isinstance(AdaptiveLLM(llm=inner), FunctionCallingLLM)
    assert isinstance(AdaptiveLLM(inner), AdaptiveLLM)
    plain = AdaptiveLLM(llm=MockLLM())
    assert isinstance(plain, LLM)
    assert not isinstance(plain, FunctionCallingLLM)
    assert not hasattr(plain, "chat_with_tools")


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


def _with(fields):
    """An LLM that has these, as its class declares."""
    llm = create_model("Declared", __base__=Named, **dict.fromkeys(fields, (object, None)))()
    for name, value in fields.items():
        setattr(llm, name, value)
    return llm


class Own(MockLLM):
    """An LLM that LlamaIndex's loader does not know."""

    @classmethod
    def class_name(cls):
        return "own_llm"


def test_from_dict_of_an_llm_that_is_only_imported():
    assert isinstance(AdaptiveLLM.from_dict(AdaptiveLLM(llm=Own()).to_dict()).llm, Own)
    with pytest.raises(ValueError, match="no_such"):
        AdaptiveLLM.from_dict({"llm": {"class_name": "no_such"}})


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


def test_the_rest_of_an_llm_is_the_wrapped_ones(lab, client):
    inner = lab.llm(lab.provider(), client)
    llm = AdaptiveLLM(llm=inner)
    messages = _said("hello")
    assert llm.convert_chat_messages(messages) == inner.convert_chat_messages(messages)
    prepared = llm._prepare_chat_with_tools([TOOL], "Rome?", tool_required=True)
    assert prepared == inner._prepare_chat_with_tools([TOOL], "Rome?", tool_required=True)
    with pytest.raises(AttributeError):
        llm._no_such_thing  # noqa: B018 - reading is what is tested


WORDS = "word " * 400  # 500 tokens


class Quoted(TextBlock):
    pass


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        (TextBlock(text=WORDS), 500),
        (Quoted(text=WORDS), 500),
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


def test_a_call_of_a_tool_that_is_told_twice_counts_once():
    message = ChatMessage(
        role="assistant",
        blocks=[ToolCallBlock(tool_name="look", tool_kwargs={"at": WORDS})],
        additional_kwargs={"tool_calls": [{"arguments": WORDS}]},
    )
    assert guess_tokens(messages_prompt([message])) == 501


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
    llm = _with(fields)
    assert model_of(llm) == named
    assert describe_llm(llm, [], {"model": "of-the-call"})["model"] == "of-the-call"


def test_what_is_set_on_an_llm_counts_from_its_next_call_on():
    llm = _with({"model": "gpt-4o", "api_key": "one", "max_tokens": 1})
    before = describe_llm(llm, [], {})
    llm.model, llm.api_key, llm.max_tokens = "gpt-4", "another", True
    after = describe_llm(llm, [], {})
    assert (before["model"], after["model"]) == ("gpt-4o", "gpt-4")
    assert before["route"] != after["route"]
    assert (before["max_tokens"], after["max_tokens"]) == (
        1,
        None,
    )  # True is equal to 1, and is no number of tokens


def test_a_field_that_cannot_be_hashed_is_read_like_any_other():
    route = describe_llm(_with({"model": "gpt-4o", "api_base": ["http://one"]}), [], {})["route"]
    assert route[1:] == ("['http://one']", None)


def test_a_field_that_was_never_set_is_read_as_none():
    whole, part = (_with({"model": "gpt-4o", "api_key": "one", "max_tokens": None}) for _ in range(2))
    del part.__dict__["max_tokens"]
    assert describe_llm(part, [], {}) == describe_llm(whole, [], {})


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
    llm = _with(fields)
    assert describe_llm(llm, [], options)["max_tokens"] == bound
