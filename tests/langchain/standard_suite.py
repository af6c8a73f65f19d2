"""LangChain's standard tests of chat models and embeddings against the emulator: each model bare, and limited.

test_langchain_standard.py runs it, in a process of its own with the settings that these tests expect, and compares.
"""

from __future__ import annotations

import functools

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from adaptive_rate_limiter.testing import ProviderEmulator, ToolCall
from langchain_adaptive_rate_limiter import AdaptiveEmbeddings, AdaptiveLimiter

PLENTY = {"requests_per_minute": 10_000, "tokens_per_minute": 10_000_000, "latency": 0.001}
ARGUMENTS = {
    "magic_function": {"input": 3},
    "unicode_customer": {"customer_name": "你好啊集团 こんにちは株式会社", "description": "A company"},
}
REMEMBERED = {}


def tool_calls(call):
    """The emulator's own way, with the arguments that the tests expect of a clever model."""
    if not call.tools or call.tool_choice == "none" or (call.tool_choice == "auto" and call.answered):
        return None
    names = [tool.name for tool in call.tools]
    name = call.tool_choice if call.tool_choice in names else names[0]
    return ToolCall(name, ARGUMENTS[name]) if name in ARGUMENTS else name


@functools.cache
def provider(name):
    emulator = ProviderEmulator(name, tool_calls=tool_calls, **PLENTY)
    emulator.start()
    return emulator


@pytest.fixture(scope="session", autouse=True)
def _stopped():
    yield
    for name in ("openai", "anthropic"):
        provider(name).stop()


@pytest.fixture
def snapshot(request):
    """What the bare model's was: in place of a file of snapshots."""
    kind = request.cls.__name__.removesuffix("Bare").removesuffix("Limited")

    def remembered(name):
        class Same:
            def __eq__(self, other):
                return REMEMBERED.setdefault((kind, name), other) == other

            __hash__ = None

        return Same()

    return remembered


@pytest.fixture
def benchmark():
    return lambda call: call()


@pytest.fixture
def vcr():
    """For a test that is skipped where nothing was recorded."""


class OfOpenAI:
    limited = False

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        given = {
            "model": "gpt-4o", "api_key": "k", "stream_usage": True, "base_url": provider("openai").base_url,
        }  # fmt: skip
        return given | ({"rate_limiter": AdaptiveLimiter()} if self.limited else {})


class OfAnthropic(OfOpenAI):
    @property
    def chat_model_class(self):
        return ChatAnthropic

    @property
    def chat_model_params(self):
        given = {
            "model": "claude-sonnet-4-5", "api_key": "k", "base_url": provider("anthropic").base_url,
        }  # fmt: skip
        return given | ({"rate_limiter": AdaptiveLimiter()} if self.limited else {})


class TestOpenAIBare(OfOpenAI, ChatModelIntegrationTests):
    pass


class TestOpenAIUnitsBare(OfOpenAI, ChatModelUnitTests):
    pass


class TestAnthropicBare(OfAnthropic, ChatModelIntegrationTests):
    pass


class TestAnthropicUnitsBare(OfAnthropic, ChatModelUnitTests):
    pass


class TestOpenAILimited(TestOpenAIBare):
    limited = True


class TestOpenAIUnitsLimited(TestOpenAIUnitsBare):
    limited = True


class TestAnthropicLimited(TestAnthropicBare):
    limited = True


class TestAnthropicUnitsLimited(TestAnthropicUnitsBare):
    limited = True


def _embeddings():
    return {
        "model": "text-embedding-3-small", "api_key": "k", "base_url": provider("openai").base_url,
        "check_embedding_ctx_length": False,
    }  # fmt: skip


class OfEmbeddings:
    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        return _embeddings()


class OfAdaptiveEmbeddings:
    @property
    def embeddings_class(self):
        return AdaptiveEmbeddings

    @property
    def embedding_model_params(self):
        return {"embeddings": OpenAIEmbeddings(**_embeddings())}


class TestEmbeddingsBare(OfEmbeddings, EmbeddingsIntegrationTests):
    pass


class TestEmbeddingsUnitsBare(OfEmbeddings, EmbeddingsUnitTests):
    pass


class TestEmbeddingsLimited(OfAdaptiveEmbeddings, EmbeddingsIntegrationTests):
    pass


class TestEmbeddingsUnitsLimited(OfAdaptiveEmbeddings, EmbeddingsUnitTests):
    pass
