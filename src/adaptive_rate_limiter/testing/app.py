"""The emulated provider as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from adaptive_rate_limiter.testing.anthropic_api import Messages
from adaptive_rate_limiter.testing.dialects import Answer, anthropic_error, dialect
from adaptive_rate_limiter.testing.exchange import Exchange, Line
from adaptive_rate_limiter.testing.faults import fault_script
from adaptive_rate_limiter.testing.openai_api import ChatCompletions, Embeddings, models
from adaptive_rate_limiter.testing.responses_api import Responses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from adaptive_rate_limiter.testing.admission import Admission
    from adaptive_rate_limiter.testing.calls import Endpoint, OutputTokens, RequestInfo, ToolScript
    from adaptive_rate_limiter.testing.faults import Faults

    Latency = float | tuple[float, float] | Callable[[RequestInfo], float]
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

ENDPOINTS: dict[str, Endpoint] = {
    "/chat/completions": ChatCompletions(),
    "/embeddings": Embeddings(),
    "/messages": Messages(),
    "/responses": Responses(),
}
"""By the end of the path; what comes before it does not matter."""

NOT_FOUND = 404
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


class App:
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

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        raw = await _body(receive)
        path = scope["path"]
        endpoint = next((found for end, found in ENDPOINTS.items() if path.endswith(end)), None)
        if endpoint is None or scope["method"] != "POST":
            await self.reply(self._unlimited(scope["method"], path, raw), send)
            return
        now = time.monotonic()
        index, at = self.admission.arrive(now)
        try:
            call = endpoint.read(json.loads(raw), index=index, at=at, path=path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            await self.reply(self._malformed(400, f"The request could not be read: {error!r}"), send, index)
            return
        await Exchange(self, endpoint, call, Line(scope, receive, send)).run(now)

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

    def _unlimited(self, method: str, path: str, raw: bytes) -> Answer:
        """The models, and the emulator's own paths."""
        now = time.monotonic()
        if method == "GET" and path.endswith("/models"):
            return Answer(200, models())
        if method == "GET" and path.endswith("/emulator/stats"):
            return Answer(200, asdict(self.admission.stats(now)))
        if method == "POST" and path.endswith("/emulator/limits"):
            try:
                self.admission.set_limits(json.loads(raw), now)
            except (ValueError, TypeError, AttributeError) as error:
                return self._malformed(400, str(error))
            return Answer(200, {})
        return self._malformed(NOT_FOUND, f"Unknown URL: {method} {path}")

    def _malformed(self, status: int, message: str) -> Answer:
        kind = "not_found_error" if status == NOT_FOUND else "invalid_request_error"
        if self.conduct.provider == "anthropic":
            return Answer(status, anthropic_error(kind, message))
        return Answer(status, {"error": {"message": message, "type": kind, "param": None, "code": None}})


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
