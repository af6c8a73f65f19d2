"""The command `adaptive-rate-limiter`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.quota import ALGORITHMS
from adaptive_rate_limiter.limiter import Limiter
from adaptive_rate_limiter.providers import parse_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    for add in (_add_demo, _add_emulate, _add_parse, _add_forecast):
        add(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="the same batch without a limiter and with one, on an emulated provider"
    )
    demo.add_argument(
        "--calls", type=_positive, default=400, help="calls in the batch (default: %(default)s)"
    )
    demo.add_argument(
        "--requests-per-minute",
        type=_positive,
        default=240,
        help="the provider's limit (default: %(default)s)",
    )
    demo.add_argument(
        "--picture", default="demo.png", help="where to save the picture (default: %(default)s)"
    )
    demo.set_defaults(command=_demo)


def _add_emulate(commands: Any) -> None:
    emulate = commands.add_parser("emulate", help="a provider on loopback that enforces limits")
    emulate.add_argument(
        "--provider", default="openai", help="openai, azure, anthropic, groq, ietf or headerless"
    )
    emulate.add_argument(
        "--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0], help="how it counts (default: %(default)s)"
    )
    emulate.add_argument("--requests-per-minute", type=_positive)
    emulate.add_argument("--tokens-per-minute", type=_positive)
    emulate.add_argument("--max-concurrency", type=_positive)
    emulate.add_argument("--latency", type=float, default=0.05, help="seconds (default: %(default)s)")
    emulate.add_argument("--host", default="127.0.0.1")
    emulate.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    emulate.set_defaults(command=_emulate)


def _add_parse(commands: Any) -> None:
    parse = commands.add_parser(
        "parse", help="what a response, read from stdin as `curl -i` prints it, says of limits"
    )
    parse.add_argument(
        "--status", type=int, help="the response's status (default: that of its first line, else 200)"
    )
    parse.add_argument("--url", help="where the request went: some dialects are known by their host")
    parse.set_defaults(command=_parse)


def _add_forecast(commands: Any) -> None:
    forecast = commands.add_parser("forecast", help="how long a batch takes under limits that you know")
    forecast.add_argument("--requests", type=_positive, help="calls in the batch")
    forecast.add_argument("--tokens", type=_positive, help="tokens in the batch, input and output together")
    forecast.add_argument("--requests-per-minute", type=_positive)
    forecast.add_argument("--tokens-per-minute", type=_positive)
    forecast.set_defaults(command=_forecast)


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
        emulator.run(
            lambda running: print(f"{options.provider} at {running.base_url} - stop with Ctrl-C", flush=True)
        )
    except (ValueError, OSError) as error:  # a word that it does not know, a port that is taken
        print(f"adaptive-rate-limiter emulate: {error}", file=sys.stderr)
        return 2
    return 0


def _forecast(options: argparse.Namespace) -> int:
    told = {"requests": options.requests_per_minute, "tokens": options.tokens_per_minute}
    limiter = Limiter(quotas={unit: limit for unit, limit in told.items() if limit is not None})
    print(limiter.forecast(requests=options.requests, tokens=options.tokens))
    return 0


def _parse(options: argparse.Namespace) -> int:
    status, headers, body = _read_response(sys.stdin.read())
    info = parse_response(headers, body, options.status or status, url=options.url)
    for quota in info.quotas:
        known = {
            "limit": quota.limit, "remaining": quota.remaining, "reset_after": quota.reset_after,
            "window": quota.window, "scope": quota.scope,
        }  # fmt: skip
        print(
            f"{quota.unit}: "
            + ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
        )
    if info.refusal is not None:
        refusal = info.refusal
        after = "no time told" if refusal.retry_after is None else f"retry after {refusal.retry_after:g} s"
        print(
            f"refused: {refusal.kind.value}, {'retryable' if refusal.retryable else 'not retryable'}, {after}"
        )
    if not info.quotas and info.refusal is None:
        print("no limits told")
    return 0


def _read_response(text: str) -> tuple[int, dict[str, str], Any]:
    """A status line, if there is one, header lines, and a body after an empty line."""
    head, _, rest = text.replace("\r\n", "\n").partition("\n\n")
    status = re.match(r"HTTP/[\d.]+ +(\d{3})\b", head)
    headers = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    try:
        body = json.loads(rest) if rest.strip() else None
    except (ValueError, RecursionError):
        body = rest
    named = {name.strip(): value.strip() for name, value in headers.items()}
    return int(status[1]) if status else 200, named, body


def _missing(what: str, distribution: str) -> int:
    print(f"adaptive-rate-limiter: {what} needs: pip install '{distribution}'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
