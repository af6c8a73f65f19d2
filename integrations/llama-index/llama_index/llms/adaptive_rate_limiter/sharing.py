"""Which Limiter an object of LlamaIndex uses, also after it was copied or sent to another process."""

from __future__ import annotations

import copyreg
import os
import uuid
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from adaptive_rate_limiter import ConfigurationError, Limiter

_names: WeakKeyDictionary[Limiter, str] = WeakKeyDictionary()
_limiters: WeakValueDictionary[str, Limiter] = WeakValueDictionary()


def limiter_from(limiter: Any, options: dict[str, Any]) -> Limiter:
    """`limiter`, or a new one with `options`. Raises ConfigurationError naming the argument and its value."""
    if limiter is None:
        return Limiter(**options)
    if not isinstance(limiter, Limiter):
        raise ConfigurationError(f"limiter must be a Limiter, got {limiter!r}")
    if options:
        name, value = next(iter(options.items()))
        raise ConfigurationError(f"{name}={value!r} belongs to the Limiter that is given as limiter=")
    return limiter


def in_words(given: Any) -> str:
    """For an error: `given` itself, or only its type, since what a model says of itself may hold a key."""
    return repr(given) if given is None or isinstance(given, (str, int, float, type)) else type(given).__name__


def _reduce(limiter: Limiter) -> tuple[Any, ...]:
    """A copy in this process is the same limiter; one in another process starts anew, with the same settings.

    LlamaIndex pickles its components to run ingestion pipelines in several processes.
    """
    name = _names.get(limiter)
    if name is None:
        name = f"{os.getpid()}-{uuid.uuid4()}"
        _names[limiter], _limiters[name] = name, limiter
    settings = {
        "namespace": limiter.namespace,
        "quotas": limiter._quotas_of or limiter._quotas or None,  # noqa: SLF001 - no public name tells it
        "max_wait": limiter.max_wait,
        "max_pause": limiter.max_pause,
        "max_concurrency": limiter._max_concurrency,  # noqa: SLF001
        "weights": limiter._weights or None,  # noqa: SLF001
    }
    return _restore, (name, settings)


def _restore(name: str, settings: dict[str, Any]) -> Limiter:
    limiter = _limiters.get(name)
    if limiter is None:
        limiter = _limiters[name] = Limiter(**settings)
    return limiter


copyreg.pickle(Limiter, _reduce)
