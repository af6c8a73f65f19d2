"""Which failures another attempt may cure, and when."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from adaptive_rate_limiter.exceptions import RateLimiterError, RequestTimeoutError
from adaptive_rate_limiter.http.exchange import NEVER_SENT

if TYPE_CHECKING:
    from adaptive_rate_limiter.scheduler.config import RateLimiterConfig

__all__ = ["backoff", "may_pass_later", "never_left"]

PASSING = frozenset({408, 409, 425, 429})  # of the client's errors; a server's error may always pass
FIRST_SERVER_ERROR = 500
JITTER = 0.25  # of the wait; only added, so that nobody comes back too soon
# What the code itself does wrong, it does again.
MISTAKES = (
    TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError, ArithmeticError,
    NotImplementedError, ImportError, SyntaxError, RecursionError, MemoryError,
)  # fmt: skip


def may_pass_later(error: BaseException | None, status: int | None) -> bool:
    """Whether the same request might succeed without anybody changing it."""
    if status is not None:
        return status >= FIRST_SERVER_ERROR or status in PASSING
    if isinstance(error, RateLimiterError):
        return isinstance(error, RequestTimeoutError)
    return not isinstance(error, MISTAKES)


def never_left(error: BaseException) -> bool:
    """Whether the request surely never reached the provider."""
    causes = (error, error.__cause__, error.__context__)
    return any(kind.__name__ in NEVER_SENT for cause in causes if cause for kind in type(cause).__mro__)


def backoff(retry: int, config: RateLimiterConfig) -> float:
    """Seconds before retry number `retry`, which counts from 0."""
    exponent = min(retry, 64)  # beyond, the bound has long been met, and floats end
    return min(config.backoff_base**exponent, config.max_backoff) * (1 + JITTER * random.random())  # noqa: S311 - spreads retries, guards nothing
