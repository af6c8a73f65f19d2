"""What balanced dispatch needs to know, for requests and tokens to run out together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.gauge import Gauge

TOKEN_UNITS = (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)


@dataclass(frozen=True, slots=True)
class Funds:
    """Is the token side the fuller one, and what can it pay by the time that a request may be sent?"""

    prefer_large: bool
    payable: float


def size_of(cost: Cost) -> float:
    return cost.get(TOKENS) or cost.get(INPUT_TOKENS, 0.0)


def funds(gauges: Sequence[Gauge], now: float) -> Funds | None:
    """None where nothing is to be balanced: it takes a limit of either kind."""
    if len(gauges) < 2:  # noqa: PLR2004 - as said
        return None
    requests = tokens = None
    fullest = math.inf
    for gauge in gauges:
        part = gauge.available(now) / gauge.limit
        if gauge.unit == REQUESTS:
            if requests is None or part < requests[0]:
                requests = (part, gauge)
        elif gauge.unit in TOKEN_UNITS and part < fullest:
            fullest, tokens = part, gauge
    if requests is None or tokens is None:
        return None
    slot = max(0.0, requests[1].ready_at(1.0, now) - now)
    payable = min(tokens.capacity, tokens.available(now) + slot * tokens.rate)
    return Funds(prefer_large=fullest >= requests[0], payable=payable)
