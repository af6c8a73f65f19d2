import contextlib
import socket

import httpx
import httpx2
import pytest
from tests import wire

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

    def serve(self, handler):
        wire.body_of(handler)
        self.seen.append((handler.command, handler.path))
        status, headers, chunks = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        wire.say(handler, status, {"content-type": "application/json"} | headers)
        with contextlib.suppress(ConnectionError):
            for chunk in wire.chunk_by_chunk(handler, chunks):
                self.given.append(chunk)
            wire.end(handler)


@pytest.fixture
def script():
    script = Script()
    with wire.served(script.serve) as script.url:
        yield script


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
