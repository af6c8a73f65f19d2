"""Files of prompts, in the forms in which people have them: what each call takes."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.cli.arguments import UnusableError
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.http.payload import WITHOUT_ANSWER, described

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORMS", "Prompt", "read_prompts"]

FORMS = "a prompt in each line: a JSON string, or an object with messages, prompt or input, as batch APIs take them"
WRAPPERS = ("body", "params", "request", "modelInput")  # of batches: OpenAI, Anthropic, Gemini, Bedrock


class Prompt(NamedTuple):
    """One call: the tokens that go in, and the most that may come out; None where that is not said."""

    tokens: float
    bound: float | None


def read_prompts(file: str, model: str | None) -> list[Prompt]:
    """Those of a file, or of standard input for "-". Raises UnusableError that names the line."""
    name = "standard input" if file == "-" else file
    prompts = [_prompt(told, where, model) for told, where in _told(_text(file), name)]
    if not prompts:
        raise UnusableError(f"{name} has no prompt: give {FORMS}")
    return prompts


def _text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UnusableError(f"{file} cannot be read: {error.strerror}; give {FORMS}") from error
    except UnicodeDecodeError as error:
        raise UnusableError(f"{file} is not UTF-8: give {FORMS}") from error


def _told(text: str, name: str) -> Iterator[tuple[Any, str]]:
    """What each line says, or each element of one array, and where that stands."""
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            yield from ((told, f"{name}, prompt {place}") for place, told in enumerate(json.loads(text), 1))
            return
    for number, line in enumerate(
        text.split("\n"), 1
    ):  # not splitlines: a string may hold other ends of lines
        if line.strip():
            yield _loaded(line, f"{name}, line {number}"), f"{name}, line {number}"


def _loaded(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{where} is no JSON: give {FORMS}") from error


def _prompt(told: Any, where: str, model: str | None) -> Prompt:
    if isinstance(told, str):
        return Prompt(guess_tokens(told, model), _bound({}, model))
    if not isinstance(told, dict):
        raise UnusableError(f"{where} has no prompt: give {FORMS}")
    body = next((told[name] for name in WRAPPERS if isinstance(told.get(name), dict)), told)
    call = described(body, str(told.get("url") or ""))
    if "prompt" not in call:
        raise UnusableError(f"{where} has no prompt: give {FORMS}")
    named = model or call.get("model")
    return Prompt(guess_tokens(call["prompt"], named), _bound(call, named))


def _bound(call: dict[str, Any], model: str | None) -> float | None:
    if "max_tokens" in call:
        return float(call["max_tokens"])
    return 0.0 if WITHOUT_ANSWER.search(model or "") else None
