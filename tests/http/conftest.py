import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import httpx2
import pytest

from adaptive_rate_limiter import Limiter, Quota

YEARS = 1e8  # seconds


class Script:
    """A real server that answers POST and GET with what a test wrote down: status, headers, chunks.

    A chunk that is an Event is waited for before the server goes on.
    """

    def __init__(self):
        self.answers = []
        self.seen = []
        self.given = []  # the chunks that were written
        self.url = ""

    def __call__(self, *chunks, status=200, **headers):
        self.answers.append(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}, chunks)
        )

    def serve(self, wire):
        wire.rfile.read(int(wire.headers.get("content-length") or 0))
        self.seen.append((wire.command, wire.path))
        status, headers, chunks = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        wire.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            wire.send_header(name, value)
        wire.send_header("transfer-encoding", "chunked")
        wire.end_headers()
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                if isinstance(chunk, threading.Event):
                    chunk.wait(10)
                else:
                    self.given.append(chunk)
                    wire.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            wire.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def script():
    script = Script()

    class Wire(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            script.serve(self)

        do_GET = do_POST  # noqa: N815 - the server's own spelling

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Wire) as server:
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield script
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    """An address where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request):
    return request.param


@pytest.fixture
def limiter():
    """Limits of years: nothing of them comes back during a test."""
    return Limiter(quotas=[Quota("requests", 1000, YEARS), Quota("tokens", 100_000, YEARS)])


@pytest.fixture
def used(limiter):
    """What the limits that we stated have lost, by unit; every call has ended."""

    def read():
        (bucket,) = [bucket for bucket in limiter.snapshot().buckets if bucket.admitted]
        assert (bucket.in_flight, bucket.waiting) == (0, 0)
        stated = [limit for limit in bucket.limits if limit.source == "stated"]
        return {limit.unit: round(limit.limit - limit.remaining) for limit in stated}

    return read
