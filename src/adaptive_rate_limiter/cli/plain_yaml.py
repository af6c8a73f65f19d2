"""YAML as plain values: tags of Python or Ruby are read as what they stand on, and run no code."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]

__all__ = ["load"]

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# What PyYAML lets through where a scalar is not what its tag says.
_MISREAD = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(_Base):  # type: ignore[misc]
    pass


def _plain(loader: Any, _suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


for prefix in ("!", "tag:yaml.org,2002:python/", "tag:ruby.yaml.org,2002:"):
    _Loader.add_multi_constructor(prefix, _plain)


def load(text: str) -> Any:
    """The document's values. Raises ValueError with a sentence where it is no YAML."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - built on the safe loader
    except (yaml.YAMLError, *_MISREAD) as error:
        raise ValueError(" ".join(str(error).split())) from error
