"""One attempt on the wire, seen from a reservation: what httpx and httpx2 have in common."""

from __future__ import annotations

import json
from typing import Any

from adaptive_rate_limiter.reservation import Reservation

CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})  # an LLM call is none of these
FIRST_ERROR = 400


def credential_of(request: Any) -> str | None:
    for name in CREDENTIALS:
        if value := request.headers.get(name):
            return str(value)
    return None


def begin(reservation: Reservation, request: Any) -> bool:
    """True if this attempt has to be admitted before it is sent."""
    return reservation.begin_send(str(request.url), credential_of(request))


def answered(reservation: Reservation, request: Any, response: Any) -> None:
    """Learn from a response; that of an error has been read."""
    body = body_of(response) if response.status_code >= FIRST_ERROR else None
    reservation.observe(response.status_code, response.headers, body, url=str(request.url))
    refusal = reservation.refusal
    if refusal is None:
        return
    too_long = (refusal.retry_after or 0.0) > reservation.max_pause
    if too_long or not refusal.retryable:
        # OpenAI's and Anthropic's SDKs obey this header: they raise their own error instead of trying again.
        response.headers["x-should-retry"] = "false"


def failed(reservation: Reservation, error: BaseException) -> None:
    """No response came: give back what surely never left, keep charged what may have arrived."""
    if any(kind.__name__ in NEVER_SENT for kind in type(error).__mro__):
        reservation.never_sent()


def body_of(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, UnicodeDecodeError):
        return response.text
