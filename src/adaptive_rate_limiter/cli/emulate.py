"""`emulate`: a provider on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.cli.arguments import UnusableError, missing, positive
from adaptive_rate_limiter.core.quota import ALGORITHMS

if TYPE_CHECKING:
    import argparse

SETTINGS = (
    "algorithm", "requests_per_minute", "tokens_per_minute", "max_concurrency", "latency", "host", "port",
)  # fmt: skip


def add(commands: Any) -> None:
    emulate = commands.add_parser("emulate", help="a provider on loopback that enforces limits")
    emulate.add_argument(
        "--provider", default="openai", help="openai, azure, anthropic, groq, ietf or headerless"
    )
    emulate.add_argument(
        "--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0], help="how it counts (default: %(default)s)"
    )
    emulate.add_argument("--requests-per-minute", type=positive)
    emulate.add_argument("--tokens-per-minute", type=positive)
    emulate.add_argument("--max-concurrency", type=positive)
    emulate.add_argument("--latency", type=float, default=0.05, help="seconds (default: %(default)s)")
    emulate.add_argument("--host", default="127.0.0.1")
    emulate.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    emulate.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    try:
        from adaptive_rate_limiter.testing import ProviderEmulator  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing(f"it ({error})", "adaptive-rate-limiter[testing]") from error
    settings = {name: getattr(options, name) for name in SETTINGS}
    try:
        emulator = ProviderEmulator(options.provider, **settings)
        emulator.run(
            lambda running: print(f"{options.provider} at {running.base_url} - stop with Ctrl-C", flush=True)
        )
    except (ValueError, OSError) as error:  # a word that it does not know, a port that is taken
        raise UnusableError(error) from error
