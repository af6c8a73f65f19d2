"""What the commands have in common."""

from __future__ import annotations

import argparse


class UnusableError(Exception):
    """What was given cannot be used; the message is one sentence that says what was wrong and what would be right."""


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return value


def missing(what: str, distribution: str) -> UnusableError:
    """`what` is not installed; `distribution` brings it."""
    return UnusableError(f"{what} needs: pip install '{distribution}'")
