"""See every request that httpx and httpx2 send for a reservation, retries inside an SDK included.

`Client.send` and `AsyncClient.send` are wrapped once, above the transport, so a recorder such as VCR may
replace what lies below. A request outside a reservation passes through untouched.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from typing import Any

from adaptive_rate_limiter.http import exchange
from adaptive_rate_limiter.reservation import Reservation, current_reservation

__all__ = ["HttpObservation", "observe_http"]

LIBRARIES = ("httpx", "httpx2")

_lock = threading.Lock()
_observers = 0
_originals: dict[tuple[type, str], Callable[..., Any]] = {}


class HttpObservation:
    """Observation that is in force until `stop`, or until the end of a `with` block."""

    def __init__(self) -> None:
        self._stopped = False

    def stop(self) -> None:
        """End it; the last one to stop puts everything back as it was."""
        global _observers  # noqa: PLW0603 - what is wrapped is global as well
        with _lock:
            if self._stopped:
                return
            self._stopped = True
            _observers -= 1
            if not _observers:
                _restore()

    def __enter__(self) -> HttpObservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def observe_http() -> HttpObservation:
    """Observe the requests that are sent within a reservation; may be asked for more than once."""
    global _observers  # noqa: PLW0603
    with _lock:
        _observers += 1
        for library in LIBRARIES:
            if library in sys.modules or importlib.util.find_spec(library) is not None:
                _wrap(importlib.import_module(library))
    return HttpObservation()


def _wrap(library: Any) -> None:
    for client, wrapper in ((library.Client, _sync), (library.AsyncClient, _async)):
        key = (client, "send")
        if key not in _originals:
            _originals[key] = client.send
            client.send = wrapper(client.send)


def _restore() -> None:
    for (client, name), original in _originals.items():
        setattr(client, name, original)
    _originals.clear()


def _reservation_for(request: Any) -> Reservation | None:
    reservation = current_reservation.get()
    if reservation is None or reservation.closed or request.method in exchange.READ_ONLY:
        return None
    return reservation


def _sync(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, request: Any, **options: Any) -> Any:
        reservation = _reservation_for(request)
        if reservation is None:
            return original(self, request, **options)
        if exchange.begin(reservation, request):
            reservation.readmit()
        try:
            response = original(self, request, **options)
            if response.status_code >= exchange.FIRST_ERROR:
                response.read()
        except BaseException as error:
            exchange.failed(reservation, error)
            raise
        exchange.answered(reservation, request, response)
        return response

    return send


def _async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def send(self: Any, request: Any, **options: Any) -> Any:
        reservation = _reservation_for(request)
        if reservation is None:
            return await original(self, request, **options)
        if exchange.begin(reservation, request):
            await reservation.areadmit()
        try:
            response = await original(self, request, **options)
            if response.status_code >= exchange.FIRST_ERROR:
                await response.aread()
        except BaseException as error:
            exchange.failed(reservation, error)
            raise
        exchange.answered(reservation, request, response)
        return response

    return send
