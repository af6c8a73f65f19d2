"""One attempt on the wire, seen from a reservation: what httpx and httpx2 have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.http.payload import usage_in
from adaptive_rate_limiter.reservation import current_reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from adaptive_rate_limiter.http.payload import UsageReader
    from adaptive_rate_limiter.reservation import Reservation

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
CONTENT_TYPE = frozenset({b"content-type"})
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})
FORM = b"application/x-www-form-urlencoded"
FIRST_ERROR = 400
WRITTEN = "send_request_body.complete"


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

    def usage(self) -> dict[str, float] | None:
        if self.reader is not None:
            return self.reader.finish()
        return usage_in(self.response.content)


def is_call(request: Any) -> bool:
    """Reading is no call, and neither is asking for an access token."""
    return request.method not in READ_ONLY and _header(request, CONTENT_TYPE) != FORM


def reservation_for(request: Any) -> Reservation | None:
    """The reservation in force that this request is sent for.

    While a stream runs, its reader may call somebody else in the same context: what goes to another host
    after a success is not the reservation's.
    """
    reservation = current_reservation.get()
    if reservation is None or reservation.closed or not is_call(request):
        return None
    reply = reservation.reply
    if reply is not None and reply.response.status_code < FIRST_ERROR and reply.host != request.url.host:
        return None
    return reservation


def begin(reservation: Reservation, request: Any, written: Callable[[Reservation], Any]) -> bool:
    """True if this attempt has to be admitted before it is sent. `written` makes a trace of its way: see there."""
    traced = reservation.times_matter and "trace" not in request.extensions
    if traced:
        request.extensions["trace"] = written(reservation)
    credential = _header(request, CREDENTIALS)
    known_as = None if credential is None else credential.decode("latin-1")
    return reservation.begin_send(str(request.url), known_as, traced=traced)


def written(reservation: Reservation) -> Callable[[str, Any], None]:
    """A trace, in the sense of httpcore, that notes when the request was written.

    A busy client may take a second from `send` to there, and its connections wait for each other.
    """

    def trace(event: str, _info: Any) -> None:
        if event.endswith(WRITTEN):
            reservation.begin(written=True)

    return trace


def awritten(reservation: Reservation) -> Callable[[str, Any], Coroutine[Any, Any, None]]:
    """`written` for asynchronous clients."""
    note = written(reservation)

    async def trace(event: str, info: Any) -> None:
        note(event, info)

    return trace


def last_refusal(reservation: Reservation) -> Any:
    """The retry is not admitted: what the provider said to the last attempt is the answer to this one, too.

    Raised instead, our own error would be retried by SDKs that take it for a broken connection.
    """
    reply = reservation.reply
    if reply is None or reply.response.status_code < FIRST_ERROR:
        raise  # noqa: PLE0704 - called where the refusal to admit is being handled
    reply.response.headers["x-should-retry"] = "false"
    return reply.response


def answered(reservation: Reservation, request: Any, response: Any) -> None:
    """Learn from a response; that of an error has been read."""
    reservation.reply = Reply(request, response)
    if response.status_code < FIRST_ERROR and reservation.pass_unread():
        return
    body = _body_of(response) if response.status_code >= FIRST_ERROR else None
    reservation.observe(response.status_code, response.headers, body, url=str(request.url))
    if reservation.refusal is not None and not reservation.may_try_again:
        # OpenAI's and Anthropic's SDKs obey this header: they raise their own error instead of trying again.
        response.headers["x-should-retry"] = "false"


def failed(reservation: Reservation, error: BaseException) -> None:
    """No response came: give back what surely never left, keep charged what may have arrived."""
    if any(kind.__name__ in NEVER_SENT for kind in type(error).__mro__):
        reservation.never_sent()


def _header(request: Any, names: frozenset[bytes]) -> bytes | None:
    """The first of the headers of these names that says anything."""
    for name, value in request.headers.raw:  # `headers.get` takes ten times as long
        if value and name.lower() in names:
            return bytes(value)
    return None


def _body_of(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
