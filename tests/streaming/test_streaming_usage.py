"""Usage is found in the chunks of the SDKs, and in dictionaries."""

from types import SimpleNamespace

import pytest
from anthropic.types import RawMessageDeltaEvent, RawMessageStartEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseCompletedEvent

from adaptive_rate_limiter import StreamingReservationContext
from adaptive_rate_limiter.answers import usage_of_result


def chunk(**more):
    fields = {"id": "1", "choices": [], "created": 1, "model": "m", "object": "chat.completion.chunk"}
    return ChatCompletionChunk.model_validate({**fields, **more})


MESSAGE = {
    "id": "1",
    "content": [],
    "model": "m",
    "role": "assistant",
    "type": "message",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 5},
}
START = RawMessageStartEvent.model_validate({"type": "message_start", "message": MESSAGE})
DELTA = RawMessageDeltaEvent.model_validate(
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
)
RESPONSE = ResponseCompletedEvent.model_construct(
    type="response.completed",
    response=SimpleNamespace(usage=SimpleNamespace(input_tokens=20, output_tokens=22, total_tokens=42)),
)


def gemini(*counts):
    names = ("prompt_token_count", "candidates_token_count", "total_token_count")
    return GenerateContentResponse.model_validate({"usage_metadata": dict(zip(names, counts, strict=True))})


FULL = {"prompt_tokens": 20, "completion_tokens": 22, "total_tokens": 42}
BOTH = {"input_tokens": 20, "output_tokens": 22, "tokens": 42}

CHUNKS = {
    "OpenAI, without": (chunk(), None),
    "OpenAI, the last": (chunk(usage=FULL), BOTH),
    "OpenAI, responses": (RESPONSE, BOTH),
    "Anthropic, the first": (START, {"input_tokens": 25, "cached_tokens": 5}),
    "Anthropic, the last but one": (DELTA, {"output_tokens": 15}),
    "Gemini": (gemini(20, 22, 42), BOTH),
    "Gemini, without": (GenerateContentResponse(), None),
    "Gemini, before the answer": (gemini(20, None, 20), {"input_tokens": 20, "tokens": 20}),
    "Gemini's JSON": (
        {"usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 22, "totalTokenCount": 42}},
        BOTH,
    ),
    "a dictionary": ({"usage": FULL}, BOTH),
    "a dictionary with an object inside": ({"usage": SimpleNamespace(**FULL)}, BOTH),
    "an object with a dictionary inside": (SimpleNamespace(usage=FULL), BOTH),
    "Bedrock": ({"metadata": {"usage": {"inputTokens": 20, "outputTokens": 22, "totalTokens": 42}}}, BOTH),
    "text": ("hello", None),
    "bytes": (b"hello", None),
    "nothing": (None, None),
    "an empty dictionary": ({}, None),
    "nonsense": ({"usage": {"total_tokens": "many"}}, None),
    "negative": ({"usage": {"total_tokens": -1}}, None),
    "a class": (dict, None),
}


@pytest.mark.parametrize(("given", "told"), CHUNKS.values(), ids=CHUNKS)
def test_usage_of_a_chunk(given, told):
    assert usage_of_result(given) == told


class Hostile:
    def __getattr__(self, name):
        raise RuntimeError(name)


class Endless:
    def __getattr__(self, name):
        return self


class HostileNumber(int):
    def __ge__(self, other):
        raise RuntimeError

    __le__ = __gt__ = __lt__ = __float__ = __ge__


@pytest.mark.parametrize(
    "make",
    [
        Hostile,
        Endless,
        lambda: {"usage": Endless()},
        lambda: {"usage": Hostile()},
        lambda: {"usage": {"total_tokens": HostileNumber(7)}},
        lambda: SimpleNamespace(usage={"total_tokens": HostileNumber(7)}),
    ],
)
def test_a_hostile_chunk_tells_nothing(make):
    assert usage_of_result(make()) is None


@pytest.mark.parametrize(
    ("chunks", "total"),
    [
        ((START, DELTA), 40),  # Anthropic's input and output come apart
        ((chunk(), chunk(), chunk(usage=FULL)), 42),
        ((gemini(20, None, 20), gemini(20, 10, 30), gemini(20, 22, 42)), 42),
        ((), 1000),
    ],
)
def test_total_of_a_stream(chunks, total):
    context = StreamingReservationContext("res", "bucket", "req", 1000)
    for one in chunks:
        context.record_chunk(one)
    assert context.actual_tokens_for_release == total
