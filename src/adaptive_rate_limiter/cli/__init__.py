"""The command `adaptive-rate-limiter`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from adaptive_rate_limiter.cli import demo, emulate, forecast, parse, status
from adaptive_rate_limiter.cli.arguments import UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

PROGRAM = "adaptive-rate-limiter"
COMMANDS = (demo, emulate, parse, forecast, status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 with a sentence on stderr that says what was wrong."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        command(options)
    except UnusableError as error:
        print(f"{PROGRAM} {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Learns the limits of LLM APIs and fills them without being refused."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add(commands)
    return parser
