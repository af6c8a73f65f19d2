"""The pytest plugin. It is loaded at every start of pytest, so it imports nothing heavy."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adaptive_rate_limiter.testing.emulator import ProviderEmulator


@pytest.fixture
def provider_emulator() -> Iterator[Callable[..., ProviderEmulator]]:
    """Factory of running emulators: `provider_emulator("openai", requests_per_minute=60)`. All stop at teardown."""
    with ExitStack() as running:

        def start(*args: Any, **kwargs: Any) -> ProviderEmulator:
            from adaptive_rate_limiter.testing import ProviderEmulator  # noqa: PLC0415 - only if it is used

            return running.enter_context(ProviderEmulator(*args, **kwargs))

        yield start
