"""The command `adaptive-rate-limiter`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from adaptive_rate_limiter.providers import parse_response

DEMOS = "adaptive_rate_limiter.demos"  # entry points of integrations that can show themselves


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 with a sentence on stderr that says what is missing."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adaptive-rate-limiter",
        description="Learns the limits of LLM APIs and fills them without being refused.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the same batch without a limiter and with one, on an emulated provider")
    demo.add_argument("--calls", type=_positive, default=400, help="calls in the batch (default: %(default)s)")
    demo.add_argument(
        "--requests-per-minute", type=_positive, default=240, help="the provider's limit (default: %(default)s)"
    )
    demo.add_argument("--picture", default="demo.png", help="where to save the picture (default: %(default)s)")
    demo.set_defaults(command=_demo)

    emulate = commands.add_parser("emulate", help="a provider on loopback that enforces limits")
    emulate.add_argument("--provider", default="openai", help="openai, azure, anthropic, groq, ietf or headerless")
    emulate.add_argument("--algorithm", default="token_bucket", help="token_bucket, fixed_window or sliding_window")
    emulate.add_argument("--requests-per-minute", type=_positive)
    emulate.add_argument("--tokens-per-minute", type=_positive)
    emulate.add_argument("--max-concurrency", type=_positive)
    emulate.add_argument("--latency", type=float, default=0.05, help="seconds (default: %(default)s)")
    emulate.add_argument("--host", default="127.0.0.1")
    emulate.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    emulate.set_defaults(command=_emulate)

    parse = commands.add_parser("parse", help="what response headers, read from stdin, say of limits")
    parse.add_argument("--status", type=int, default=200, help="the response's status (default: %(default)s)")
    parse.add_argument("--url", help="where the request went: some dialects are known by their host")
    parse.set_defaults(command=_parse)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _demo(options: argparse.Namespace) -> int:
    found = next(iter(entry_points(group=DEMOS)), None)
    if found is None:
        return _missing("the demo", "langchain-adaptive-rate-limiter[demo]")
    try:
        run = found.load()
    except ImportError as error:
        return _missing(f"the demo ({error})", "langchain-adaptive-rate-limiter[demo]")
    run(options.calls, options.requests_per_minute, options.picture)
    return 0


def _emulate(options: argparse.Namespace) -> int:
    try:
        from adaptive_rate_limiter.testing import ProviderEmulator  # noqa: PLC0415 - an extra
    except ImportError as error:
        return _missing(f"the emulator ({error})", "adaptive-rate-limiter[testing]")
    settings = {
        name: getattr(options, name)
        for name in ("algorithm", "requests_per_minute", "tokens_per_minute", "max_concurrency", "latency", "host", "port")
    }  # fmt: skip
    try:
        emulator = ProviderEmulator(options.provider, **settings)
    except ValueError as error:
        print(f"adaptive-rate-limiter emulate: {error}", file=sys.stderr)
        return 2
    emulator.run(lambda running: print(f"{options.provider} at {running.base_url} - stop with Ctrl-C", flush=True))
    return 0


def _parse(options: argparse.Namespace) -> int:
    headers, body = _read_response(sys.stdin.read())
    info = parse_response(headers, body, options.status, url=options.url)
    for quota in info.quotas:
        known = {
            "limit": quota.limit, "remaining": quota.remaining, "reset_after": quota.reset_after,
            "window": quota.window, "scope": quota.scope,
        }  # fmt: skip
        print(f"{quota.unit}: " + ", ".join(f"{name} {value}" for name, value in known.items() if value is not None))
    if info.refusal is not None:
        refusal = info.refusal
        after = "no time told" if refusal.retry_after is None else f"retry after {refusal.retry_after:g} s"
        print(f"refused: {refusal.kind.value}, {'retryable' if refusal.retryable else 'not retryable'}, {after}")
    if not info.quotas and info.refusal is None:
        print("no limits told")
    return 0


def _read_response(text: str) -> tuple[dict[str, str], Any]:
    """Header lines, and a body after an empty line, as `curl -i` prints them."""
    head, _, rest = text.replace("\r\n", "\n").partition("\n\n")
    headers = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    try:
        body = json.loads(rest) if rest.strip() else None
    except ValueError:
        body = rest
    return {name.strip(): value.strip() for name, value in headers.items()}, body


def _missing(what: str, distribution: str) -> int:
    print(f"adaptive-rate-limiter: {what} needs: pip install '{distribution}'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
