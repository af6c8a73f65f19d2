"""Agents: a refusal between two steps is waited out, or told with its reason; one that is cancelled leaves nothing."""

import asyncio
import time

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from tests.garbage import collect

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}
QUESTION = {"messages": [("user", "How many people live in Rome?")]}
SOON = httpx.Response(
    429,
    headers={"retry-after-ms": "300"},
    json={"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}},
)
SPENT = httpx.Response(
    429, json={"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
)


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


class Refusing(httpx.AsyncHTTPTransport):
    """On the way to the provider: refuses the second request."""

    def __init__(self, refusal):
        super().__init__()
        self.refusal = refusal
        self.requests = 0

    async def handle_async_request(self, request):
        self.requests += 1
        return self.refusal if self.requests == 2 else await super().handle_async_request(request)


@pytest.fixture
async def refused_once(lab, limiter):
    """An agent whose second call is refused with `refusal`, and what it is called through."""
    clients = []

    def start(refusal):
        wire = Refusing(refusal)
        clients.append(httpx.AsyncClient(transport=wire, timeout=20))
        model = lab.chat(lab.provider(**PLENTY), clients[-1], limiter, max_tokens=200)
        return create_agent(model, [population]), wire

    yield start
    for client in clients:
        await client.aclose()


async def test_a_refusal_in_the_middle_of_a_run_is_waited_out(refused_once, bucket_of):
    agent, wire = refused_once(SOON)
    started = time.monotonic()
    messages = (await agent.ainvoke(QUESTION))["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert time.monotonic() - started >= 0.3
    assert wire.requests == 3
    assert (bucket_of().admitted, bucket_of().refused) == (3, 1)
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


async def test_a_refusal_for_good_reaches_whoever_runs_the_agent(refused_once, bucket_of):
    agent, wire = refused_once(SPENT)
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as raised:
        await agent.ainvoke(QUESTION)
    assert "refused this call: quota_exhausted" in str(raised.value.__notes__)
    assert wire.requests == 2
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


async def test_an_agent_that_is_cancelled_in_the_middle_of_a_stream_leaves_nothing(
    lab, async_client, limiter, bucket_of
):
    emulator = lab.provider(**PLENTY | {"latency": 0.4, "output_tokens": 200})
    agent = create_agent(lab.chat(emulator, async_client, limiter, max_tokens=200), [population])
    reading = asyncio.Event()

    async def read():
        async for _ in agent.astream(QUESTION, stream_mode="messages"):
            reading.set()

    task = asyncio.ensure_future(read())
    await reading.wait()
    assert bucket_of().in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    collect()
    while bucket_of().in_flight:  # noqa: ASYNC110 - another thread's doing; pytest's time limit is the bound
        await asyncio.sleep(0.005)
