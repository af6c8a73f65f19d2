"""What each recording says, and so what a limiter has to learn from it or to do next."""

from typing import NamedTuple

DAY, MONTH = 86_400, 2_592_000


class Told(NamedTuple):
    """One limit as the recording tells it; remaining None: not told."""

    unit: str
    limit: float
    window: float
    remaining: float | None


def requests(limit, remaining, window=60):
    return Told("requests", limit, window, remaining)


def tokens(limit, remaining, window=60):
    return Told("tokens", limit, window, remaining)


# Limits, told by successes and by some refusals. Where only `remaining` is told, the limit is at least that.
LIMITS = {
    "anthropic/200-2024-fixed-window": [requests(5, 4), tokens(10_000, 10_000)],
    "anthropic/200-retry-after-8-resets-past": [
        requests(2000, 1999),
        Told("input_tokens", 800_000, 60, 800_000),
        Told("output_tokens", 160_000, 60, 155_000),
        tokens(960_000, 955_000),
    ],
    "anthropic/200-stream-requests-only": [requests(4000, 3999)],
    "anthropic/200-stream-thinking-reserve": [
        requests(4000, 3999),
        Told("input_tokens", 200_000, 60, 126_000),
        Told("output_tokens", 80_000, 60, 59_000),
        tokens(280_000, 185_000),
    ],
    "anthropic/429-2024-no-retry-after": [requests(5, 0), tokens(25_000, 16_000)],
    "anthropic/429-requests-retry-after-7": [requests(5, 0), tokens(10_000, 8_000)],
    "azure-openai/200-2024-remaining-only": [requests(119, 119), tokens(119_984, 119_984)],
    "azure-openai/200-reset-in-seconds": [requests(50, 49), tokens(50_000, 49_362)],
    "azure-openai/200-reset-zero": [requests(250, 249), tokens(250_000, 249_993)],
    "azure-openai/200-stream-full-set": [requests(2500, 2499), tokens(250_000, 249_988)],
    "braintrust-proxy/200-passthrough": [requests(30_000, 29_999), tokens(150_000_000, 149_999_980)],
    "cerebras/200-2024-unconsumed": [requests(28_800, 28_800, DAY), tokens(60_000, 59_975)],
    "cerebras/200-float-seconds": [requests(14_400, 14_379, DAY), tokens(60_000, 60_000)],
    "cerebras/200-intelligence": [requests(14_400, 14_389, DAY), tokens(64_000, 64_000)],
    "cohere/200-chat-v1": [requests(10, 9), requests(1000, None, MONTH)],
    "cohere/200-rerank-2024": [requests(10, 9), requests(1000, None, MONTH)],
    "cohere/200-trial-chat": [requests(20, 8), requests(1000, None, MONTH)],
    "cohere/200-trial-embed": [requests(100, 97), requests(1000, None, MONTH)],
    "exa/200-epoch-b": [requests(450, 443)],
    "github-models/200-2025-shared-pool": [requests(1000, 990), tokens(1_000_000, 998_841)],
    "groq/200-50000rpd-refill": [requests(50_000, 49_998, DAY), tokens(30_000, 29_007)],
    "groq/200-reset-34m-7-53s": [requests(1000, 976, DAY), tokens(8000, 6995)],
    "groq/200-rpd-reset-5h18m": [requests(1000, 779, DAY), tokens(10_000, 9832)],
    "groq/200-stream-172-799999ms": [requests(500_000, 499_999, DAY), tokens(300_000, 299_957)],
    "groq/200-stream-30ms": [requests(14_400, 14_399, DAY), tokens(12_000, 11_994)],
    "huggingface/429-ietf-draft": [requests(500, 0, 300)],
    "huggingface/router-200-kong-style": [requests(400, 399)],
    "huggingface/router-200-together": [requests(100, 100, 1), tokens(33_333, 33_333, 1)],
    "litellm-proxy/200-prefixed-copy": [requests(15_000, 14_999), tokens(2_000_000, 1_999_993)],
    "mistral/200-audio-and-tokens": [
        requests(360, 359),
        tokens(200_000, 199_743),
        Told("audio_seconds", 2000, 60, 1997),
    ],
    "mistral/200-bysize-2025": [
        tokens(2_000_000, 1_967_987),
        tokens(10_000_000_000, 9_999_679_870, MONTH),
    ],
    "mistral/200-req-10-second": [
        requests(60, 53, 10),
        tokens(2_000_000, 1_999_642),
        tokens(10_000_000_000, 9_999_888_530, MONTH),
    ],
    "mistral/200-req-720": [requests(720, 717), tokens(5_000_000, 4_999_911)],
    "mistral/200-stream-bysize-2024": [tokens(500_000, 401_381), tokens(1_000_000_000, 997_438_986, MONTH)],
    "mistral/429-request-rung-only": [requests(4, 0)],
    "openai/200-project-tokens": [
        requests(10_000, 9999),
        tokens(1_000_000, 999_831),
        tokens(1_000_000, 999_831),
    ],
    "openai/200-rpd-reset-1h8m": [requests(10_000, 9524, DAY), tokens(200_000, 199_967)],
    "openai/200-stream-input-images": [
        requests(500, 499),
        tokens(30_000, 29_210),
        Told("images", 50_000, 60, 49_999),
    ],
    "openai/200-stream-tokens-usage-based": [
        requests(3000, 2999),
        tokens(250_000, 249_979),
        tokens(250_000, 249_979),
    ],
    "openrouter/429-free-per-day": [requests(50, 0, DAY)],
    "ovhcloud/200-remaining-1": [requests(2, 1)],
    "portkey/200-passthrough": [requests(10_000, 9999), tokens(30_000_000, 29_999_965)],
    "replicate/200-get": [requests(2999, 2999)],
    "replicate/201-prediction": [requests(599, 599)],
    "sambanova/200-stream": [requests(240, 202), requests(48_000, 47_962, DAY)],
    "together/200-2024": [requests(2, 1, 1)],
    "together/200-59-of-30": [requests(30, 30, 1), tokens(3000, 3000, 1)],
    "xai/200-no-reset": [requests(1800, 1800), tokens(10_000_000, 10_000_000)],
}

# Successes that tell no limit, whatever their headers look like.
SILENT = [
    "anthropic/200-batch-retry-after",
    "bespokelabs/200-zeros",
    "huggingface/router-200-retry-after",
    "mistral/200-stream-no-limits",
]

# Refusals by what cures them.

# Time: the seconds that the provider tells, None where it tells none.
PACE = {
    "anthropic/429-2024-no-retry-after": 1,
    "anthropic/429-input-tpm-body": None,
    "anthropic/429-requests-retry-after-7": 7,
    "azure-openai/429-apim-50s": 50,
    "azure-openai/429-retry-45": 45,
    "bedrock/429-errortype-header": None,
    "cerebras/429-tpm-text": None,
    "fireworks/429-usage-limits": None,
    "gemini/429-input-tpm-26s": 26,
    "gemini/429-interactions": None,
    "gemini/429-paid-input-tokens": 48.939935699,
    "github-models/429-minute": 44,
    "github-models/429-tokens-body": 60,
    "groq/429-tpm-59-977s": 59.977,
    "huggingface/429-ietf-draft": 55,
    "meta-llama-api/429": None,
    "mistral/429-message-only": None,
    "mistral/429-request-rung-only": None,
    "moonshot/429-rpm-1s": 1,
    "nvidia-nim/429": None,
    "openai/429-responses-no-limit-headers": None,
    "siliconflow/429-tpm": None,
    "vertex/429-claude-input-tokens": None,
    "xai/429-tpm-actual-limit": None,
    "zai/429-1302-concurrency": None,
}

# The end of another call: how many others were in flight.
CONCURRENCY = {"anthropic/429-concurrent-connections": 11, "openai/429-finetune-active-jobs": 3}

# The provider's recovery.
OVERLOAD = [
    "anthropic/529-overloaded",
    "openai/503-envoy-text",
    "openrouter/429-upstream-chutes",
    "openrouter/429-upstream-google",
    "vertex/429-resource-exhausted",
]

# The end of a long window, or money: the seconds that are told, None where none are.
SPENT = {
    "azure-openai/429-retry-86400": 86_400,
    "gemini/429-day-quota-36s": None,  # the 36 s are the minute's
    "gemini/429-minute-and-day": None,
    "moonshot/429-tpd": None,
    "ollama-cloud/429-session": None,
    "openai/429-cloudflare-1015": 54_749,
    "openai/429-insufficient-quota": None,
    "openai/429-rpd-7m12s": 432,
    "openrouter/429-free-per-day": None,
    "zai/429-1308-chinese": 7200,  # as seen two hours before
}

# Nothing: a smaller call, or another plan.
TOO_LARGE = ["groq/429-1m0-363s", "openai/429-request-too-large"]
NOT_ENTITLED = ["anthropic/429-extra-usage-required", "gemini/429-limit-zero"]

REFUSALS = [*PACE, *CONCURRENCY, *OVERLOAD, *SPENT, *TOO_LARGE, *NOT_ENTITLED]
