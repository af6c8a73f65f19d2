"""`submit_request`: requests run under the limits of their provider, in three modes."""

from adaptive_rate_limiter.scheduler.config import CachePolicy, RateLimiterConfig, SchedulerMode, StateConfig
from adaptive_rate_limiter.scheduler.scheduler import Scheduler, create_scheduler

__all__ = [
    "CachePolicy",
    "RateLimiterConfig",
    "Scheduler",
    "SchedulerMode",
    "StateConfig",
    "create_scheduler",
]
