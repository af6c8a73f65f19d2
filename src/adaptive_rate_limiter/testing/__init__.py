"""For tests of code under rate limits: a provider emulator and the enforcement algorithms.

`ProviderEmulator` needs the extra `adaptive-rate-limiter[testing]`; nothing else here does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.testing.clock import FakeClock
from adaptive_rate_limiter.testing.gate import Gate, Rule, Strangers, Verdict
from adaptive_rate_limiter.testing.limits import FixedWindow, Limit, SlidingWindow, TokenBucket

if TYPE_CHECKING:
    from adaptive_rate_limiter.testing.conformance import BackendConformance
    from adaptive_rate_limiter.testing.emulator import (
        EmulatorStats,
        Event,
        ProviderEmulator,
        RequestInfo,
        ToolCall,
    )

_EMULATOR = {"EmulatorStats", "Event", "ProviderEmulator", "RequestInfo", "ToolCall"}

__all__ = [
    "BackendConformance",
    "EmulatorStats",
    "Event",
    "FakeClock",
    "FixedWindow",
    "Gate",
    "Limit",
    "ProviderEmulator",
    "RequestInfo",
    "Rule",
    "SlidingWindow",
    "Strangers",
    "TokenBucket",
    "ToolCall",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    if name == "BackendConformance":
        return import_module("adaptive_rate_limiter.testing.conformance").BackendConformance
    if name not in _EMULATOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module("adaptive_rate_limiter.testing.emulator"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name}: pip install 'adaptive-rate-limiter[testing]'"
        ) from error
