"""What every exchange at the emulated provider has in common: conduct, pauses, headers and replies."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from adaptive_rate_limiter.testing.dialects import Answer, dialect
from adaptive_rate_limiter.testing.faults import fault_script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from adaptive_rate_limiter.testing.admission import Admission
    from adaptive_rate_limiter.testing.calls import OutputTokens, RequestInfo, ToolScript
    from adaptive_rate_limiter.testing.faults import Faults

    Latency = float | tuple[float, float] | Callable[[RequestInfo], float]
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

NOTHING_TOLD: Mapping[str, str] = {}


@dataclass(frozen=True)
class Conduct:
    """How a provider behaves, apart from its limits."""

    provider: str
    headers: bool
    charge: Literal["upfront", "usage"]
    stamp: Literal["admission", "reply"]
    latency: Latency
    output_tokens: OutputTokens
    faults: Faults
    tool_calls: ToolScript
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("charge", ("upfront", "usage")), ("stamp", ("admission", "reply"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if callable(self.latency):
            return
        least, most = self.latency if isinstance(self.latency, tuple) else (self.latency, self.latency)
        if not 0 <= least <= most < math.inf:
            raise ValueError(f"latency is seconds, a range of them or a function, got {self.latency!r}")


class Desk:
    def __init__(self, conduct: Conduct, admission: Admission) -> None:
        self.conduct = conduct
        self.admission = admission
        self.dialect = dialect(conduct.provider, headers=conduct.headers)
        self.fault = fault_script(conduct.faults, Random(conduct.seed))  # noqa: S311 - chance, not secrets
        self._rng = Random(conduct.seed + 1)  # noqa: S311 - chance, not secrets
        self._request_id = b"request-id" if conduct.provider == "anthropic" else b"x-request-id"
        self._pauses: set[asyncio.Future[None]] = set()
        self._closing = False
        self._date = (0, b"")

    def close(self) -> None:
        """Nothing waits from now on. To be called on the loop that serves."""
        self._closing = True
        for pause in self._pauses:
            _end(pause)

    async def pause(self, seconds: float) -> None:
        if seconds <= 0 or self._closing:
            return
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_later(seconds, _end, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)

    def latency(self, call: RequestInfo) -> float:
        latency = self.conduct.latency
        if isinstance(latency, tuple):
            return self._rng.uniform(*latency)
        return latency(call) if callable(latency) else latency

    def limit_headers(self, model: str, now: float) -> dict[str, str]:
        return self.dialect.headers(self.admission.standings(model, now), model, time.time())

    async def reply(
        self, answer: Answer, send: Send, index: int = 0, headers: Mapping[str, str] = NOTHING_TOLD
    ) -> None:
        body = answer.encoded()
        head = self.head({**headers, **answer.headers}, answer.content_type, index)
        head.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def head(self, headers: Mapping[str, str], content_type: str, index: int) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return [
            (b"date", self._date[1]),
            (b"content-type", content_type.encode()),
            (self._request_id, b"req_%d" % index),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ]


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
