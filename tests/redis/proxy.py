"""A link to a server that can be slow, cut or silent, and that can speak TLS where the server cannot."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress

from tests.redis.server import free_port


class Proxy:
    """Running within `with`. `delay`: seconds that each piece takes, either way."""

    def __init__(self, to: int, *, tls: ssl.SSLContext | None = None, port: int | None = None) -> None:
        self.to = to
        self.tls = tls
        self.port = port or free_port()
        self.delay = 0.0
        self.is_cut = False
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Connections end, and new ones end at once."""
        self.is_cut = True
        self._loop.call_soon_threadsafe(self._abort)

    def silence(self) -> None:
        """Connections stay, and nothing comes through."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def heal(self) -> None:
        """What was silent goes on: as with real links, what was under way still arrives."""
        self.is_cut = False
        self._loop.call_soon_threadsafe(self._flows.set)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._end, self._flows = asyncio.Event(), asyncio.Event()
        self._flows.set()
        server = await asyncio.start_server(self._link, "127.0.0.1", self.port, ssl=self.tls)
        self._ready.set()
        await self._end.wait()
        server.close()
        self._abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _abort(self) -> None:
        for link in self._links:
            link.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        self._links.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
            self._links.add(far_writer)
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, far_writer)),
                    asyncio.ensure_future(self._pump(far_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._links.discard(far_writer)
            far_writer.transport.abort()
        self._links.discard(writer)
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                await asyncio.sleep(self.delay)
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
