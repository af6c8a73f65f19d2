"""`forecast`: how long a batch takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.cli.arguments import positive
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    forecast = commands.add_parser("forecast", help="how long a batch takes under limits that you know")
    forecast.add_argument("--requests", type=positive, help="calls in the batch")
    forecast.add_argument("--tokens", type=positive, help="tokens in the batch, input and output together")
    forecast.add_argument("--requests-per-minute", type=positive)
    forecast.add_argument("--tokens-per-minute", type=positive)
    forecast.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    told = {"requests": options.requests_per_minute, "tokens": options.tokens_per_minute}
    limiter = Limiter(quotas={unit: limit for unit, limit in told.items() if limit is not None})
    print(limiter.forecast(requests=options.requests, tokens=options.tokens))
