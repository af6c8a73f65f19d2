"""Transports: every request of a client that uses one is limited, with no other change to the code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import ConfigurationError
from adaptive_rate_limiter.http.exchange import FIRST_ERROR, Exchange, exchange_of, is_to_come
from adaptive_rate_limiter.http.payload import describe
from adaptive_rate_limiter.http.streams import awatch, library_of, watch
from adaptive_rate_limiter.http.trace import awritten, written
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    import httpx2
    from typing_extensions import Self

    from adaptive_rate_limiter.http.payload import UsageReader
    from adaptive_rate_limiter.reservation import Reservation

    class _Base(httpx.BaseTransport, httpx2.BaseTransport):  # type: ignore[misc]  # each has its own Request
        """What a type checker has to know: it is one for either library, of which one may not be installed."""

    class _AsyncBase(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]  # as above
        pass
else:
    _Base = _AsyncBase = object

__all__ = ["AdaptiveTransport", "AsyncAdaptiveTransport"]


class _Transport:
    """What both transports share. `transport` is what really sends; by default a new HTTPTransport of the
    library (httpx or httpx2) whose client this is used in.

    Raises ConfigurationError naming the argument and its value.
    """

    _inner_name = ""

    _handler = ""

    def __init__(self, limiter: Limiter | None = None, transport: Any = None) -> None:
        if limiter is not None and not isinstance(limiter, Limiter):
            raise ConfigurationError(f"limiter must be a Limiter, got {limiter!r}")
        if isinstance(transport, _Transport):
            raise ConfigurationError(f"transport is limited already: {transport!r}")
        if transport is not None and not callable(getattr(transport, self._handler, None)):
            raise ConfigurationError(f"transport must have {self._handler}(request), got {transport!r}")
        self.limiter = limiter or Limiter()
        self._inner = transport

    def _inner_for(self, request: Any) -> Any:
        if self._inner is None:
            library = library_of(request)
            # As many connections as OpenAI's SDK: it is the limiter that holds calls back, not the pool.
            limits = library.Limits(max_connections=1000, max_keepalive_connections=100)
            self._inner = getattr(library, self._inner_name)(limits=limits)
        return self._inner

    def _exchange(self, request: Any) -> Exchange | None:
        """None for what needs no reservation: reading, or what somebody has reserved, as a framework's own limiter."""
        if exchange_of(request) is not None:
            return None
        exchange = Exchange(request)
        return exchange if exchange.is_call else None


class AdaptiveTransport(_Transport, _Base):
    """For `httpx.Client(transport=AdaptiveTransport())` and `httpx2.Client`, and any SDK built on them.

    Model and size are read from the request, limits from the response's headers, usage from its body or the
    end of its stream, without delaying a byte. Raises CapacityExceededError like `Limiter.acquire`.
    """

    _inner_name = "HTTPTransport"
    _handler = "handle_request"

    def handle_request(self, request: Any) -> Any:
        inner = self._inner_for(request)
        exchange = self._exchange(request)
        if exchange is None:
            return inner.handle_request(request)
        reservation = exchange.reservation = self.limiter.acquire(
            **describe(request.read(), request.url.path), route=_route(request)
        )
        try:
            if exchange.begin(written):
                reservation.readmit()
            response = inner.handle_request(request)
            if response.status_code >= FIRST_ERROR:
                response.read()
        except BaseException as error:
            exchange.failed(error)
            reservation.lapse()
            raise
        _answered(exchange, response, watch)
        return response

    async def handle_async_request(self, request: Any) -> Any:
        """Raises ConfigurationError: an asynchronous client takes the other transport."""
        raise _mistaken(self, AsyncAdaptiveTransport, request)

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncAdaptiveTransport(_Transport, _AsyncBase):
    """`AdaptiveTransport` for `httpx.AsyncClient` and `httpx2.AsyncClient`."""

    _inner_name = "AsyncHTTPTransport"
    _handler = "handle_async_request"

    async def handle_async_request(self, request: Any) -> Any:
        inner = self._inner_for(request)
        exchange = self._exchange(request)
        if exchange is None:
            return await inner.handle_async_request(request)
        reservation = exchange.reservation = await self.limiter.aacquire(
            **describe(await request.aread(), request.url.path), route=_route(request)
        )
        try:
            if exchange.begin(awritten):
                await reservation.areadmit()
            response = await inner.handle_async_request(request)
            if response.status_code >= FIRST_ERROR:
                await response.aread()
        except BaseException as error:
            exchange.failed(error)
            reservation.lapse()
            raise
        _answered(exchange, response, awatch)
        return response

    def handle_request(self, request: Any) -> Any:
        """Raises ConfigurationError: a synchronous client takes the other transport."""
        raise _mistaken(self, AdaptiveTransport, request)

    async def aclose(self) -> None:
        if self._inner is not None:
            await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _mistaken(given: _Transport, right: type[_Transport], request: Any) -> ConfigurationError:
    library, client = (
        library_of(request).__name__,
        "AsyncClient" if right is AsyncAdaptiveTransport else "Client",
    )
    return ConfigurationError(
        f"transport must be {right.__name__}() for {library}.{client}, got {type(given).__name__}()"
    )


def _route(request: Any) -> tuple[str, str]:
    return request.url.host, request.url.path


def _answered(exchange: Exchange, response: Any, watch: Callable[..., UsageReader]) -> None:
    reply, reservation = exchange.answered(response), exchange.reservation
    if not reply.is_success:
        reservation.lapse()
    elif is_to_come(response):
        watch(exchange.request, response, partial(_settle, reservation))
    else:  # of a cache, or a mock: nobody will read its stream
        _end(reservation, reply.usage())


def _settle(reservation: Reservation, reader: UsageReader) -> None:
    if not reservation.closed:
        _end(reservation, reader.finish())


def _end(reservation: Reservation, usage: dict[str, float] | None) -> None:
    if usage is None:
        reservation.lapse()
    else:
        reservation.settle(**usage)
