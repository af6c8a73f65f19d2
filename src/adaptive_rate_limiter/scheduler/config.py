"""What a scheduler can be told: every value is checked when it is given."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CachePolicy", "RateLimiterConfig", "SchedulerMode", "StateConfig", "mode_of"]

logger = logging.getLogger(__name__)

OVERFLOW_POLICIES = ("reject", "drop_oldest")


class SchedulerMode(str, Enum):
    """`modes.MODES` says in what they differ."""

    BASIC = "basic"
    INTELLIGENT = "intelligent"
    ACCOUNT = "account"


class CachePolicy(str, Enum):
    """How a backend that keeps a copy of what it stores brings the two together; memory is its own store."""

    WRITE_THROUGH = "write_through"  # both at once
    WRITE_BACK = "write_back"  # the copy at once, the store later: a crash loses what is in between
    WRITE_AROUND = "write_around"  # the store only


@dataclass(frozen=True)
class RateLimiterConfig:
    """How a scheduler works. Times are seconds.

    `max_concurrent_executions`: requests in flight at once, open streams included.
    `max_queue_size`: requests that wait for one bucket. To one more, `overflow_policy` "reject" says
    QueueOverflowError; "drop_oldest" says so to the one that waits longest (in intelligent mode; the others reject).
    `request_timeout`: of one attempt, until it returns its result or its stream.
    `rate_limit_buffer_ratio`: the part of each limit that is used, of those that replies or a provider tell: of
    what is there at the start, and of what comes back minute after minute.
    `failure_window`, `max_failures`: so many failures in a row within that time, of one bucket, open its circuit.
    `max_retries`: attempts after the first. A refusal is tried again when the provider says, or when its
    limit allows; another failure (in basic mode only) after min(backoff_base ** retry, max_backoff) seconds
    and up to a quarter of it more.

    Raises ConfigurationError naming the field and its value.
    """

    mode: SchedulerMode = SchedulerMode.INTELLIGENT
    max_concurrent_executions: int = 100
    max_queue_size: int = 1000
    overflow_policy: str = "reject"
    request_timeout: float = 30.0
    rate_limit_buffer_ratio: float = 0.9
    failure_window: float = 30.0
    max_failures: int = 20
    backoff_base: float = 2.0
    max_backoff: float = 60.0
    max_retries: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", mode_of(self.mode))
        for name in ("max_concurrent_executions", "max_queue_size", "max_failures"):
            self._check(name, lambda value: isinstance(value, int) and value >= 1, "at least 1")
        self._check("max_retries", lambda value: isinstance(value, int) and value >= 0, "at least 0")
        self._check("request_timeout", lambda value: value > 0, "seconds above 0")
        self._check("failure_window", lambda value: 0 < value < math.inf, "seconds above 0")
        self._check("max_backoff", lambda value: 0 < value < math.inf, "seconds above 0")
        self._check("backoff_base", lambda value: 1 < value < math.inf, "a number above 1")
        self._check("rate_limit_buffer_ratio", lambda value: 0 < value <= 1, "above 0 and at most 1")
        if self.overflow_policy not in OVERFLOW_POLICIES:
            allowed = " or ".join(OVERFLOW_POLICIES)
            raise ConfigurationError(f"overflow_policy must be {allowed}, got {self.overflow_policy!r}")

    def _check(self, name: str, sound: Callable[[Any], bool], wanted: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not sound(value):
            raise ConfigurationError(f"{name} must be {wanted}, got {value!r}")


@dataclass(frozen=True)
class StateConfig:
    """Where the state of a scheduler belongs, and how safely it is kept.

    `namespace`: schedulers that share a backend and a namespace share what they know and use.
    `is_production=True` refuses CachePolicy.WRITE_BACK, unless `acknowledge_write_back_risk` says that the loss
    of what was not written yet is acceptable; that is logged then, unless `warn_write_back_production` is False.

    Raises ConfigurationError naming the field and its value.
    """

    cache_policy: CachePolicy = CachePolicy.WRITE_THROUGH
    namespace: str = "default"
    is_production: bool = False
    acknowledge_write_back_risk: bool = False
    warn_write_back_production: bool = True

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "cache_policy", CachePolicy(self.cache_policy))
        except ValueError as error:
            allowed = ", ".join(policy.value for policy in CachePolicy)
            raise ConfigurationError(
                f"cache_policy must be one of {allowed}, got {self.cache_policy!r}"
            ) from error
        if not isinstance(self.namespace, str) or not self.namespace:
            raise ConfigurationError(f"namespace must be a name, got {self.namespace!r}")
        for name in ("is_production", "acknowledge_write_back_risk", "warn_write_back_production"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.is_production and self.cache_policy is CachePolicy.WRITE_BACK:
            self._check_write_back()

    def _check_write_back(self) -> None:
        if not self.acknowledge_write_back_risk:
            raise ConfigurationError(
                "cache_policy must not be write_back where is_production=True: a crash loses what was not "
                "written yet; acknowledge_write_back_risk=True accepts that"
            )
        if self.warn_write_back_production:
            logger.warning("cache_policy is write_back in production: a crash loses what was not written yet")


def mode_of(given: SchedulerMode | str) -> SchedulerMode:
    """A mode by itself or by its name, in any case of letters."""
    try:
        return SchedulerMode(given.lower() if isinstance(given, str) else given)
    except ValueError:
        modes = ", ".join(mode.value for mode in SchedulerMode)
        raise ConfigurationError(f"Unknown scheduler mode: {given!r}; the modes are {modes}") from None
