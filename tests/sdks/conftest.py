"""A real server in the wire format of whichever SDK asks, and a limiter whose books can be read at any moment."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adaptive_rate_limiter import Limiter, Quota

YEARS = 1e8  # seconds: nothing of the limits comes back during a test


class Books:
    """What the stated limits have lost so far, by unit, and in which bucket."""

    def __init__(self, limiter):
        self._limiter = limiter

    @property
    def bucket(self):
        (bucket,) = self._buckets()
        return bucket

    def _buckets(self):
        return [bucket for bucket in self._limiter.snapshot().buckets if bucket.admitted]

    def used(self):
        if not self._buckets():
            return {}
        stated = [limit for limit in self.bucket.limits if limit.source == "stated"]
        return {limit.unit: round(limit.limit - limit.remaining) for limit in stated}

    def settled(self):
        """`used`, once every call has ended."""
        assert (self.bucket.in_flight, self.bucket.waiting) == (0, 0)
        return self.used()


class Wire:
    """Answers every POST with the chunks that a test gave it, each sent on its own; an Event is waited for.

    `asked`: path and JSON body of each request. `reserved`: what the limits had lost when it arrived.
    """

    def __init__(self, books):
        self._books = books
        self._answer = (200, {}, ())
        self.asked = []
        self.reserved = []
        self.written = 0
        self.cut = False  # the connection is closed after the last chunk, with the end still to come
        self.url = ""

    def answers(self, *chunks, status=200, content_type="application/json", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answer = (status, {"content-type": content_type} | headers, chunks)

    def serve(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.asked.append((handler.path, json.loads(body)))
        self.reserved.append(self._books.used())
        status, headers, chunks = self._answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                if isinstance(chunk, threading.Event):
                    chunk.wait(10)
                else:
                    self.written += 1
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if self.cut:
                handler.close_connection = True
            else:
                handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def limiter():
    return Limiter(quotas=[Quota("requests", 1000, YEARS), Quota("tokens", 100_000, YEARS)])


@pytest.fixture
def books(limiter):
    return Books(limiter)


@pytest.fixture
def wire(books):
    wire = Wire(books)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            wire.serve(self)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        wire.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield wire
        server.shutdown()
        thread.join()
