"""`demo`: the same batch without a limiter and with one."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.cli.arguments import missing, positive

if TYPE_CHECKING:
    import argparse

DEMOS = "adaptive_rate_limiter.demos"  # entry points of integrations that can show themselves
DISTRIBUTION = "langchain-adaptive-rate-limiter[demo]"


def add(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="the same batch without a limiter and with one, on an emulated provider"
    )
    demo.add_argument("--calls", type=positive, default=400, help="calls in the batch (default: %(default)s)")
    demo.add_argument(
        "--requests-per-minute",
        type=positive,
        default=240,
        help="the provider's limit (default: %(default)s)",
    )
    demo.add_argument(
        "--picture", default="demo.png", help="where to save the picture (default: %(default)s)"
    )
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    found = next(iter(entry_points(group=DEMOS)), None)
    if found is None:
        raise missing("it", DISTRIBUTION)
    try:
        show = found.load()
    except ImportError as error:
        raise missing(f"it ({error})", DISTRIBUTION) from error
    show(options.calls, options.requests_per_minute, options.picture)
