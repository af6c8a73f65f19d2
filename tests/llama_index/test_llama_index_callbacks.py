"""AdaptiveCallbackHandler watches without limiting, through LlamaIndex's instrumentation or its callback manager."""

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent
from llama_index.core.llms import MockLLM

from adaptive_rate_limiter import ConfigurationError, Limiter, Quota
from llama_index.llms.adaptive_rate_limiter import AdaptiveCallbackHandler, callbacks

YEARS = 1e8  # seconds: nothing of the limit comes back during a test
PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


def _said(text="hello"):
    return [ChatMessage(role="user", content=text)]


@pytest.fixture(params=["instrumentation", "callback manager"])
def watched(request, lab):
    """Models that a handler watches, in each of the two ways."""
    limiter = Limiter(quotas=[Quota("tokens", 100_000, YEARS)])
    handler = AdaptiveCallbackHandler(limiter)
    if request.param == "instrumentation":
        get_dispatcher().add_event_handler(handler)
        yield limiter, lambda model: model
        get_dispatcher().event_handlers.remove(handler)
    else:

        def watch(model):
            model.callback_manager = CallbackManager([handler])
            return model

        yield limiter, watch
    assert handler._calls == {}


def _used(limiter, model=""):
    (bucket,) = [bucket for bucket in limiter.snapshot().buckets if model in bucket.bucket_id]
    assert (bucket.in_flight, bucket.waiting) == (0, 0)
    (tokens,) = [limit for limit in bucket.limits if limit.source == "stated"]
    return bucket.admitted, round(100_000 - tokens.remaining, -1), bucket.refused


@pytest.mark.parametrize("form", ["chat", "complete", "stream_chat", "stream_complete"])
def test_calls_are_counted_with_their_usage(form, lab, client, watched):
    limiter, watch = watched
    llm = watch(lab.llm(lab.provider(output_tokens=200), client, max_tokens=None))
    text = "word" * 500
    answer = getattr(llm, form)(_said(text) if "chat" in form else text)
    if "stream" in form:
        assert list(answer)
    assert _used(limiter) == (1, 700, 0)


@pytest.mark.parametrize("form", ["achat", "astream_chat"])
async def test_async_calls_are_counted(form, lab, async_client, watched):
    limiter, watch = watched
    llm = watch(lab.llm(lab.provider(output_tokens=200), async_client, max_tokens=None))
    answer = await getattr(llm, form)(_said("word" * 500))
    if form == "astream_chat":
        assert [chunk async for chunk in answer]
    assert _used(limiter) == (1, 700, 0)


def test_embeddings_are_counted(watched):
    limiter, watch = watched
    model = watch(MockEmbedding(embed_dim=2, embed_batch_size=5))
    model.get_text_embedding_batch(["word" * 100] * 10)
    model.get_query_embedding("word" * 100)
    assert _used(limiter) == (3, 1100, 0)


async def test_async_embeddings_are_counted(watched):
    limiter, watch = watched
    model = watch(MockEmbedding(embed_dim=2, embed_batch_size=5))
    await model.aget_text_embedding_batch(["word" * 100] * 10)
    assert _used(limiter) == (2, 1000, 0)


@pytest.mark.parametrize("form", ["chat", "stream_chat"])
def test_a_refusal_is_noted_and_not_waited_for(form, lab, client, watched):
    limiter, watch = watched
    emulator = lab.provider(requests_per_minute=1, latency=0.0)
    llm = watch(lab.llm(emulator, client))
    llm.chat(_said())
    with pytest.raises(Exception, match="429"):
        list(getattr(llm, form)(_said()))
    admitted, _, refused = _used(limiter)
    assert (admitted, refused) == (2, 1)


def test_it_holds_nothing_back(watched):
    limiter, watch = watched
    llm = watch(MockLLM(max_tokens=50_000))
    for _ in range(5):  # 250,000 tokens, where 100,000 are the limit
        llm.complete("hello")
    assert _used(limiter)[0] == 5


def test_calls_whose_end_is_never_told_are_bounded(monkeypatch):
    monkeypatch.setattr(callbacks, "MOST_CALLS", 3)
    handler = AdaptiveCallbackHandler()
    for number in range(5):
        handler.handle(
            LLMChatStartEvent(
                messages=_said(), additional_kwargs={}, model_dict={"model_name": "m"}, span_id=str(number)
            )
        )
    assert list(handler._calls) == ["2", "3", "4"]
    assert handler.limiter.snapshot().buckets[0].in_flight == 3


def test_ends_of_what_it_has_not_seen_begin_are_nothing_to_it(lab, client):
    handler = AdaptiveCallbackHandler()
    llm = lab.llm(lab.provider(faults=[None, 500]), client)
    stream = llm.stream_chat(_said())
    get_dispatcher().add_event_handler(handler)
    try:
        assert list(stream)
    finally:
        get_dispatcher().event_handlers.remove(handler)
    assert handler.limiter.snapshot().buckets == ()
    handler.start_trace("a")
    handler.end_trace("a")
    assert handler.class_name() == "AdaptiveCallbackHandler"


def test_a_wrong_argument_is_named_with_its_value():
    with pytest.raises(ConfigurationError, match="limiter must be a Limiter, got 3"):
        AdaptiveCallbackHandler(3)
