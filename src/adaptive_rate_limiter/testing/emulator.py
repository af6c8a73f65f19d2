"""A provider on a loopback port, for tests and benchmarks of whatever has to stay under its limits."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from adaptive_rate_limiter.testing.admission import Admission, EmulatorStats, Event, Terms
from adaptive_rate_limiter.testing.app import App
from adaptive_rate_limiter.testing.calls import RequestInfo, ToolCall
from adaptive_rate_limiter.testing.desk import Conduct
from adaptive_rate_limiter.testing.server import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from adaptive_rate_limiter.testing.calls import OutputTokens, ToolScript
    from adaptive_rate_limiter.testing.desk import Latency
    from adaptive_rate_limiter.testing.dialects import Provider
    from adaptive_rate_limiter.testing.faults import Faults
    from adaptive_rate_limiter.testing.limits import Algorithm

__all__ = ["EmulatorStats", "Event", "ProviderEmulator", "RequestInfo", "ToolCall"]

BY_USAGE = ("anthropic", "groq")


class ProviderEmulator:
    """Serves while it is entered, as a sync or async context manager, and enforces its limits exactly.

    It speaks OpenAI's chat completions, embeddings and responses, Azure's paths and Anthropic's messages at once;
    `provider` chooses the headers and the words of refusals. Tokens are characters / 4, rounded up.

    A limit of `None` is not enforced. Every "per minute" is per `window` seconds.

    - `burst`: depth of token buckets in seconds of refill; default a full window.
    - `aligned`: fixed windows follow the clock, from the creation of the emulator on, not the first request.
    - `slice_seconds`: requests are also limited evenly, to max(1, their share) in every slice; no header tells it.
    - `charge`: "upfront" takes prompt + max_tokens and gives nothing back (openai, azure, ietf, headerless);
      "usage" takes the prompt at admission and the output as it is produced, into debt if need be (anthropic, groq).
    - `headers=False`: none, and refusals tell neither limit nor time. "headerless" is the same.
    - `stamp`: whether headers show the limits at admission (the default) or when the reply leaves.
    - `latency`: seconds, a range, or a function of the request. A stream waits half of it for the first byte.
    - `output_tokens`: length of answers, cut at max_tokens.
    - `faults`: {500: 0.01, "drop_before": 0.01}, or [None, 503, "drop_after"] by arrival, or a function. Statuses
      and "drop_before" charge nothing; "drop_after" cuts the connection of a request that was charged.
    - `tool_calls`: True calls the first tool unless the last message is a tool's result; or a function that returns
      a tool's name, a `ToolCall`, several of them, or None.
    - `strangers`: share of every rate that other clients of the same key take. Headers show what they took.
    - `count_refused`: refused requests count against the limits on requests.
    """

    def __init__(
        self,
        provider: Provider = "openai",
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        requests_per_day: float | None = None,
        algorithm: Algorithm = "token_bucket",
        window: float = 60.0,
        burst: float | None = None,
        aligned: bool = False,
        slice_seconds: float | None = None,
        charge: Literal["upfront", "usage"] | None = None,
        headers: bool = True,
        stamp: Literal["admission", "reply"] = "admission",
        max_concurrency: int | None = None,
        count_refused: bool = False,
        per_model: bool = False,
        strangers: float = 0.0,
        latency: Latency = 0.05,
        output_tokens: OutputTokens = 16,
        faults: Faults = None,
        tool_calls: ToolScript = True,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        terms = Terms(
            algorithm=algorithm,
            window=window,
            burst=burst,
            aligned=aligned,
            slice_seconds=slice_seconds,
            max_concurrency=max_concurrency,
            strangers=strangers,
            per_model=per_model,
            count_refused=count_refused,
            epoch=time.monotonic(),
        )
        limits = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "input_tokens_per_minute": input_tokens_per_minute,
            "output_tokens_per_minute": output_tokens_per_minute,
            "requests_per_day": requests_per_day,
        }
        self.provider = provider
        self.host = host
        self._port = port
        self._admission = Admission(terms, limits)
        self._conduct = Conduct(
            provider=provider,
            headers=headers,
            charge=charge or ("usage" if provider in BY_USAGE else "upfront"),
            stamp=stamp,
            latency=latency,
            output_tokens=output_tokens,
            faults=faults,
            tool_calls=tool_calls,
            seed=seed,
        )
        App(self._conduct, self._admission)  # a wrong option fails here
        self._server: Loopback | None = None

    @property
    def port(self) -> int:
        """Raises RuntimeError before the start, unless a port was asked for."""
        if self._server is not None:
            return self._server.port
        if not self._port:
            raise RuntimeError("the emulator has a port while it runs: enter it first")
        return self._port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What the provider's client takes: `base_url`, or Azure's `azure_endpoint`."""
        return self.url if self.provider in ("anthropic", "azure") else f"{self.url}/v1"

    def start(self) -> None:
        """Returns when requests are answered. Raises OSError if the port is taken."""
        if self._server is not None:
            raise RuntimeError("the emulator runs already")
        app = App(self._conduct, self._admission)
        server = Loopback(app, self.host, self._port, app.close)
        server.begin()
        self._server = server

    def stop(self) -> None:
        """Requests in flight are answered without the rest of their latency. May be called again."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def run(self, on_ready: Callable[[ProviderEmulator], object] = lambda _emulator: None) -> None:
        """Serve until interrupted."""
        with self, suppress(KeyboardInterrupt):
            on_ready(self)
            while True:
                time.sleep(3600)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def set_limits(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        requests_per_day: float | None = None,
    ) -> None:
        """From now on; `None` leaves a limit as it is. What is used stays used."""
        limits = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "input_tokens_per_minute": input_tokens_per_minute,
            "output_tokens_per_minute": output_tokens_per_minute,
            "requests_per_day": requests_per_day,
        }
        self._admission.set_limits(limits, time.monotonic())

    def schedule(self, at: float, **limits: float) -> None:
        """`set_limits(**limits)`, `at` seconds after the first request."""
        self._admission.schedule(at, limits)

    def stats(self) -> EmulatorStats:
        """What happened so far; also after the end."""
        return self._admission.stats(time.monotonic())

    def lower_bound(self) -> float:
        """T*: the least seconds from the first request to the last admission, for the work admitted so far.

        No client can be faster than this. Output that is charged by usage counts up to the last admission.
        """
        return self.stats().lower_bound
