"""One attempt on the wire, seen from a reservation: what httpx and httpx2 have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.http.payload import usage_in
from adaptive_rate_limiter.reservation import current_reservation

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.http.payload import UsageReader
    from adaptive_rate_limiter.reservation import Reservation

CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
FIELDS = frozenset({*CREDENTIALS, b"content-type"})
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})
FORM = b"application/x-www-form-urlencoded"
FIRST_ERROR = 400


class Reply:
    """The last response to a reservation: where it came from, and the usage that its body tells.

    `reader` sees the body pass, if that is a stream which somebody else reads.
    """

    __slots__ = ("reader", "request", "response")

    def __init__(self, request: Any, response: Any) -> None:
        self.request = request
        self.response = response
        self.reader: UsageReader | None = None

    @property
    def host(self) -> Any:
        return self.request.url.host

    @property
    def is_success(self) -> bool:
        return bool(self.response.status_code < FIRST_ERROR)

    def usage(self) -> dict[str, float] | None:
        if self.reader is not None:
            return self.reader.finish()
        return usage_in(self.response.content)


class Exchange:
    """A request, the reservation that it is sent for, and how it ends.

    `is_call`: reading is none, and neither is asking for an access token.
    """

    __slots__ = ("_credential", "is_call", "request", "reservation")

    reservation: Reservation

    def __init__(self, request: Any) -> None:
        self.request = request
        # Of each, the name as given, that in lower case, and the value. A single `headers.get` takes longer than all.
        headers = getattr(request.headers, "_list", None) or _list_of(request.headers)
        fields = {name: value for _, name, value in headers if name in FIELDS}
        self._credential = next(filter(None, map(fields.get, CREDENTIALS)), None)
        self.is_call = request.method not in READ_ONLY and fields.get(b"content-type") != FORM

    def begin(self, written: Callable[[Reservation], Any]) -> bool:
        """True if it has to be admitted before it is sent. `written` makes a trace of its way, see http/trace.py."""
        reservation, request = self.reservation, self.request
        traceable = "trace" not in request.extensions
        waits = reservation.begin_send(request.url, self._credential, traceable=traceable)
        if reservation.traced:
            request.extensions["trace"] = written(reservation)
        return waits

    def last_refusal(self) -> Any:
        """The retry is not admitted: what the provider said to the last attempt is the answer to this one, too.

        Raised instead, our own error would be retried by SDKs that take it for a broken connection.
        """
        reply = self.reservation.reply
        if reply is None or reply.is_success:
            raise  # noqa: PLE0704 - called where the refusal to admit is being handled
        reply.response.headers["x-should-retry"] = "false"
        return reply.response

    def answered(self, response: Any) -> Reply:
        """Learn from a response; that of an error has been read."""
        reservation = self.reservation
        reply = reservation.reply = Reply(self.request, response)
        body = None
        if response.status_code >= FIRST_ERROR:
            body = _body_of(response)
        elif reservation.pass_unread():
            return reply
        reservation.observe(response.status_code, response.headers, body, url=str(self.request.url))
        if reservation.refusal is not None and not reservation.may_try_again:
            # OpenAI's and Anthropic's SDKs obey this header: they raise their own error instead of trying again.
            response.headers["x-should-retry"] = "false"
        return reply

    def failed(self, error: BaseException) -> None:
        """No response came: give back what surely never left, keep charged what may have arrived."""
        if any(kind.__name__ in NEVER_SENT for kind in type(error).__mro__):
            self.reservation.never_sent()


def exchange_of(request: Any) -> Exchange | None:
    """That of a request which is sent for the reservation in force; None for any other.

    While a stream runs, its reader may call somebody else in the same context: what goes to another host after a
    success is not the reservation's.
    """
    reservation = current_reservation.get()
    if reservation is None or reservation.closed:
        return None
    reply = reservation.reply
    if reply is not None and reply.is_success and reply.host != request.url.host:
        return None
    exchange = Exchange(request)
    exchange.reservation = reservation
    return exchange if exchange.is_call else None


def is_to_come(response: Any) -> bool:
    """A stream, which the caller reads."""
    return not hasattr(response, "_content")  # `is_stream_consumed` is False of a response made of bytes, too


def _list_of(headers: Any) -> list[tuple[bytes, bytes, bytes]]:
    return [(name, name.lower(), value) for name, value in headers.raw]


def _body_of(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
