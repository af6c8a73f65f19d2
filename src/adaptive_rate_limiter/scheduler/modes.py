"""In what the modes differ. Everything else is the same for all: limits, order, streams, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptive_rate_limiter.scheduler.config import SchedulerMode

if TYPE_CHECKING:
    from adaptive_rate_limiter.options import Eagerness
    from adaptive_rate_limiter.protocols import RequestMetadata

__all__ = ["MODES", "Mode"]

ACCOUNT_BUCKET = "account"


@dataclass(frozen=True, slots=True)
class Mode:
    """`eager`: where no reply tells a limit, requests go as they come until one is refused; in the other modes
    only where not even a reply is seen, which may be a mere function.

    `retries_failures`: not only refusals are tried again. `drops`: the overflow policy is obeyed.
    `one_budget`: all models share one bucket, unless a provider tells them apart.
    `by_tenant`: those that wait are served fairly by `client_id`.
    """

    eager: Eagerness = "unseen"
    retries_failures: bool = False
    drops: bool = False
    one_budget: bool = False
    by_tenant: bool = False

    def bucket_for(self, metadata: RequestMetadata) -> str:
        """The bucket of a request where no provider names it."""
        if self.one_budget:
            return ACCOUNT_BUCKET
        return metadata.model_id if metadata.requires_model else f"default_{metadata.resource_type}"


MODES = {
    SchedulerMode.BASIC: Mode(eager="always", retries_failures=True),
    SchedulerMode.INTELLIGENT: Mode(drops=True),
    SchedulerMode.ACCOUNT: Mode(one_budget=True, by_tenant=True),
}
