"""Which objects of the SDKs and HTTP libraries are streams, and which only look like some."""

import aiohttp
import anthropic
import anthropic.lib.streaming
import anthropic.types
import google.genai.types
import groq
import groq.types.chat
import httpx
import httpx2
import mistralai.client.models
import mistralai.client.utils.eventstreaming as mistral_streaming
import ollama
import openai
import openai.pagination
import openai.types.chat
import openai.types.responses
import pydantic
import pytest

from adaptive_rate_limiter.streaming import is_stream


class Model(pydantic.BaseModel):
    """A pydantic model yields its fields."""

    answer: int = 42


STREAMS = [
    openai.AsyncStream,
    anthropic.AsyncStream,
    anthropic.lib.streaming.AsyncMessageStream,
    groq.AsyncStream,
    mistral_streaming.EventStreamAsync,
]
RESULTS = [
    httpx.Response,
    httpx2.Response,
    aiohttp.ClientResponse,
    openai.types.chat.ChatCompletion,
    openai.types.responses.Response,
    openai.pagination.AsyncPage,
    openai.pagination.AsyncCursorPage,
    openai._legacy_response.LegacyAPIResponse,
    openai._legacy_response.HttpxBinaryResponseContent,
    openai._response.AsyncAPIResponse,
    anthropic.types.Message,
    anthropic.lib.streaming.AsyncMessageStreamManager,
    groq.types.chat.ChatCompletion,
    mistralai.client.models.ChatCompletionResponse,
    google.genai.types.GenerateContentResponse,
    ollama.ChatResponse,
    Model,
]


@pytest.mark.parametrize("kind", STREAMS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_stream(kind):
    assert is_stream(kind.__new__(kind))


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_stream(kind):
    assert not is_stream(kind.__new__(kind))
