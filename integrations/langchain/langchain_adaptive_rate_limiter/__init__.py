"""Adaptive rate limiting for LangChain: `ChatOpenAI(rate_limiter=AdaptiveLimiter())` is the whole set-up."""

from langchain_adaptive_rate_limiter.callbacks import AdaptiveCallbackHandler
from langchain_adaptive_rate_limiter.embeddings import AdaptiveEmbeddings
from langchain_adaptive_rate_limiter.limiter import AdaptiveLimiter

__all__ = ["AdaptiveCallbackHandler", "AdaptiveEmbeddings", "AdaptiveLimiter"]
