"""What providers call things. A new provider is a row here, not code.

Header names are read as a family (`FAMILIES`) followed by words in any order (`WORDS`); what a name does not
tell and only the host knows stands in `DIALECTS`. Sources are named where they are not the provider's own page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from adaptive_rate_limiter.providers.times import DAY, HOUR, MINUTE, MONTH, WEEK

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COPY",
    "DIALECTS",
    "FAMILIES",
    "NAMES",
    "PLAIN",
    "WINDOWS",
    "WORDS",
    "Dialect",
    "Family",
    "dialect_of",
]


@dataclass(frozen=True, slots=True)
class Family:
    """A way to begin a header name. The rest of the name is read by `WORDS` and overrides these defaults."""

    start: str  # regular expression, matched against the lower-case name with "_" as "-"
    unit: str | None = None
    window: float | None = None
    scope: str | None = None


FAMILIES: tuple[Family, ...] = (
    Family(r"anthropic-ratelimit-unified-", unit="usage"),  # subscription: shares of 5 h and 7 d, no counts
    Family(r"anthropic-ratelimit-", window=MINUTE),
    Family(r"x-codex-primary-", unit="usage", scope="primary"),  # ChatGPT plans: percent of a window
    Family(r"x-codex-secondary-", unit="usage", scope="secondary"),
    Family(r"x-trial-endpoint-call-", unit="requests", window=MINUTE),  # Cohere
    Family(r"x-endpoint-monthly-call-", unit="requests", window=MONTH, scope="account"),  # Cohere
    Family(r"(?:x-)?ratelimitbysize-", unit="tokens"),  # Mistral until 2025: size means tokens
    Family(r"x-tokenlimit-", unit="tokens"),  # Together
    Family(
        r"(?:[a-z0-9]{1,20}-){0,4}?rate-?limits?-"
    ),  # x-ratelimit-, ratelimit-, x-rate-limit-, and the unknown
)

# Before a header of the upstream that a gateway passes on beside its own (LiteLLM): what follows is read as ever.
COPY = re.compile(r"(?:llm-provider-|(?:x-)?upstream-|provider-)(?=.*rate-?limit)")

# Word(s) of a name -> (part, value). Several words are joined by "-"; the longest match wins.
WORDS: Mapping[str, tuple[str, str | float]] = MappingProxyType({
    **dict.fromkeys(("limit", "max", "maximum", "quota", "total"), ("field", "limit")),
    **dict.fromkeys(("remaining", "left", "available"), ("field", "remaining")),
    **dict.fromkeys(("used", "consumed", "current"), ("field", "used")),
    **dict.fromkeys(("reset", "resets", "reset-after", "reset-in", "reset-at"), ("field", "reset")),
    "reset-after-seconds": ("field", "reset"),
    **dict.fromkeys(("renewalperiod", "renewal-period", "window", "period"), ("field", "window")),
    "window-minutes": ("field", "window_minutes"),
    "used-percent": ("field", "percent"),
    "utilization": ("field", "share"),
    **dict.fromkeys(("request", "requests", "req", "reqs", "call", "calls", "query", "queries"), ("unit", "requests")),
    **dict.fromkeys(("token", "tokens"), ("unit", "tokens")),
    **dict.fromkeys(("input-token", "input-tokens", "prompt-tokens", "tokens-prompt", "tokens-input"),
                    ("unit", "input_tokens")),
    **dict.fromkeys(("output-token", "output-tokens", "completion-tokens", "generated-tokens", "tokens-generated",
                     "tokens-output", "tokens-completion"), ("unit", "output_tokens")),
    "tokens-cache-adjusted-prompt": ("unit", "cache_adjusted_input_tokens"),  # Fireworks
    **dict.fromkeys(("concurrency", "concurrent", "concurrent-request", "concurrent-requests"),
                    ("unit", "concurrent_requests")),
    **dict.fromkeys(("image", "images", "input-image", "input-images"), ("unit", "images")),
    **dict.fromkeys(("audio-second", "audio-seconds"), ("unit", "audio_seconds")),
    **dict.fromkeys(("page", "pages", "ocr-pages"), ("unit", "pages")),
    **dict.fromkeys(("chars", "character", "characters", "input-characters"), ("unit", "characters")),
    **dict.fromkeys(("rps", "qps"), ("rate", "requests/1")),
    **dict.fromkeys(("rpm", "qpm"), ("rate", "requests/60")),
    **dict.fromkeys(("rpd", "qpd"), ("rate", "requests/86400")),
    "tps": ("rate", "tokens/1"),
    "tpm": ("rate", "tokens/60"),
    "tpd": ("rate", "tokens/86400"),
    **dict.fromkeys(("second", "seconds"), ("window", 1.0)),
    **dict.fromkeys(("minute", "minutes", "min"), ("window", MINUTE)),
    **dict.fromkeys(("hour", "hours", "hourly"), ("window", HOUR)),
    **dict.fromkeys(("day", "days", "daily"), ("window", DAY)),
    **dict.fromkeys(("week", "weekly"), ("window", WEEK)),
    **dict.fromkeys(("month", "months", "monthly"), ("window", MONTH)),
    **dict.fromkeys(("project", "team", "user", "account", "model", "key", "ip", "global", "dynamic", "workspace"),
                    ("scope", "")),
    **dict.fromkeys(("org", "organization", "organisation"), ("scope", "organization")),
    **dict.fromkeys(("per", "by", "count", "value"), ("noise", "")),
    # Costs, flags and shares that a limit's word stands beside: no limit.
    **dict.fromkeys(("over", "cost", "percent", "percentage", "policy", "type", "status", "resource", "claim"),
                    ("nothing", "")),
})  # fmt: skip

# Words that are a unit by themselves: a bare suffix of these means a minute unless something says otherwise.
PLAIN = frozenset({"requests", "tokens", "input_tokens", "output_tokens", "images"})

# Names that are no part of a family -> (role, value). Multipliers turn the value into seconds.
NAMES: Mapping[str, tuple[str, float]] = MappingProxyType({
    "date": ("date", 0),
    "retry-after": ("retry", 1.0),
    "x-retry-after": ("retry", 1.0),
    "x-ratelimit-retry-after": ("retry", 1.0),
    "ratelimit-retry-after": ("retry", 1.0),
    "retry-after-ms": ("retry", 1e-3),
    "x-ms-retry-after-ms": ("retry", 1e-3),
    "x-ratelimit-timeremaining": ("retry", 1.0),  # GitHub Models: a time, not a count
    "anthropic-ratelimit-unified-reset": ("retry_else", 1.0),
    "x-ratelimit-type": ("named", 0),  # GitHub Models: UserByModelByMinute
    "anthropic-ratelimit-unified-representative-claim": ("named", 0),  # five_hour, seven_day
    "anthropic-ratelimit-unified-status": ("status", 0),
    "x-amzn-errortype": ("code", 0),
    "openai-processing-ms": ("processing", 1e-3),
    "x-envoy-upstream-service-time": ("processing", 1e-3),  # of Envoy, before many a provider
    "cmp-upstream-response-duration": ("processing", 1e-3),  # Azure OpenAI
    "ms-azureml-model-time": ("processing", 1e-3),  # Azure OpenAI
    "ratelimit": ("ietf", 0),
    "x-ratelimit": ("marker", 0),  # Together: a boolean
    "ratelimit-policy": ("policy", 0),
    "x-ratelimit-policy": ("policy", 0),
    "helicone-ratelimit-policy": ("policy", 0),
    "maximum-concurrent-requests": ("concurrent_limit", 0),  # ElevenLabs
    "current-concurrent-requests": ("concurrent_used", 0),
})  # fmt: skip

# What arithmetic may find a bucket's window to be.
WINDOWS = (MINUTE, HOUR, DAY, MONTH)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the names alone do not tell. `hosts` are domain endings; `markers` are headers that give it away."""

    name: str
    hosts: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    windows: Mapping[str, float] = field(default_factory=dict)  # by unit; "*" for any
    scope: str | None = None
    zone: float | None = None  # seconds east of UTC of times written without a zone


DIALECTS: tuple[Dialect, ...] = (
    # Requests are per DAY and tokens per minute, and nothing in the names says so (console.groq.com/docs/rate-limits).
    Dialect("groq", hosts=("groq.com",), windows={"requests": DAY}),
    # Everything per second; the boolean x-ratelimit gives it away behind a router.
    Dialect("together", hosts=("together.xyz", "together.ai"), markers=("x-ratelimit", "x-tokenlimit-limit"), windows={"*": 1.0}),
    Dialect("replicate", hosts=("replicate.com",), windows={"requests": MINUTE}, scope="account"),
    Dialect("exa", hosts=("exa.ai",), scope="account"),
    # Beijing time without a zone.
    Dialect("zhipu", hosts=("bigmodel.cn", "z.ai"), zone=8 * HOUR),
    # The same names meant per minute before the cache-adjusted header came.
    Dialect("fireworks", markers=("x-ratelimit-limit-tokens-cache-adjusted-prompt",), windows={
        "input_tokens": 1.0, "output_tokens": 1.0, "cache_adjusted_input_tokens": 1.0}),
    # These hosts pass on the bucket of their own upstream account, shared with strangers.
    Dialect("gateway", scope="upstream", hosts=(
        "router.huggingface.co", "models.github.ai", "models.inference.ai.azure.com", "portkey.ai", "braintrust.dev",
        "gateway.ai.cloudflare.com", "pydantic.dev", "helicone.ai", "ai-gateway.vercel.sh")),
)  # fmt: skip

_UNKNOWN = Dialect("unknown")
_SCHEME, _NAME = r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}://)?", r"([A-Za-z0-9.-]{1,253})"
_HOST = re.compile(_SCHEME + _NAME)
_HOST_BEHIND_USER = re.compile(_SCHEME + r"(?:[^/?#]*@)?" + _NAME)


def dialect_of(url: str, marked: Dialect | None) -> Dialect:
    """The dialect of a reply: a header's mark before the host's name, for a router's host speaks for many."""
    found = (_HOST_BEHIND_USER if "@" in url else _HOST).match(url)
    here = _at_host(found[1]) if found else _UNKNOWN
    return here if marked is None else replace(marked, scope=here.scope, zone=here.zone)


@lru_cache(maxsize=512)  # of the host alone: the rest of an address may hold a secret
def _at_host(host: str) -> Dialect:
    host = host.lower()
    return next((d for d in DIALECTS if any(host == h or host.endswith("." + h) for h in d.hosts)), _UNKNOWN)
