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
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import CapacityExceededError
from adaptive_rate_limiter.http.exchange import FIRST_ERROR, exchange_of, is_to_come
from adaptive_rate_limiter.http.streams import awatch, watch
from adaptive_rate_limiter.http.trace import awritten, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["HttpObservation", "observe_http"]

LIBRARIES = ("httpx", "httpx2")

_lock = threading.Lock()
_observers = 0
_wrapped: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # client -> its own `send`, and ours


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

    def __enter__(self) -> Self:
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
        if client not in _wrapped:
            _wrapped[client] = (client.send, wrapper(client.send))
            client.send = _wrapped[client][1]


def _restore() -> None:
    for client, (original, ours) in list(_wrapped.items()):
        if client.send is ours:  # else somebody wrapped ours: taking it out would take theirs out, too
            client.send = original
            del _wrapped[client]


def _sync(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, request: Any, **options: Any) -> Any:
        exchange = exchange_of(request) if _observers else None
        if exchange is None:
            return original(self, request, **options)
        if exchange.begin(written):
            try:
                exchange.reservation.readmit()
            except CapacityExceededError:
                return exchange.last_refusal()
        try:
            response = original(self, request, **options)
            if response.status_code >= FIRST_ERROR:
                response.read()
        except BaseException as error:
            exchange.failed(error)
            raise
        reply = exchange.answered(response)
        if is_to_come(response):
            reply.reader = watch(request, response)
        return response

    return send


def _async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def send(self: Any, request: Any, **options: Any) -> Any:
        exchange = exchange_of(request) if _observers else None
        if exchange is None:
            return await original(self, request, **options)
        if exchange.begin(awritten):
            try:
                await exchange.reservation.areadmit()
            except CapacityExceededError:
                return exchange.last_refusal()
        try:
            response = await original(self, request, **options)
            if response.status_code >= FIRST_ERROR:
                await response.aread()
        except BaseException as error:
            exchange.failed(error)
            raise
        reply = exchange.answered(response)
        if is_to_come(response):
            reply.reader = awatch(request, response)
        return response

    return send
