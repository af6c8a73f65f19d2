"""With the rest of LangChain: tools, structured output, fallbacks, retries, agents, other providers."""

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI
from pydantic import BaseModel

from adaptive_rate_limiter import Limiter
from langchain_adaptive_rate_limiter import AdaptiveLimiter

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


class City(BaseModel):
    """A city."""

    name: str
    people: int


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(method, lab, client, limiter, left):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter, max_tokens=200).with_structured_output(City, method=method)
    assert isinstance(llm.invoke("The largest city?"), City)
    assert emulator.stats().requests == 1
    assert left() == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_tools_count_as_part_of_the_prompt(lab, client, limiter, left):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter, max_tokens=200)
    assert llm.bind_tools([population]).invoke("How many?").tool_calls
    assert left() == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_an_agent_with_a_tool(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    agent = create_agent(lab.chat(emulator, client, limiter, max_tokens=200), [population])
    messages = agent.invoke({"messages": [("user", "How many people live in Rome?")]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)
    assert emulator.stats().requests == 2


async def test_an_agent_in_async_streams(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    agent = create_agent(lab.chat(emulator, async_client, limiter, max_tokens=200), [population])
    question = {"messages": [("user", "How many people live in Rome?")]}
    assert [part async for part in agent.astream(question, stream_mode="messages")]
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)


def test_fallbacks_go_to_the_other_models_bucket(lab, client, limiter, bucket_of):
    broken, sound = lab.provider(faults=lambda _: 500), lab.provider(**PLENTY)
    first = lab.chat(broken, client, limiter, model="first", max_retries=0)
    second = lab.chat(sound, client, limiter, model="second")
    assert first.with_fallbacks([second]).invoke("hello").content
    assert [(bucket_of(name).admitted, bucket_of(name).in_flight) for name in ("first", "second")] == [
        (1, 0),
        (1, 0),
    ]


def test_with_retry_is_admitted_again(lab, client, limiter, bucket_of):
    emulator = lab.provider(faults=[500, 500], **PLENTY)
    llm = lab.chat(emulator, client, limiter, max_retries=0)
    retried = llm.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert retried.invoke("hello").content
    assert (bucket_of().admitted, bucket_of().in_flight) == (3, 0)


def test_models_on_one_limiter_have_a_bucket_each(lab, client, limiter, bucket_of):
    emulator = lab.provider(per_model=True, **PLENTY)
    for model, calls in (("gpt-4o", 2), ("small", 3)):
        for _ in range(calls):
            lab.chat(emulator, client, limiter, model=model).invoke("hello")
    assert (bucket_of("gpt-4o").admitted, bucket_of("small").admitted) == (2, 3)


def test_limiters_over_one_limiter_share_what_they_learn(lab, client):
    emulator = lab.provider(**PLENTY)
    shared = Limiter()
    for _ in range(2):
        lab.chat(emulator, client, AdaptiveLimiter(shared)).invoke("hello")
    (bucket,) = shared.snapshot().buckets
    assert bucket.admitted == 2
    assert [round(limit.remaining) for limit in bucket.limits if limit.unit == "requests"] == [998]


def test_hosts_of_one_model_have_a_bucket_each(lab, client, limiter):
    models = [lab.chat(lab.provider(**PLENTY), client, limiter) for _ in range(2)]
    for llm in models * 2:
        llm.invoke("hello")
    left = [limit.remaining for bucket in limiter.limiter.snapshot().buckets for limit in bucket.limits]
    assert [round(amount) for amount in left if amount < 1000] == [998, 998]


@pytest.mark.parametrize("form", ["invoke", "stream"])
def test_anthropic_has_limits_of_input_and_output(form, lab, limiter, bucket_of):
    emulator = lab.provider(
        "anthropic", requests_per_minute=1000, input_tokens_per_minute=90_000, output_tokens_per_minute=40_000,
        algorithm="fixed_window",
    )  # fmt: skip
    llm = ChatAnthropic(
        model="claude-next", api_key="k", base_url=emulator.base_url, max_tokens=300, rate_limiter=limiter
    )
    for _ in range(2):
        llm.invoke("word" * 100) if form == "invoke" else list(llm.stream("word" * 100))
    assert (bucket_of().admitted, bucket_of().in_flight) == (2, 0)
    told = {limit.unit: limit.remaining for limit in bucket_of().limits}
    remaining = emulator.stats().remaining
    assert told.keys() >= {"requests", "input_tokens", "output_tokens"}
    assert told["requests"] == remaining["requests"]
    for unit in ("input_tokens", "output_tokens"):  # headers are rounded to thousands
        assert told[unit] == pytest.approx(remaining[unit], abs=1000)


async def test_anthropic_in_async(lab, limiter, bucket_of):
    emulator = lab.provider("anthropic", requests_per_minute=1000, input_tokens_per_minute=90_000)
    llm = ChatAnthropic(
        model="claude-next", api_key="k", base_url=emulator.base_url, max_tokens=300, rate_limiter=limiter
    )
    await llm.abatch(["hello"] * 3)
    async for _ in llm.astream("hello"):
        pass
    assert (bucket_of().admitted, bucket_of().in_flight) == (4, 0)
    await llm._async_client.close()


def test_azure_names_its_deployment(lab, client, limiter, bucket_of):
    emulator = lab.provider("azure", **PLENTY)
    llm = AzureChatOpenAI(
        azure_endpoint=emulator.base_url, azure_deployment="my-deployment", api_version="2024-10-21", api_key="k",
        http_client=client, rate_limiter=limiter, max_tokens=20,
    )  # fmt: skip
    assert llm.invoke("hello").content
    assert bucket_of("my-deployment").in_flight == 0
    assert {(limit.unit, limit.window) for limit in bucket_of().limits} == {("requests", 60), ("tokens", 60)}


def test_the_responses_api(lab, client, limiter, left):
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, client, limiter, use_responses_api=True)
    assert llm.invoke("hello").text
    assert "".join(chunk.text for chunk in llm.stream("hello"))
    assert left() == {name: round(amount) for name, amount in emulator.stats().remaining.items()}


def test_a_default_client_is_observed_too(lab, limiter, left):
    """Whichever of httpx and httpx2 the SDK chooses."""
    emulator = lab.provider(**PLENTY)
    llm = lab.chat(emulator, None, limiter, http_async_client=None)
    assert llm.invoke("hello").content
    assert left()["requests"] == 999
