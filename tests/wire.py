"""A real HTTP server on loopback that says byte by byte what a test wrote down."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 10.0  # seconds that an Event among the chunks is waited for


@contextmanager
def served(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server whose every GET and POST is answered by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer(self)

        do_GET = do_POST  # noqa: N815 - the server's own spelling

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def body_of(handler: BaseHTTPRequestHandler) -> bytes:
    return handler.rfile.read(int(handler.headers.get("content-length") or 0))


def say(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    """Status and headers; the body follows in chunks."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()


def chunk_by_chunk(
    handler: BaseHTTPRequestHandler, chunks: tuple[bytes | threading.Event, ...]
) -> Iterator[bytes]:
    """Write each chunk on its own, and tell of it; an Event is waited for."""
    for chunk in chunks:
        if isinstance(chunk, threading.Event):
            chunk.wait(PATIENCE)
        else:
            yield chunk
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


def end(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"0\r\n\r\n")
