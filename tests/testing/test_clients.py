"""Real clients against the emulator."""

import json

import anthropic
import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from adaptive_rate_limiter.testing import ToolCall

KEY = "not-a-key"
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
ANTHROPIC_TOOL = {"name": "weather", "description": "Weather", "input_schema": WEATHER}


class City(BaseModel):
    name: str
    inhabitants: int


@pytest.fixture
def emulator(provider_emulator):
    return provider_emulator("openai", requests_per_minute=1000, tokens_per_minute=100_000, latency=0.0)


@pytest.fixture
def claude(provider_emulator):
    return provider_emulator(
        "anthropic",
        requests_per_minute=1000,
        input_tokens_per_minute=50_000,
        output_tokens_per_minute=10_000,
        latency=0.0,
    )


@pytest.fixture
def client(emulator):
    with openai.OpenAI(api_key=KEY, base_url=emulator.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(claude):
    with anthropic.Anthropic(api_key=KEY, base_url=claude.base_url, max_retries=0) as client:
        yield client


def test_openai_chat(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK, max_tokens=5, n=2)
    answer = raw.parse()
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 10)
    assert len(answer.choices[0].message.content) == 20
    assert raw.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 8 - 10)


def test_openai_chat_streamed(client, emulator):
    whole = client.chat.completions.create(model="gpt-4o", messages=ASK).choices[0].message.content
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage.total_tokens == 24
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert emulator.stats().in_flight == 0


async def test_openai_async(emulator):
    async with openai.AsyncOpenAI(api_key=KEY, base_url=emulator.base_url) as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts)


def test_openai_calls_a_tool_once(client):
    first = client.chat.completions.create(model="gpt-4o", messages=ASK, tools=[OPENAI_TOOL]).choices[0]
    call = first.message.tool_calls[0]
    assert first.finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "text", "days": 3}
    told = [*ASK, first.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = client.chat.completions.create(model="gpt-4o", messages=told, tools=[OPENAI_TOOL]).choices[0]
    assert second.finish_reason == "stop"
    none = client.chat.completions.create(
        model="gpt-4o", messages=ASK, tools=[OPENAI_TOOL], tool_choice="none"
    )
    assert none.choices[0].finish_reason == "stop"


def test_openai_streams_tool_calls(client):
    with client.chat.completions.stream(model="gpt-4o", messages=ASK, tools=[OPENAI_TOOL]) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)["days"]) == ("weather", 3)


def test_tool_calls_by_script(provider_emulator):
    script = {0: ToolCall("weather", {"city": "Oslo"}), 1: ["weather", "weather"], 2: "weather", 3: None}
    emulator = provider_emulator(tool_calls=lambda call: script[call.index], latency=0.0)
    with openai.OpenAI(api_key=KEY, base_url=emulator.base_url) as client:
        found = [
            client.chat.completions.create(model="m", messages=ASK, tools=[OPENAI_TOOL])
            .choices[0]
            .message.tool_calls
            for _ in range(4)
        ]
    assert [len(calls or ()) for calls in found] == [1, 2, 1, 0]
    assert json.loads(found[0][0].function.arguments) == {"city": "Oslo"}


def test_openai_structured_output(client):
    answer = client.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=City)
    assert answer.choices[0].message.parsed == City(name="text", inhabitants=1)


@pytest.mark.parametrize("form", [openai.omit, "float", "base64"])
def test_openai_embeddings(client, form):
    texts = ["one", "two", "one"]
    answer = client.embeddings.create(model="e", input=texts, dimensions=8, encoding_format=form)
    one, two, again = (found.embedding for found in answer.data)
    assert one == again != two
    if form is not openai.omit and form == "base64":
        assert isinstance(one, str)
    else:
        assert sum(x * x for x in one) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize(("given", "count"), [("12345", 2), ([1, 2, 3], 3), ([[1, 2], [3]], 3)])
def test_openai_embeddings_of_token_numbers(client, given, count):
    assert client.embeddings.create(model="e", input=given).usage.total_tokens == count


def test_openai_responses(client):
    answer = client.responses.create(model="gpt-4o", input="Hello there", max_output_tokens=3)
    assert len(answer.output_text) == 12
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    called = client.responses.create(model="gpt-4o", input=ASK, tools=[tool])
    assert json.loads(called.output[0].arguments) == {"city": "text", "days": 3}
    result = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "sunny"}
    assert client.responses.create(model="gpt-4o", input=[*ASK, result], tools=[tool]).output_text
    assert client.responses.parse(model="gpt-4o", input="x", text_format=City).output_parsed.inhabitants == 1


def test_openai_responses_streamed(client):
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    with client.responses.stream(model="gpt-4o", input="Hello") as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert deltas == stream.get_final_response().output_text
    with client.responses.stream(model="gpt-4o", input="Hello", tools=[tool]) as stream:
        assert stream.get_final_response().output[0].name == "weather"


async def test_azure(provider_emulator):
    emulator = provider_emulator("azure", requests_per_minute=1000, tokens_per_minute=10_000, latency=0.0)
    ends = {"api_key": KEY, "azure_endpoint": emulator.base_url, "api_version": "2024-10-21"}
    with openai.AzureOpenAI(**ends) as client:
        raw = client.chat.completions.with_raw_response.create(model="my-deployment", messages=ASK)
        assert raw.parse().model == raw.headers["x-ratelimit-key"] == "my-deployment"
        assert client.embeddings.create(model="my-embedder", input=["a"]).model == "my-embedder"
    async with openai.AsyncAzureOpenAI(**ends) as client:
        assert (await client.chat.completions.create(model="d", messages=ASK)).choices


def test_anthropic_messages(anthropic_client, claude):
    raw = anthropic_client.messages.with_raw_response.create(
        model="claude", max_tokens=4, system="Be brief", messages=ASK
    )
    answer = raw.parse()
    assert (answer.stop_reason, len(answer.content[0].text)) == ("max_tokens", 16)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 4)
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "999"
    assert claude.stats().charged == {"requests": 1, "tokens": 14, "input_tokens": 10, "output_tokens": 4}


def test_anthropic_streamed(anthropic_client):
    with anthropic_client.messages.stream(model="claude", max_tokens=50, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 16)


async def test_anthropic_async(claude):
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=claude.base_url) as client:
        assert (await client.messages.create(model="claude", max_tokens=5, messages=ASK)).content


def test_anthropic_uses_a_tool_once(anthropic_client):
    ask = {"model": "claude", "max_tokens": 50, "tools": [ANTHROPIC_TOOL]}
    first = anthropic_client.messages.create(messages=ASK, **ask)
    use = first.content[0]
    assert (first.stop_reason, use.input) == ("tool_use", {"city": "text", "days": 3})
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}
    told = [*ASK, {"role": "assistant", "content": first.content}, result]
    assert anthropic_client.messages.create(messages=told, **ask).stop_reason == "end_turn"
    with anthropic_client.messages.stream(messages=ASK, **ask) as stream:
        assert stream.get_final_message().content[0].input == {"city": "text", "days": 3}
    forced = {"type": "tool", "name": "weather"}
    again = anthropic_client.messages.create(messages=told, tool_choice=forced, **ask)
    assert again.stop_reason == "tool_use"


@pytest.mark.parametrize("provider", ["openai", "groq", "azure", "ietf", "headerless"])
def test_a_refusal_is_the_clients_rate_limit_error(provider_emulator, provider):
    emulator = provider_emulator(provider, requests_per_minute=1, latency=0.0)
    with openai.OpenAI(api_key=KEY, base_url=f"{emulator.url}/v1", max_retries=0) as client:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    assert ("retry-after" in refused.value.response.headers) == (provider != "headerless")


def test_a_refusal_by_anthropic(provider_emulator):
    emulator = provider_emulator("anthropic", requests_per_minute=1, latency=0.0)
    with anthropic.Anthropic(api_key=KEY, base_url=emulator.base_url, max_retries=0) as client:
        client.messages.create(model="claude", max_tokens=5, messages=ASK)
        with pytest.raises(anthropic.RateLimitError, match="per-minute rate limit"):
            client.messages.create(model="claude", max_tokens=5, messages=ASK)


def test_the_clients_own_retries_end_well(provider_emulator):
    emulator = provider_emulator(requests_per_minute=1, window=0.3, faults=[503], latency=0.0)
    with openai.OpenAI(api_key=KEY, base_url=emulator.base_url, max_retries=3) as client:
        for _ in range(2):
            assert client.chat.completions.create(model="gpt-4o", messages=ASK).choices
    assert (emulator.stats().faults, emulator.stats().refused) == (1, 1)


@pytest.fixture
async def sockets():
    """LangChain would keep its own clients open for the life of the process."""
    with httpx.Client() as sync:
        async with httpx.AsyncClient() as asynchronous:
            yield {"http_client": sync, "http_async_client": asynchronous}


async def converses(model):
    answer = model.invoke("Hello")
    assert answer.usage_metadata["output_tokens"] == 16
    assert "".join(chunk.text for chunk in model.stream("Hello")) == answer.text
    assert (await model.ainvoke("Hello")).text == answer.text
    assert model.with_structured_output(City).invoke("Hello") == City(name="text", inhabitants=1)
    called = model.bind_tools([City]).invoke("Hello").tool_calls
    assert called[0]["args"] == {"name": "text", "inhabitants": 1}


async def test_langchain_openai(emulator, sockets):
    ends = {"api_key": SecretStr(KEY), "base_url": emulator.base_url, **sockets}
    await converses(ChatOpenAI(model="gpt-4o", **ends))
    embeddings = OpenAIEmbeddings(model="e", check_embedding_ctx_length=False, **ends)
    assert len(embeddings.embed_documents(["a", "b"])) == 2
    assert len(await embeddings.aembed_query("a")) == 64


async def test_langchain_anthropic(claude):
    model = ChatAnthropic(model="claude", max_tokens=100, api_key=SecretStr(KEY), base_url=claude.base_url)
    await converses(model)
    model._client.close()
    await model._async_client.close()
