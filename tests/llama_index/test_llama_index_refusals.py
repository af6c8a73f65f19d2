"""Refusals: those that time cures are waited out; the others reach the caller unchanged, with the reason as a note."""

import httpx
import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.llms.openai import OpenAI

from adaptive_rate_limiter import Limiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter, AdaptiveLLM, attempts

SPENT = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}
LIMITED = {
    "error": {
        "message": "Rate limit reached for requests. Please try again in 20ms.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}
GOOD = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
}  # fmt: skip
SOON = {"retry-after-ms": "20"}


def _said(text="hello"):
    return [ChatMessage(role="user", content=text)]


class Wire:
    """Answers with a script, below everything that is tested, and counts."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, headers=headers, json=body)

    def llm(self, **options):
        given = {"model": "gpt-4o", "api_key": "k", "max_retries": 0} | options
        return OpenAI(
            http_client=httpx.Client(transport=httpx.MockTransport(self)),
            async_http_client=httpx.AsyncClient(transport=httpx.MockTransport(self)),
            **given,
        )


async def _collect(stream):
    return [item async for item in await stream]


FORMS = {
    "chat": lambda llm: llm.chat(_said()),
    "complete": lambda llm: llm.complete("hello"),
    "stream_chat": lambda llm: list(llm.stream_chat(_said())),
    "achat": lambda llm: llm.achat(_said()),
    "astream_chat": lambda llm: _collect(llm.astream_chat(_said())),
}


async def _run(form, llm):
    answer = FORMS[form](llm)
    return await answer if form.startswith("a") else answer


def _notes(error):
    return " ".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("form", FORMS)
async def test_a_spent_quota_surfaces_after_one_attempt_with_the_reason(form, limiter):
    wire = Wire((429, {}, SPENT))
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as raised:
        await _run(form, AdaptiveLLM(llm=wire.llm(), limiter=limiter))
    assert type(raised.value) is openai.RateLimitError
    assert "default/gpt-4o refused this call for good: quota_exhausted" in _notes(raised.value)
    assert raised.value.__context__ is None or not isinstance(raised.value.__context__, RuntimeError)
    assert len(wire.requests) == 1
    assert limiter.snapshot().buckets[0].in_flight == 0


@pytest.mark.parametrize("form", FORMS)
async def test_the_same_through_rate_limiter(form, limiter):
    wire = Wire((429, {}, SPENT))
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as raised:
        await _run(form, wire.llm(rate_limiter=AdaptiveLimiter(limiter)))
    assert "default/gpt-4o refused this call: quota_exhausted" in _notes(raised.value)
    assert len(wire.requests) == 1
    assert limiter.snapshot().buckets[0].in_flight == 0


@pytest.mark.parametrize("form", ["chat", "complete", "achat"])
async def test_a_refusal_is_waited_out_and_the_call_is_sent_again(form, limiter):
    wire = Wire((429, SOON, LIMITED), (200, {}, GOOD))
    answer = await _run(form, AdaptiveLLM(llm=wire.llm(), limiter=limiter))
    assert "Hello." in str(answer)
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.refused, bucket.in_flight) == (2, 1, 0)
    assert len(wire.requests) == 2


@pytest.mark.parametrize("form", ["stream_chat", "astream_chat"])
async def test_a_stream_that_is_refused_at_its_start_is_sent_again(form, lab, client, async_client, limiter):
    emulator = lab.provider("ietf", requests_per_minute=1, window=0.5, latency=0.0)
    await async_client.post(emulator.base_url + "/chat/completions", json={"model": "gpt-4o", "messages": []})
    side = async_client if form == "astream_chat" else client
    answer = await _run(form, AdaptiveLLM(llm=lab.llm(emulator, side), limiter=limiter))
    assert len(answer) > 2
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.refused, bucket.in_flight) == (1, 0)


async def test_a_wait_beyond_the_deadline_is_not_begun():
    wire = Wire((429, {"retry-after": "30"}, LIMITED))
    llm = AdaptiveLLM(llm=wire.llm(), max_wait=0.5)
    for form in FORMS:
        with pytest.raises((openai.RateLimitError, Exception)) as raised:
            await _run(form, llm)
        if form == "chat":
            assert type(raised.value) is openai.RateLimitError
            assert "adaptive-rate-limiter: default/gpt-4o" in _notes(raised.value)
    assert len(wire.requests) == 1


@pytest.fixture
def two_sends(monkeypatch):
    """Instead of ten: after each refusal the limiter waits longer."""
    monkeypatch.setattr(attempts, "MOST_SENDS", 2)


@pytest.mark.parametrize("form", ["chat", "stream_chat", "astream_chat"])
async def test_who_is_refused_each_time_gives_up(form, limiter, two_sends):
    wire = Wire((429, {"retry-after-ms": "1"}, LIMITED))
    with pytest.raises(openai.RateLimitError) as raised:
        await _run(form, AdaptiveLLM(llm=wire.llm(), limiter=limiter))
    assert "default/gpt-4o refused this call 2 times" in _notes(raised.value)
    assert len(wire.requests) == 2
    assert limiter.snapshot().buckets[0].in_flight == 0


def test_the_retries_of_the_sdk_count_among_the_attempts(limiter, two_sends):
    wire = Wire((429, {"retry-after-ms": "1"}, LIMITED))
    client = openai.OpenAI(
        api_key="k", max_retries=1, http_client=httpx.Client(transport=httpx.MockTransport(wire))
    )
    llm = OpenAI(model="gpt-4o", api_key="k", max_retries=0, openai_client=client)
    with pytest.raises(openai.RateLimitError):
        AdaptiveLLM(llm=llm, limiter=limiter).chat(_said())
    assert len(wire.requests) == 2


def test_a_request_that_is_too_large_surfaces_after_one_attempt(lab, client, limiter, bucket_of):
    emulator = lab.provider(tokens_per_minute=100)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter)
    with pytest.raises(openai.RateLimitError, match="too large") as raised:
        llm.chat(_said("word" * 1000))
    assert "request_too_large" in _notes(raised.value)
    assert emulator.stats().requests == 1
    assert bucket_of().in_flight == 0
    assert llm.chat(_said()).message.content  # the bucket is not paused by it


def test_messages_are_not_changed_by_the_attempts(limiter):
    """OpenAI's LLM adds the user's message to the history that it is given."""
    wire = Wire((429, SOON, LIMITED), (200, {}, GOOD))
    history = _said("before")
    AdaptiveLLM(llm=wire.llm(), limiter=limiter).chat_with_tools([], "now", history)
    assert [
        len(httpx.Response(200, content=request.read()).json()["messages"]) for request in wire.requests
    ] == [2, 2]
    assert len(history) == 1


class NoNotesError(Exception):
    """As all errors are in Python 3.10."""

    add_note = None
    status_code = 429
    body = SPENT


def test_a_note_is_kept_where_python_has_no_notes(limiter):
    llm = Scripted()
    llm.script = [NoNotesError("no more")]
    with pytest.raises(NoNotesError) as raised:
        AdaptiveLLM(llm=llm, limiter=limiter).chat(_said())
    (note,) = raised.value.__notes__
    assert note == "adaptive-rate-limiter: default/scripted refused this call for good: quota_exhausted"


# SDKs that do not use httpx: what their errors tell


class Scripted(MockLLM):
    script: list = []  # noqa: RUF012 - pydantic copies it
    model: str = "scripted"
    calls: int = 0

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        self.calls += 1
        if self.script:
            raise self.script.pop(0)
        return ChatResponse(message=ChatMessage(role="assistant", content="hello"))


class BotoError(Exception):
    def __init__(self, code, status):
        super().__init__(code)
        self.response = {
            "Error": {"Code": code, "Message": "Too many requests, please wait before trying again."},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "0.02"}},
        }


class GrpcCode:
    name, value = "RESOURCE_EXHAUSTED", (8, "resource exhausted")


class GrpcError(Exception):
    def code(self):
        return GrpcCode


class BrokenError(Exception):
    def code(self):
        raise RuntimeError("not connected")


class StatusError(Exception):
    status = 429
    headers = {"retry-after": "0.02"}  # noqa: RUF012 - as SDKs have it


class ResponseError(Exception):
    def __init__(self):
        super().__init__("refused")
        self.response = httpx.Response(429, headers={"retry-after": "0.02"}, json=LIMITED)


@pytest.mark.parametrize(
    "error", [BotoError("ThrottlingException", 429), StatusError("slow down"), ResponseError()], ids=repr
)
def test_a_refusal_that_only_an_error_tells_is_waited_out(error, limiter):
    llm = Scripted()
    llm.script = [error]
    assert AdaptiveLLM(llm=llm, limiter=limiter).chat(_said()).message.content == "hello"
    (bucket,) = limiter.snapshot().buckets
    assert (llm.calls, bucket.admitted, bucket.refused, bucket.in_flight) == (2, 2, 1, 0)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (BotoError("ValidationException", 400), 0),
        (BrokenError("x"), 0),
        (ValueError("y"), 0),
        (GrpcError("z"), 1),
    ],
    ids=repr,
)
def test_what_an_error_tells_is_learned_through_rate_limiter(error, refused, limiter):
    llm = Scripted()
    llm.script, llm.rate_limiter = [error], AdaptiveLimiter(limiter)
    with pytest.raises(type(error)):
        llm.chat(_said())
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.admitted, bucket.refused, bucket.in_flight) == (1, refused, 0)


# Embeddings


def test_a_batch_that_is_refused_is_waited_out(lab, client, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1, window=0.5, latency=0.0)
    bare = lab.embedding(emulator, client)
    bare.get_text_embedding("takes the limit")
    embedding = AdaptiveEmbedding(lab.embedding(emulator, client), limiter)
    assert len(embedding.get_text_embedding_batch(["a", "b"])) == 2
    assert (bucket_of().refused, bucket_of().in_flight) == (1, 0)


def test_two_limiters_of_one_process_do_not_share(lab, client):
    emulator = lab.provider(requests_per_minute=1000)
    one, two = Limiter(), Limiter()
    AdaptiveLLM(llm=lab.llm(emulator, client), limiter=one).chat(_said())
    AdaptiveLLM(llm=lab.llm(emulator, client), limiter=two).chat(_said())
    assert [limiter.snapshot().buckets[0].admitted for limiter in (one, two)] == [1, 1]
