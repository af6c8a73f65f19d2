"""An ASGI application on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 4096
PATIENCE = 1.0
"""Seconds, at the end, for clients that do not read their answers or do not finish their requests."""
ABORT = "emulator.abort"
"""Key in the ASGI scope: a callable that cuts the connection without an answer."""


class Wire(HttpToolsProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = (
            False  # here, because the option of uvicorn.Config changes loggers of the whole process
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        # asyncio does this only if the listening socket names its protocol, and ours does not. Without it the
        # second write of each answer waits for the client's delayed acknowledgement, 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ABORT] = self.transport.abort


class Loopback(uvicorn.Server):
    """Starts and stops from any thread, without uvicorn's ticks of a tenth of a second."""

    def __init__(self, app: Any, host: str, port: int, on_stop: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=Wire,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=300,
        )
        super().__init__(config)
        self._on_stop = on_stop
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="provider-emulator", daemon=True)

    def begin(self) -> None:
        """Returns when requests are answered."""
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            raise RuntimeError("the emulator did not start") from self._failure

    def end(self) -> None:
        """Requests in flight are answered at once, without the rest of their latency."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self.serve(sockets=[self._socket]))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
        finally:
            self._socket.close()
            self._up.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._up.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        self._on_stop()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        cut = self._loop.call_later(PATIENCE, self._abort)
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        for wire in self._wires():
            wire.transport.close()  # once the answer is written out
        while self._wires():  # noqa: ASYNC110 - uvicorn tells nobody when a connection has gone
            await asyncio.sleep(0.001)
        cut.cancel()
        for server in self.servers:
            await server.wait_closed()

    def _abort(self) -> None:
        for wire in self._wires():
            wire.transport.abort()

    def _wires(self) -> list[Wire]:
        return [wire for wire in self.server_state.connections if isinstance(wire, Wire)]
