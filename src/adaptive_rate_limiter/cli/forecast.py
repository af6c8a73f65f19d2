"""`forecast`: how long a batch takes, before it is run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.cli.arguments import UnusableError, positive
from adaptive_rate_limiter.cli.prompts import FORMS, read_prompts
from adaptive_rate_limiter.cli.tokenizer import load_tokenizer
from adaptive_rate_limiter.core.estimate import FIRST_OUTPUT
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from adaptive_rate_limiter.cli.prompts import Prompt
    from adaptive_rate_limiter.report import Forecast

OTHERS = (0.25, 0.5, 2.0)  # times max_tokens, to see what it changes
LIMITS = {REQUESTS: "--rpm", TOKENS: "--tpm", INPUT_TOKENS: "--itpm", OUTPUT_TOKENS: "--otpm"}


class Batch(NamedTuple):
    """Prompts, and the bound of each answer that has none of its own."""

    prompts: list[Prompt]
    answer: float

    def bounds(self, times: float = 1.0) -> list[float]:
        """Of the answers; other ones if `times` is not 1."""
        own = [self.answer if prompt.bound is None else prompt.bound for prompt in self.prompts]
        return own if times == 1.0 else [max(1.0, round(times * bound)) if bound else 0.0 for bound in own]

    @property
    def input_tokens(self) -> float:
        return sum(prompt.tokens for prompt in self.prompts)

    def forecast(self, limiter: Limiter, times: float = 1.0) -> Forecast:
        return limiter.forecast(
            requests=len(self.prompts), input_tokens=self.input_tokens, output_tokens=sum(self.bounds(times))
        )


def add(commands: Any) -> None:
    forecast = commands.add_parser(
        "forecast",
        help="how long a batch takes under limits that you know",
        description=f"Reads {FORMS}. Says how long they take, which limit binds, and what another max_tokens would"
        " change. Or takes the figures. Nothing is sent.",
    )
    forecast.add_argument("file", nargs="?", help="JSON Lines, or a JSON array; - for standard input")
    forecast.add_argument(
        "--model",
        help="counts tokens as this model does, if tiktoken is installed and has its file; else by characters",
    )
    forecast.add_argument(
        "--max-tokens", type=positive, help="bound of each answer that has none in the file"
    )
    forecast.add_argument("--requests", type=positive, help="calls in the batch, without a file")
    forecast.add_argument("--tokens", type=positive, help="their tokens, input and output together")
    for unit, short in LIMITS.items():
        long = f"--{unit.replace('_', '-')}-per-minute"
        forecast.add_argument(long, short, type=positive, metavar="LIMIT")
    forecast.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    limits = {unit: getattr(options, f"{unit}_per_minute") for unit in LIMITS}
    told = {unit: limit for unit, limit in limits.items() if limit is not None}
    figures = options.requests or options.tokens
    if bool(figures) == bool(options.file):
        raise UnusableError("give a file of prompts, or --requests and --tokens: one or the other")
    if figures:
        print(Limiter(quotas=told).forecast(requests=options.requests, tokens=options.tokens))
        return
    counted = load_tokenizer(options.model) is not None
    batch = Batch(read_prompts(options.file, options.model), float(options.max_tokens or FIRST_OUTPUT))
    print(_size(batch, counted=counted, assumed=options.max_tokens is None))
    unknown = f"no limit is known: give {', '.join(LIMITS.values())}"
    print("\n".join(_times(batch, told) if told else [unknown]))


def _size(batch: Batch, *, counted: bool, assumed: bool) -> str:
    calls = "1 call" if len(batch.prompts) == 1 else f"{len(batch.prompts):,} calls"
    prompts = f"{calls}, {'' if counted else 'about '}{batch.input_tokens:,.0f} tokens in prompts"
    answers = sum(batch.bounds())
    if not answers:
        return prompts
    whose = _named(batch, 1.0)
    if assumed and any(prompt.bound is None for prompt in batch.prompts):
        whose += ", as a limiter assumes that knows nothing"
    return f"{prompts}, {batch.input_tokens + answers:,.0f} with answers ({whose})"


def _named(batch: Batch, times: float) -> str:
    """The bounds of the answers, if they are all alike, or else as the file has them."""
    alike = set(batch.bounds(times))
    if len(alike) == 1:
        return f"max_tokens={alike.pop():,.0f}"
    return "max_tokens as in the file" if times == 1.0 else f"{times:g} times each max_tokens"


def _times(batch: Batch, limits: Mapping[str, float]) -> Iterator[str]:
    limiter = Limiter(quotas=limits)
    yield from _too_large(batch, limits)
    yield str(batch.forecast(limiter))
    if any(batch.bounds()):
        for times in OTHERS:
            yield f"with {_named(batch, times)}: {batch.forecast(limiter, times)}"


def _too_large(batch: Batch, limits: Mapping[str, float]) -> Iterator[str]:
    calls = [(prompt.tokens, bound) for prompt, bound in zip(batch.prompts, batch.bounds(), strict=True)]
    most = {TOKENS: max(map(sum, calls)), INPUT_TOKENS: max(calls)[0], OUTPUT_TOKENS: max(batch.bounds())}
    for unit, amount in most.items():
        if amount > limits.get(unit, math.inf):
            words = unit.replace("_", " ")
            yield f"the largest call may take {amount:,.0f} {words}: a limit of {limits[unit]:,} never lets it pass"
