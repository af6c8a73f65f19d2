"""A stream that looks like the one inside it, and settles the reservation at its end."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from adaptive_rate_limiter.protocols import StreamingResponseProtocol
from adaptive_rate_limiter.reservation import current_reservation

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from adaptive_rate_limiter.streaming.context import StreamingReservationContext

__all__ = ["RateLimitedAsyncIterator", "is_stream", "wrap"]

Chunk = TypeVar("Chunk")


class RateLimitedAsyncIterator(AsyncIterator[Chunk], Generic[Chunk]):
    """Yields the chunks of `inner` as they are, and ends the reservation of `context` exactly once.

    At the end of the stream, when it breaks off by an error or by cancellation, on `aclose`, at the end of an
    `async with`, or when nobody holds it any more. All other attributes are those of `inner`.
    """

    def __init__(self, inner: AsyncIterable[Chunk], context: StreamingReservationContext) -> None:
        self._inner: Any = inner
        self._context = context
        self._next = inner.__aiter__().__anext__

    @property
    def context(self) -> StreamingReservationContext:
        return self._context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        context = self._context
        try:
            reservation = context.reservation
            if reservation is not None and not reservation.sends and not context.ended:
                chunk = await self._sending(reservation)
            else:
                chunk = await self._next()
        except StopAsyncIteration:
            context.complete()
            raise
        except BaseException as error:
            context.fail(error)
            raise
        context.record_chunk(chunk)
        return chunk

    async def _sending(self, reservation: Any) -> Chunk:
        """A generator sends its request when it is first read: that request belongs to the reservation."""
        token = current_reservation.set(reservation)
        try:
            return await self._next()
        finally:
            with suppress(ValueError):  # closed in another context
                current_reservation.reset(token)

    async def aclose(self) -> None:
        """End the stream, and close the one inside. May be called again."""
        self._context.fail()
        for name in ("aclose", "close"):
            close = getattr(self._inner, name, None)
            if close is not None:
                closed = close()
                if inspect.isawaitable(closed):
                    await closed
                return

    async def close(self) -> None:
        """`aclose`, under the name that OpenAI's and Anthropic's streams have for it."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        if hasattr(type(self._inner), "__aenter__"):
            await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.fail(error)
        if hasattr(type(self._inner), "__aexit__"):
            await self._inner.__aexit__(kind, error, trace)
        else:
            await self.aclose()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":  # an instance that is not made yet has no `_inner`
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __del__(self) -> None:
        context = self.__dict__.get("_context")
        if context is not None:
            context.abandon()


def is_stream(result: Any) -> bool:
    """Whether `result` is read chunk by chunk: an async iterator, or a response that holds one by the protocol.

    Responses that could be read in parts, or pages that load the next one, are none.
    """
    return _is_stream(type(result))  # type: ignore[arg-type]  # a type is hashable


@lru_cache(maxsize=1024)
def _is_stream(kind: type) -> bool:
    step = inspect.getattr_static(kind, "__anext__", None)
    if step is None:
        return callable(getattr(kind, "get_iterator", None)) and callable(getattr(kind, "set_iterator", None))
    return callable(step) and hasattr(kind, "__aiter__")  # a mock has every name there is, but no method yet


def wrap(result: Any, context: StreamingReservationContext) -> Any:
    """`result`, for which `is_stream` is true, with the reservation of `context` tied to its end."""
    if hasattr(type(result), "__anext__") or not isinstance(result, StreamingResponseProtocol):
        return RateLimitedAsyncIterator(result, context)
    result.set_iterator(RateLimitedAsyncIterator(result.get_iterator(), context))
    return result
