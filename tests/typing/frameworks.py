"""Never run, only type-checked: a user's own code with LangChain, LlamaIndex, httpx and metrics."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import httpx2
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_openai import ChatOpenAI
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

import llama_index.llms.adaptive_rate_limiter as for_llama_index
from adaptive_rate_limiter import Limiter, RateLimitInfo
from adaptive_rate_limiter.http import (
    AdaptiveTransport,
    AsyncAdaptiveTransport,
    HttpObservation,
    observe_http,
)
from adaptive_rate_limiter.observability import (
    Event,
    PrometheusCollector,
    export_if_installed,
    export_metrics,
    subscribe,
)
from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.views import History, Mark, Point, Shown, View, Watch
from langchain_adaptive_rate_limiter import AdaptiveCallbackHandler, AdaptiveEmbeddings, AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveEmbedding, AdaptiveLLM, RateLimiterWaitEvent

shared: Limiter = Limiter()


def langchain() -> list[list[float]]:
    model = ChatOpenAI(model="gpt-4o", rate_limiter=AdaptiveLimiter(shared))
    ChatOpenAI(model="gpt-4o", rate_limiter=AdaptiveLimiter(quotas={"requests": 500}, observe_http=False))
    model.invoke("Hello", config={"callbacks": [AdaptiveCallbackHandler(shared)]})
    admitted: bool = AdaptiveLimiter(shared).acquire(blocking=False)
    embeddings = AdaptiveEmbeddings(DeterministicFakeEmbedding(size=3), shared, batch_size=100)
    return embeddings.embed_documents([f"{admitted}"])


def llama_index() -> str | None:
    llm = AdaptiveLLM(llm=OpenAI(model="gpt-4o"), limiter=shared)
    embedding = AdaptiveEmbedding(MockEmbedding(embed_dim=3), shared)
    vector: list[float] = embedding.get_text_embedding("Hello")
    OpenAI(model="gpt-4o", rate_limiter=for_llama_index.AdaptiveLimiter(shared))
    handler = for_llama_index.AdaptiveCallbackHandler(shared)
    event = RateLimiterWaitEvent(waited=1.5, reason="tokens", bucket_id="default/gpt-4o")
    waited: float = event.waited
    print(vector, handler, waited)
    return llm.chat([ChatMessage(content="Hello")]).message.content


async def transports() -> int:
    with AdaptiveTransport(shared) as transport, httpx2.Client(transport=transport) as client:
        limiter: Limiter = transport.limiter
        client.get("https://api.example.com")
    wrapped = AsyncAdaptiveTransport(limiter, httpx.AsyncHTTPTransport())
    async with httpx.AsyncClient(transport=wrapped) as asynchronous:
        reply = await asynchronous.get("https://api.example.com")
    observation: HttpObservation = observe_http()
    observation.stop()
    return reply.status_code


def metrics() -> RateLimitInfo:
    def tell(event: Event) -> None:
        print(event.name, event.bucket_id)

    unsubscribe: Callable[[], None] = subscribe(tell)
    collector: PrometheusCollector = export_metrics(shared)
    export_if_installed(shared)
    unsubscribe()
    print(collector)
    return parse_response({"retry-after": "5"}, None, 429, url="https://api.example.com", model="m")


def seen(limiter: Shown) -> list[str]:
    history: History = shared.history
    points: dict[str, list[Point]] = history.points("gpt-4o")
    marks: list[Mark] = history.marks()
    watch: Watch = limiter.watch(every=1.0)
    with watch:
        print(View(shared), [point.waiting for found in points.values() for point in found])
    return [mark.text for mark in marks]
