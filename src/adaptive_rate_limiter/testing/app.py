"""The emulated provider as an ASGI application."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.testing.anthropic_api import Messages
from adaptive_rate_limiter.testing.desk import Desk
from adaptive_rate_limiter.testing.dialects import Answer, anthropic_error
from adaptive_rate_limiter.testing.exchange import Exchange, Line
from adaptive_rate_limiter.testing.openai_api import ChatCompletions, Embeddings, models
from adaptive_rate_limiter.testing.responses_api import Responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adaptive_rate_limiter.testing.calls import Endpoint
    from adaptive_rate_limiter.testing.desk import Receive, Send

ENDPOINTS: dict[str, Endpoint] = {
    "/chat/completions": ChatCompletions(),
    "/embeddings": Embeddings(),
    "/messages": Messages(),
    "/responses": Responses(),
}
"""By the end of the path; what comes before it does not matter."""

NOT_FOUND = 404


class App(Desk):
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
