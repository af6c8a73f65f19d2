"""Streams of bytes that are read for their usage as they pass, for httpx and httpx2."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.http.payload import UsageReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Ended = Callable[[UsageReader], None]


def watch(request: Any, response: Any, ended: Ended | None = None) -> UsageReader:
    """Read the response's stream while its reader does; `ended` is called at its end, whatever ends it."""
    return _watched(0, request, response, ended)


def awatch(request: Any, response: Any, ended: Ended | None = None) -> UsageReader:
    """`watch` for asynchronous clients."""
    return _watched(1, request, response, ended)


def library_of(request: Any) -> Any:
    """Httpx or httpx2."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def _watched(kind: int, request: Any, response: Any, ended: Ended | None) -> UsageReader:
    headers = response.headers
    reader = UsageReader(headers.get("content-type", ""), headers.get("content-encoding", ""))
    response.stream = _kinds(library_of(request))[kind](response.stream, reader, ended or _nothing)
    return reader


def _nothing(_: UsageReader) -> None:
    pass


@lru_cache(maxsize=4)
def _kinds(library: Any) -> tuple[type, type]:
    class WatchedStream(library.SyncByteStream):  # type: ignore[misc]  # httpx and httpx2 have one each
        def __init__(self, stream: Any, reader: UsageReader, ended: Ended) -> None:
            self._stream = stream
            self._reader = reader
            self._ended = ended

        def __iter__(self) -> Iterator[bytes]:
            try:
                for chunk in self._stream:
                    self._reader.feed(chunk)
                    yield chunk
            except Exception:  # cut in the middle; not every SDK closes what it was reading
                self._ended(self._reader)
                raise
            self._ended(self._reader)

        def close(self) -> None:
            self._stream.close()
            self._ended(self._reader)

    class AsyncWatchedStream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, reader: UsageReader, ended: Ended) -> None:
            self._stream = stream
            self._reader = reader
            self._ended = ended

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for chunk in self._stream:
                    self._reader.feed(chunk)
                    yield chunk
            except Exception:
                self._ended(self._reader)
                raise
            self._ended(self._reader)

        async def aclose(self) -> None:
            await self._stream.aclose()
            self._ended(self._reader)

    return WatchedStream, AsyncWatchedStream
