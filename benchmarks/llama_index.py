"""LlamaIndex at the limit: agents, the ingestion of many nodes, and what a limiter adds to one `chat`.

`python -m benchmarks.llama_index` prints the figures; `python -m benchmarks.llama_index ingestion` only one of them.
Clients and provider talk HTTP on loopback, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import tiktoken.registry
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from adaptive_rate_limiter import Limiter
from benchmarks import turns
from benchmarks.entry_points import unwatched
from benchmarks.goodput import served
from benchmarks.invoke import HEADERS, REPLY
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLimiter, AdaptiveLLM

AGENTS, RESULTS = 60, 3  # each agent calls its model once for each result of a tool, and once to answer
REQUESTS_PER_MINUTE = 120
NODES, NODE_TOKENS, TOKENS_PER_MINUTE = 2000, 100, 80_000
LATENCY = (0.2, 0.6)
CLIENTS = ("AdaptiveLLM", "AdaptiveLimiter")
CHAT = [ChatMessage(role="user", content="Hello")]


def next_tool(call: Any) -> str | None:
    """The emulator's side of the agents: tools are called until there are RESULTS of them."""
    results = sum(message["role"] == "tool" for message in call.body["messages"])
    return "population" if results < RESULTS else None


def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


def connections() -> httpx.AsyncClient:
    """As many as OpenAI's SDK has, and closed with the run."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100))


async def agents() -> dict[str, Any]:
    """Streaming agents that run at once, every one of several steps, under a limit on requests."""
    limits = {"requests_per_minute": REQUESTS_PER_MINUTE, "latency": LATENCY, "tool_calls": next_tool}
    with served("openai", [], **limits) as provider:
        async with connections() as http:
            account = {"api_key": "none", "api_base": provider.base_url, "async_http_client": http}
            llm = AdaptiveLLM(llm=OpenAI(model="gpt-4o", max_tokens=64, **account))

            async def one(number: int) -> str:
                agent = FunctionAgent(llm=llm, tools=[population])
                memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
                return str(await agent.run(f"How many people live in city {number}?", memory=memory))

            started = time.monotonic()
            answers = await asyncio.gather(*(one(number) for number in range(AGENTS)), return_exceptions=True)
            seconds = time.monotonic() - started
        return _outcome(provider, seconds, lost=sum(isinstance(answer, BaseException) for answer in answers))


async def ingestion(client: str = "AdaptiveEmbedding") -> dict[str, Any]:
    """NODES nodes through a pipeline, in batches of a hundred, under a limit on tokens."""
    tiktoken.registry.ENCODINGS.clear()  # the emulator counts characters, and so does who has no tokenizer at hand
    limits = {"tokens_per_minute": TOKENS_PER_MINUTE, "requests_per_minute": 10_000, "latency": LATENCY}
    with served("openai", [], **limits) as provider:
        async with connections() as http:
            account = {"api_key": "none", "api_base": provider.base_url, "async_http_client": http}
            model: Any = OpenAIEmbedding(model="text-embedding-3-small", **account)
            if client == "AdaptiveEmbedding":
                model = AdaptiveEmbedding(model)
            else:
                model.rate_limiter = AdaptiveLimiter()
            nodes = [TextNode(text=f"{number:05}".ljust(NODE_TOKENS * 4, "x")) for number in range(NODES)]
            started = time.monotonic()
            embedded = await IngestionPipeline(transformations=[model], disable_cache=True).arun(nodes=nodes)
            seconds = time.monotonic() - started
        return _outcome(provider, seconds, lost=NODES - sum(bool(node.embedding) for node in embedded))


def _outcome(provider: Any, seconds: float, lost: int) -> dict[str, Any]:
    stats, bound = provider.outcome()
    return {
        "seconds": seconds, "bound": bound, "ratio": seconds / bound, "admitted": stats.admitted,
        "refused": stats.refused, "lost": lost,
    }  # fmt: skip


def chat(client: str) -> Callable[[], float]:
    """One `chat` of no latency."""
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers=HEADERS, content=REPLY, request=request)
    )
    llm: Any = OpenAI(
        model="gpt-4o", api_key="none", max_retries=0, http_client=httpx.Client(transport=transport)
    )
    if client == "AdaptiveLLM":
        llm = AdaptiveLLM(llm=llm, limiter=Limiter(clock=turns.TIME))
    elif client == "AdaptiveLimiter":
        llm.rate_limiter = AdaptiveLimiter(Limiter(clock=turns.TIME))
    return turns.timed(partial(llm.chat, CHAT))


def arms(client: str) -> turns.Arms:
    return {"without": lambda: unwatched(chat("none")), "limited": partial(chat, client)}


def added() -> dict[str, dict[str, turns.Figure]]:
    """Microseconds of one `chat`, and what each limiter adds to it."""
    return turns.measure("benchmarks.llama_index")


def measure() -> dict[str, Any]:
    """`agents` and `ingestion`: seconds, T*, their ratio, refusals and losses; `chat`: microseconds added."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LlamaIndex's own
        return {
            "agents": asyncio.run(agents()),
            "ingestion": asyncio.run(ingestion()),
            "ingestion, rate_limiter": asyncio.run(ingestion("AdaptiveLimiter")),
            "chat": added(),
        }


def lines(measured: dict[str, Any]) -> list[str]:
    """The figures as rows of a table."""
    rows = ["| run | time / T* | refused | lost |", "|---|---|---|---|"]
    for name, figures in measured.items():
        if "ratio" in figures:
            rows.append(f"| {name} | {figures['ratio']:.3f} | {figures['refused']} | {figures['lost']} |")
    chat = measured.get("chat")
    if chat:
        rows += ["", *turns.lines({f"{client}, one `chat`": found for client, found in chat.items()})]
    return rows


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked[:1] == ["--serve"]:
        turns.serve({client: partial(arms, client) for client in CLIENTS}, asked[1:])
    elif not asked:
        print("\n".join(lines(measure())))
    else:
        warnings.simplefilter("ignore")
        parts = {
            "agents": lambda: asyncio.run(agents()),
            "ingestion": lambda: asyncio.run(ingestion()),
            "chat": added,
        }
        for part in asked:
            print(part, parts[part]())
