"""Tokens counted as a model counts them, where that takes no download."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

__all__ = ["load_tokenizer"]


def load_tokenizer(model: str | None) -> Any:
    """Put that of `model` into memory, where the estimate of tokens finds it; None if tiktoken has no file of it."""
    try:
        tiktoken: Any = import_module("tiktoken")
        files: Any = import_module("tiktoken.load")
    except ImportError:
        return None
    read_file, files.read_file = files.read_file, _not_here  # it would ask the network
    try:
        with suppress(KeyError, OSError):  # no model of OpenAI's, or no file
            return tiktoken.encoding_for_model(model or "")
    finally:
        files.read_file = read_file
    return None


def _not_here(path: str) -> NoReturn:
    raise FileNotFoundError(path)
