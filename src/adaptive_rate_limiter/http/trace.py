"""When a request was written, as httpcore tells it. Its pools take a coroutine only from a function of Python's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from adaptive_rate_limiter.reservation import Reservation

WRITTEN = "send_request_body.complete"


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
