"""Who charges what, and when: what to hold for a call, and what it has cost in the end.

A refund must copy what the provider does. Giving back what it keeps overspends; keeping what it gives
back wastes the limit.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Cost

NUMBERS = frozenset({int, float})
MOST = sys.float_info.max  # larger whole numbers cannot be counted with


class Usage(NamedTuple):
    """What a finished call has used, in tokens; None where it is not known."""

    input_tokens: float | None = None
    output_tokens: float | None = None
    tokens: float | None = None
    cached_tokens: float | None = 0.0

    def checked(self) -> Usage:
        """A provider's response may hold anything: what is no finite number of at least 0 is not known."""
        for amount in self:
            if amount is not None and not (type(amount) in NUMBERS and 0 <= amount <= MOST):
                return Usage(*map(_known, self))
        return self


@dataclass(frozen=True, slots=True)
class Charging:
    """One provider's habit of charging.

    `keeps_max_tokens`: the hold, with `max_tokens` in it, is the charge (OpenAI's and Azure's rate limit
    guides: the limit counts the larger of max_tokens and an estimate, at admission).
    `counts_refusals`: a refused request counts against the request limit (OpenAI's guide).
    `cache_reads_free`: input read from the prompt cache does not count (Anthropic's rate limit page).
    """

    name: str
    keeps_max_tokens: bool = False
    counts_refusals: bool = False
    cache_reads_free: bool = False

    def hold(self, input_tokens: float, output_tokens: float, max_tokens: float | None) -> Cost:
        """What to reserve: `output_tokens` is expected, `max_tokens` is what the request allows itself."""
        output = max_tokens if self.keeps_max_tokens and max_tokens is not None else output_tokens
        return {
            REQUESTS: 1.0,
            TOKENS: input_tokens + output,
            INPUT_TOKENS: input_tokens,
            OUTPUT_TOKENS: output_tokens,
        }

    def charge(self, usage: Usage, held: Cost, max_tokens: float | None) -> Cost:
        """What the call has cost, for a hold of `held`; units that are missing cost what was held."""
        input_tokens, output_tokens, total, cached = usage
        charged = {**held}
        free = cached if self.cache_reads_free and cached else 0.0
        if input_tokens is not None:
            charged[INPUT_TOKENS] = max(0.0, input_tokens - free) if free else input_tokens
        if output_tokens is not None:
            charged[OUTPUT_TOKENS] = output_tokens
            if total is None and input_tokens is not None:
                total = input_tokens + output_tokens
        if total is not None:
            used = max(0.0, total - free) if free else total
            kept = self.keeps_max_tokens and max_tokens is not None
            charged[TOKENS] = max(used, held.get(TOKENS, 0.0)) if kept else used
        return charged


def _known(amount: Any) -> float | None:
    if amount is None:
        return None
    if type(amount) is int:
        return amount if 0 <= amount <= MOST else None
    try:
        return float(amount) if 0 <= amount < math.inf else None
    except TypeError:
        return None


GENERIC = Charging("generic")
OPENAI = Charging("openai", keeps_max_tokens=True, counts_refusals=True)
AZURE = Charging("azure", keeps_max_tokens=True, counts_refusals=True)
ANTHROPIC = Charging("anthropic", cache_reads_free=True)

# Part of the URL -> habit; the first that is found counts. A path like OpenAI's on an unknown host is held
# to OpenAI's habit: where that host does give back, its own headers say so within a few replies.
HABITS: tuple[tuple[str, Charging], ...] = (
    (".azure.com", AZURE),
    ("/openai/deployments/", AZURE),
    ("anthropic", ANTHROPIC),
    ("/messages", ANTHROPIC),
    ("api.groq.com", GENERIC),
    ("/chat/completions", OPENAI),
    ("/embeddings", OPENAI),
    ("/responses", OPENAI),
    ("/completions", OPENAI),
)


def charging_for(url: str | None) -> Charging:
    """The habit of the provider behind `url`."""
    if url:
        for part, charging in HABITS:
            if part in url:
                return charging
    return GENERIC
