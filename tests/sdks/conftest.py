"""A real server in the wire format of whichever SDK asks, and a limiter whose books can be read at any moment."""

import contextlib
import json

import pytest
from tests import wire as wires

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
        self.asked.append((handler.path, json.loads(wires.body_of(handler))))
        self.reserved.append(self._books.used())
        status, headers, chunks = self._answer
        wires.say(handler, status, headers)
        with contextlib.suppress(ConnectionError):
            for _ in wires.chunk_by_chunk(handler, chunks):
                self.written += 1
            if self.cut:
                handler.close_connection = True
            else:
                wires.end(handler)


@pytest.fixture
def limiter():
    return Limiter(quotas=[Quota("requests", 1000, YEARS), Quota("tokens", 100_000, YEARS)])


@pytest.fixture
def books(limiter):
    return Books(limiter)


@pytest.fixture
def wire(books):
    wire = Wire(books)
    with wires.served(wire.serve) as wire.url:
        yield wire
