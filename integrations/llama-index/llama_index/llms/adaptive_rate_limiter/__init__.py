"""Adaptive rate limiting for LlamaIndex: `AdaptiveLLM(llm=OpenAI())` is the whole set-up."""

from llama_index.llms.adaptive_rate_limiter.callbacks import AdaptiveCallbackHandler
from llama_index.llms.adaptive_rate_limiter.embedding import AdaptiveEmbedding
from llama_index.llms.adaptive_rate_limiter.events import RateLimiterWaitEvent
from llama_index.llms.adaptive_rate_limiter.limiter import AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter.llm import AdaptiveLLM

__all__ = [
    "AdaptiveCallbackHandler",
    "AdaptiveEmbedding",
    "AdaptiveLLM",
    "AdaptiveLimiter",
    "RateLimiterWaitEvent",
]
