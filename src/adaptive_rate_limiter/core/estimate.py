"""How many tokens to reserve for a call before it is sent.

Characters give a first guess; the real usage of earlier calls corrects it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CHARACTERS_PER_TOKEN = 4.0  # OpenAI's rule of thumb for English; the learned ratio corrects it per model
FIRST_OUTPUT = 256.0  # tokens reserved for an answer before any was seen
EARLY, STEP = 100, 0.05  # learned values that move an estimate in large steps, and the step after them
MEDIA_TOKENS = 800.0  # an image at medium detail, between OpenAI's 85 and 1,445; other media are as uncertain
MEDIA = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "video", "media"}
)
LONGEST_TOKENIZED = 20_000  # characters; beyond, a tokenizer costs more time than its precision is worth


class Quantile:
    """Follows the `level` quantile of a stream of positive numbers, in log space.

    log q <- log q + step * (1{x > q} - (1 - level)). Its long-run miss rate is 1 - level for any bounded
    sequence (Gibbs and Candes, Adaptive Conformal Inference, 2021). The first steps are larger, so that a
    bad start is soon forgotten.
    """

    __slots__ = ("adopted", "base", "count", "down", "level", "up", "value")

    def __init__(self, value: float, level: float = 0.9) -> None:
        self.value = value
        self.level = level
        self.up, self.down = math.exp(STEP * level), math.exp(-STEP * (1 - level))
        self.count = 0
        self.adopted = 0  # what `count` was at `adopt`, but for what was seen since
        self.base = 0.0  # the value that was adopted then

    @property
    def seen(self) -> int:
        """How many since `adopt`."""
        return self.count - self.adopted

    def adopt(self, value: float, count: int, before: float, seen: int) -> None:
        """Go on from what others have learned as well, after this one had told of `before` and `seen`."""
        self.value, self.base = value * self.value / before, value
        untold = self.seen - seen
        self.count = max(self.count, count + untold)
        self.adopted = self.count - untold

    def learn(self, seen: float) -> None:
        if not 0 < seen < math.inf:
            return
        self.count = count = self.count + 1
        if count > EARLY:
            self.value *= self.up if seen > self.value else self.down
            return
        if count == 1:
            self.value = seen
            return
        step = 0.5 / math.sqrt(count)
        miss = 1.0 if seen > self.value else 0.0
        self.value *= math.exp(step * (miss - (1 - self.level)))


class Estimator:
    """What calls to one model really use, against what was guessed."""

    __slots__ = ("input", "input_ratio", "output")

    def __init__(self) -> None:
        self.input = Quantile(0.0)  # of calls of which no guess was made
        self.input_ratio = Quantile(1.0)
        self.output = Quantile(FIRST_OUTPUT)

    @property
    def quantiles(self) -> dict[str, Quantile]:
        return {"input ratio": self.input_ratio, "output": self.output}

    @property
    def steady(self) -> bool:
        """Whether one call more or less makes little difference."""
        return max(self.input.count, self.input_ratio.count, self.output.count) > EARLY

    def expected(
        self,
        guessed: float,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        max_tokens: float | None = None,
    ) -> tuple[float, float]:
        """Input and output of a call, by what calls like it have used; what is stated stays, but for a guess.

        One of which nothing is said has none.
        """
        if guessed:
            input_tokens = math.ceil(guessed * self.input_ratio.value)
        if output_tokens is None:
            output_tokens = math.ceil(self.output.value) if input_tokens or max_tokens is not None else 0.0
            if max_tokens is not None and max_tokens < output_tokens:
                output_tokens = max_tokens
        return input_tokens or 0.0, output_tokens

    def usual(self) -> tuple[float, float]:
        """Input and output of a call of which nothing is known, by what calls have used so far; 0 before the first."""
        return math.ceil(self.input.value), math.ceil(self.output.value) if self.output.count else 0.0

    def learn(
        self,
        guessed: float,
        input_tokens: float | None,
        output_tokens: float | None,
        tokens: float | None = None,
    ) -> None:
        if guessed > 0:
            if input_tokens:
                self.input_ratio.learn(min(10.0, max(0.1, input_tokens / guessed)))
        elif input_tokens or tokens:
            self.input.learn(input_tokens or (tokens or 0.0) - (output_tokens or 0.0))
        if output_tokens:
            self.output.learn(output_tokens)


def guess_tokens(content: Any, model: str | None = None) -> float:
    """A guess at the tokens of a prompt: text, messages, lists and dictionaries of them, token ids.

    Counts characters; uses a tokenizer only if the application has one in memory, since loading one may
    reach for the network.
    """
    encoding = _tokenizer_in_memory(model)
    return _guess_text(content, encoding) if type(content) is str else _guess(content, encoding)


def _guess(content: Any, encoding: Any) -> float:  # noqa: PLR0911 - a table of types
    if isinstance(content, str):
        return _guess_text(content, encoding)
    if type(content) is list:
        return sum([_guess(item, encoding) for item in content])
    if isinstance(content, (bytes, bytearray)):
        return len(content) / CHARACTERS_PER_TOKEN
    if isinstance(content, bool) or content is None:
        return 0.0
    if isinstance(content, (int, float)):
        return 1.0  # a token id
    if isinstance(content, Mapping):
        if content.get("type") in MEDIA:
            return MEDIA_TOKENS
        return sum([_guess(value, encoding) for value in content.values()])
    if isinstance(content, Iterable) and not isinstance(
        content, Iterator
    ):  # an iterator is the caller's to use up
        return sum([_guess(item, encoding) for item in content])
    return 0.0


def _guess_text(text: str, encoding: Any) -> float:
    if text.startswith("data:"):  # a file written into the message: its characters are no words
        return MEDIA_TOKENS
    if encoding is None or len(text) > LONGEST_TOKENIZED:
        return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
    return float(len(encoding.encode_ordinary(text)))


def _tokenizer_in_memory(model: str | None) -> Any:
    loaded = getattr(sys.modules.get("tiktoken.registry"), "ENCODINGS", None)
    if not loaded or not model:
        return None
    names = sys.modules.get("tiktoken.model")
    if names is None:
        return None
    try:
        return loaded.get(names.encoding_name_for_model(model))
    except KeyError:  # a model that this tiktoken does not know
        return None
