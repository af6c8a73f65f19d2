"""Agents, engines and extractors take an AdaptiveLLM as it is, and finish under a limit that refuses half their calls."""

import asyncio
import time

import httpx
import openai
import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.extractors import SummaryExtractor, TitleExtractor
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from tests.garbage import collect

from adaptive_rate_limiter.testing import ToolCall
from llama_index.llms.adaptive_rate_limiter import AdaptiveLimiter, AdaptiveLLM

# LlamaIndex's workflows look at every attribute of an agent, and pydantic warns of its old ones; its ReAct agent
# asks whether it runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

PLENTY = {"requests_per_minute": 10_000, "tokens_per_minute": 10_000_000, "algorithm": "fixed_window"}
# A second of this provider is a minute of another's: seven calls, where three agents make twelve at once.
TIGHT = {"requests_per_minute": 7, "window": 1.0}
STEPS = 3  # calls of tools before an agent answers


def population(city: str) -> str:
    """How many people live in a city."""
    return f"{city}: 3 million"


def area(city: str) -> str:
    """How large a city is."""
    return f"{city}: 500 km2"


def results(call):
    return sum(message["role"] == "tool" for message in call.body["messages"])


def two_tools(call):
    """First one tool, then the other, then both at once, then an answer."""
    wanted = {0: "population", 1: "area", 2: ["population", "area"]}.get(results(call))
    return wanted if call.tools else None


@pytest.fixture
def provider(lab):
    def start(**options):
        return lab.provider("ietf", tool_calls=two_tools, **options)

    return start


def _memory():
    """LlamaIndex's default one leaves a database connection open."""
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


def agent(llm, **options):
    return FunctionAgent(llm=llm, tools=[population, area], system_prompt="You know cities.", **options)


async def _answer(llm, *, streaming=True):
    return str(await agent(llm, streaming=streaming).run("Tell me of Rome.", memory=_memory()))


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_finishes_without_a_refusal(streaming, provider, lab, async_client, bucket_of):
    emulator = provider(**TIGHT)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, max_tokens=200), limiter=lab.limiter)
    await llm.achat([])  # tells the limit
    answers = await asyncio.gather(*(_answer(llm, streaming=streaming) for _ in range(3)))
    assert all(answers)
    assert emulator.stats().refused == 0
    assert emulator.stats().admitted == 1 + 3 * (STEPS + 1)
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


async def test_the_same_agents_without_it_are_refused(provider, lab, async_client):
    emulator = provider(**TIGHT | {"window": 60.0})
    llm = lab.llm(emulator, async_client, max_tokens=200)
    answers = await asyncio.gather(*(_answer(llm) for _ in range(3)), return_exceptions=True)
    assert any("429" in str(answer) for answer in answers if isinstance(answer, Exception))


async def test_the_rate_limiter_field_does_it_as_well(provider, lab, async_client, limiter, bucket_of):
    emulator = provider(**TIGHT)
    llm = lab.llm(emulator, async_client, max_tokens=200, rate_limiter=AdaptiveLimiter(limiter))
    await llm.achat([])
    assert all(await asyncio.gather(*(_answer(llm) for _ in range(3))))
    assert emulator.stats().refused == 0
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)


class Refusing(httpx.AsyncHTTPTransport):
    """On the way to the provider: refuses the second request."""

    requests = 0

    async def handle_async_request(self, request):
        self.requests += 1
        if self.requests == 2:
            refusal = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
            return httpx.Response(429, headers={"retry-after-ms": "300"}, json=refusal)
        return await super().handle_async_request(request)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_refusal_in_the_middle_of_a_run_is_waited_out(streaming, provider, lab, limiter, bucket_of):
    emulator = provider(**PLENTY)
    async with httpx.AsyncClient(transport=Refusing(), timeout=20) as client:
        llm = AdaptiveLLM(llm=lab.llm(emulator, client, max_tokens=200), limiter=limiter)
        started = time.monotonic()
        assert await _answer(llm, streaming=streaming)
    assert time.monotonic() - started >= 0.3
    assert (bucket_of().admitted, bucket_of().refused) == (STEPS + 2, 1)
    assert (bucket_of().in_flight, bucket_of().waiting) == (0, 0)
    assert emulator.stats().requests == STEPS + 1


async def test_a_refusal_for_good_reaches_whoever_runs_the_agent(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(tokens_per_minute=100)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, max_tokens=200), limiter=limiter)
    with pytest.raises(Exception, match="too large") as raised:
        await agent(llm).run("Tell me of Rome.", memory=_memory())
    error = raised.value
    while not isinstance(error, openai.RateLimitError):
        error = error.__cause__ or error.__context__
    assert "request_too_large" in str(error.__notes__)
    assert emulator.stats().requests == 1
    assert bucket_of().in_flight == 0


@pytest.mark.parametrize("when", ["streaming", "waiting"])
async def test_an_agent_that_is_cancelled_leaves_nothing(when, provider, lab, async_client, limiter):
    emulator = provider(**(TIGHT | {"latency": 0.3} if when == "waiting" else PLENTY | {"latency": 0.3}))
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, max_tokens=200), limiter=limiter)
    handlers = [agent(llm).run("Tell me of Rome.", memory=_memory()) for _ in range(8)]
    if when == "streaming":
        async for event in handlers[0].stream_events():
            if isinstance(event, AgentStream):
                break
    else:
        await _until(lambda: limiter.snapshot().waiting)
    for handler in handlers:
        await handler.cancel_run()
    await asyncio.gather(*handlers, return_exceptions=True)
    collect()
    await _until(
        lambda: all((bucket.in_flight, bucket.waiting) == (0, 0) for bucket in limiter.snapshot().buckets)
    )


async def _until(true):
    while not true():  # noqa: ASYNC110 - another thread's doing; pytest's time limit is the bound
        await asyncio.sleep(0.005)


def relay(call):
    """Each agent looks something up, and hands over to the next; the last one answers."""
    system = call.body["messages"][0]["content"]
    name = next(name for name in ("planner", "researcher", "writer") if f"You are the {name}." in system)
    asked = [
        made["function"]["name"]
        for message in call.body["messages"]
        for made in message.get("tool_calls") or ()
    ]
    if name == "planner":
        return ToolCall("handoff", {"to_agent": "researcher", "reason": "look it up"})
    if name == "researcher" and asked.count("population") < 2:
        return ToolCall("population", {"city": "Rome"})
    if name == "researcher":
        return ToolCall("handoff", {"to_agent": "writer", "reason": "write it"})
    return None


async def test_a_workflow_of_several_agents_finishes_without_a_refusal(lab, async_client, limiter, bucket_of):
    emulator = lab.provider("ietf", tool_calls=relay, **TIGHT)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, max_tokens=200), limiter=limiter)

    def workflow():
        roles = {"planner": ["researcher"], "researcher": ["writer"], "writer": []}
        agents = [
            FunctionAgent(
                name=name, description=f"The {name}.", llm=llm, tools=[population],
                system_prompt=f"You are the {name}.", can_handoff_to=to,
            )
            for name, to in roles.items()
        ]  # fmt: skip
        return AgentWorkflow(agents=agents, root_agent="planner")

    await llm.acomplete("You are the writer.")
    outputs = await asyncio.gather(*(workflow().run("Write of Rome.", memory=_memory()) for _ in range(2)))
    assert [output.current_agent_name for output in outputs] == ["writer", "writer"]
    assert emulator.stats().refused == 0
    assert (bucket_of().admitted, bucket_of().in_flight) == (1 + 2 * 5, 0)


async def test_a_react_agent_takes_it(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client), limiter=limiter)
    answer = await ReActAgent(llm=llm, tools=[population], early_stopping_method="generate").run(
        "Rome?", max_iterations=2, memory=_memory()
    )
    assert str(answer)
    assert (bucket_of().admitted, bucket_of().in_flight) == (emulator.stats().requests, 0)


def test_query_engines_and_chat_engines_take_it(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, client), limiter=limiter)
    index = SummaryIndex.from_documents([Document(text="Rome has 3 million people.")])
    assert str(index.as_query_engine(llm=llm).query("How many?"))
    assert "".join(index.as_query_engine(llm=llm, streaming=True).query("How many?").response_gen)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=_memory())
    assert str(engine.chat("hello"))
    assert "".join(engine.stream_chat("hello").response_gen)
    assert (bucket_of().admitted, bucket_of().in_flight) == (4, 0)
    assert emulator.stats().requests == 4


def test_extractors_take_it(lab, async_client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    llm = AdaptiveLLM(llm=lab.llm(emulator, async_client, reuse_client=False), limiter=limiter)
    llm.llm._async_http_client = None  # each extractor runs an event loop of its own
    nodes = [TextNode(text=f"City {number} has people.") for number in range(3)]
    for extractor in (SummaryExtractor(llm=llm, num_workers=2), TitleExtractor(llm=llm)):
        assert len(extractor.process_nodes(nodes)) == 3
    assert bucket_of().in_flight == 0
    assert bucket_of().admitted == emulator.stats().requests > 6
