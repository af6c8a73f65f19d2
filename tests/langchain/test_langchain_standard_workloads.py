"""The usual shapes of work in LangChain, under a limit that would refuse half of it."""

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from langchain_adaptive_rate_limiter import AdaptiveLimiter


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


@pytest.fixture
def paced(lab):
    """A provider of `limit` requests a second."""

    def start(limit):
        return lab.provider("ietf", requests_per_minute=limit, window=1.0, latency=0.002)

    return start


@pytest.fixture
def many():
    with httpx.Client(timeout=20, limits=httpx.Limits(max_connections=100)) as client:
        yield client


def _nothing_left(limiter):
    assert all((bucket.in_flight, bucket.waiting) == (0, 0) for bucket in limiter.limiter.snapshot().buckets)


def test_a_batch_of_five_hundred(lab, many, limiter, paced):
    emulator = paced(250)
    llm = lab.chat(emulator, many, limiter)
    answers = llm.batch([f"number {number}" for number in range(500)], config={"max_concurrency": 40})
    stats = emulator.stats()
    assert len(answers) == 500
    assert (stats.admitted, stats.refused) == (500, 0)
    assert stats.last_admitted_at - stats.first_at >= 0.95
    _nothing_left(limiter)


async def test_map_and_reduce(lab, async_client, limiter, paced):
    emulator = paced(30)
    llm = lab.chat(emulator, async_client, limiter)
    summary = ChatPromptTemplate.from_template("Summarise: {text}") | llm | StrOutputParser()
    combined = ChatPromptTemplate.from_template("Combine: {texts}") | llm | StrOutputParser()

    async def map_reduce(texts):
        parts = await summary.abatch([{"text": text} for text in texts])
        return await combined.ainvoke({"texts": "\n".join(parts)})

    assert await RunnableLambda(map_reduce).ainvoke([f"text {number}" for number in range(59)])
    stats = emulator.stats()
    assert (stats.admitted, stats.refused) == (60, 0)
    _nothing_left(limiter)


async def test_the_events_of_agents_with_tools(lab, async_client, paced):
    emulator = paced(10)
    limiter = AdaptiveLimiter()
    agent = create_agent(lab.chat(emulator, async_client, limiter, max_tokens=200), [population])
    for number in range(6):
        question = {"messages": [("user", f"How many people live in city {number}?")]}
        kinds = [event["event"] async for event in agent.astream_events(question, version="v2")]
        assert kinds.count("on_tool_end") == 1
        assert kinds.count("on_chat_model_end") == 2
        assert kinds.count("on_chat_model_stream") > 4
    stats = emulator.stats()
    assert (stats.admitted, stats.refused) == (12, 0)
    _nothing_left(limiter)
