"""A function over many items: outcomes, progress, and what is still to be run."""

from adaptive_rate_limiter.batch.outcome import Outcome
from adaptive_rate_limiter.batch.runs import AsyncBatch, Batch, BatchOptions

__all__ = ["AsyncBatch", "Batch", "BatchOptions", "Outcome"]
