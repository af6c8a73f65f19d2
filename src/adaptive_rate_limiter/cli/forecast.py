"""`forecast`: how long a batch takes, before it is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.cli.arguments import UnusableError, positive
from adaptive_rate_limiter.core.estimate import FIRST_OUTPUT, guess_tokens
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from adaptive_rate_limiter.report import Forecast

PROMPTS = ("messages", "prompt", "input", "contents", "system", "tools")  # what of a request goes in
OUTPUT_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
FORMS = "a prompt in each line: a JSON string, or an object with messages, prompt or input, as batch APIs take them"
OTHERS = (0.25, 0.5, 2.0)  # times max_tokens, to see what it changes


class Work(NamedTuple):
    """So many calls, the tokens of all their prompts, and for each the bound of its answer that it has itself."""

    calls: int
    prompts: float
    bounds: tuple[float | None, ...]

    def tokens(self, max_tokens: float) -> float:
        return self.prompts + sum(max_tokens if bound is None else bound for bound in self.bounds)


def add(commands: Any) -> None:
    forecast = commands.add_parser(
        "forecast",
        help="how long a batch takes under limits that you know",
        description=f"Reads {FORMS}. Says how long they take, which limit binds, and what another max_tokens would"
        " change. Or takes the figures. Nothing is sent.",
    )
    forecast.add_argument("file", nargs="?", help="JSON Lines; - for standard input")
    forecast.add_argument("--model", help="counts tokens as this model does, if its tokenizer is in memory")
    forecast.add_argument(
        "--max-tokens", type=positive, help="bound of each answer that has none in the file"
    )
    forecast.add_argument("--requests", type=positive, help="calls in the batch")
    forecast.add_argument("--tokens", type=positive, help="tokens in the batch, input and output together")
    forecast.add_argument("--requests-per-minute", "--rpm", type=positive)
    forecast.add_argument("--tokens-per-minute", "--tpm", type=positive)
    forecast.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    told = {"requests": options.requests_per_minute, "tokens": options.tokens_per_minute}
    limiter = Limiter(quotas={unit: limit for unit, limit in told.items() if limit is not None})
    if options.file is None:
        print(limiter.forecast(requests=options.requests, tokens=options.tokens))
        return
    if options.requests or options.tokens:
        raise UnusableError("--requests and --tokens are counted from the file: give one or the other")
    name = "standard input" if options.file == "-" else options.file
    work = _work(_lines(options.file), name, options.model)
    print("\n".join(_report(limiter, work, options.max_tokens)))


def _report(limiter: Limiter, work: Work, max_tokens: int | None) -> Iterator[str]:
    answer = FIRST_OUTPUT if max_tokens is None else float(max_tokens)
    whose = f"max_tokens={answer:,.0f}" + ("" if max_tokens else ", as a limiter assumes that knows nothing")
    calls = "1 call" if work.calls == 1 else f"{work.calls:,} calls"
    yield f"{calls}, {work.prompts:,.0f} tokens in prompts, {work.tokens(answer):,.0f} with answers ({whose})"
    yield f"{_forecast(limiter, work, answer)}"
    if None in work.bounds:
        for times in OTHERS:
            other = max(1.0, round(times * answer))
            yield f"with max_tokens={other:,.0f}: {_forecast(limiter, work, other)}"


def _forecast(limiter: Limiter, work: Work, max_tokens: float) -> Forecast:
    return limiter.forecast(requests=work.calls, tokens=work.tokens(max_tokens))


def _lines(file: str) -> list[str]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UnusableError(f"{file} cannot be read: {error.strerror}; give {FORMS}") from error
    except UnicodeDecodeError as error:
        raise UnusableError(f"{file} is not UTF-8: give {FORMS}") from error
    return text.split("\n")  # not splitlines: a JSON string may hold other ends of lines


def _work(lines: list[str], file: str, model: str | None) -> Work:
    prompts, bounds = 0.0, list[float | None]()
    for number, line in enumerate(lines, 1):
        if line.strip():
            tokens, bound = _call(line, f"{file}, line {number}", model)
            prompts += tokens
            bounds.append(bound)
    if not bounds:
        raise UnusableError(f"{file} has no prompt: give {FORMS}")
    return Work(len(bounds), prompts, tuple(bounds))


def _call(line: str, where: str, model: str | None) -> tuple[float, float | None]:
    """Tokens of one prompt, and the bound of its answer if it has one."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{where} is no JSON: give {FORMS}") from error
    if isinstance(told, dict) and isinstance(told.get("body"), dict):
        told = told["body"]  # a line of a batch API
    if isinstance(told, str):
        return guess_tokens(told, model), None
    prompt = [told[name] for name in PROMPTS if told.get(name)] if isinstance(told, dict) else []
    if not prompt:
        raise UnusableError(f"{where} has no prompt: give {FORMS}")
    bound = next((told[name] for name in OUTPUT_BOUNDS if type(told.get(name)) is int), None)
    return guess_tokens(prompt, model), None if bound is None else float(max(0, bound))
