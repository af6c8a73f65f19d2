"""Time is a FakeClock: it passes only where a call waits for it, an SDK's own pauses included."""

import asyncio
import json
import time

import anyio
import httpx
import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.http import AsyncAdaptiveTransport, observe_http
from adaptive_rate_limiter.testing import FakeClock
from tests.recorded.cassettes import replay, request_of

PATIENCE = 5.0  # seconds of real time until a call that does not come to its end is given up
TURNS = 40  # of the event loop, in which all is done that needs no time


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def limiter(clock):
    return Limiter(clock=clock)


@pytest.fixture
def finish(clock, monkeypatch):
    """Run a coroutine to its end: returns what it returned, and the seconds that passed.

    Once all have come to rest, time jumps to the next instant that anybody waits for.
    """

    async def pause(seconds):
        over = asyncio.Event()
        timer = clock.call_at(clock.now() + seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    monkeypatch.setattr(anyio, "sleep", pause)  # what the SDKs call before a retry

    async def finish(work):
        began, task, patience = clock.now(), asyncio.ensure_future(work), time.monotonic() + PATIENCE
        while not task.done():
            await turns()
            due = clock.next_due()
            if task.done():
                break
            if due is not None:
                clock.advance(max(0.0, due - clock.now()))
            else:  # a thread of the SDK is at work, or nobody will ever wake it
                assert time.monotonic() < patience, "it waits for something that time does not bring"
                await asyncio.sleep(0.001)
        return task.result(), clock.now() - began

    return finish


async def turns():
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Caller:
    """One limiter, and HTTP clients under it that send the recorded requests."""

    def __init__(self, library, limiter, finish):
        self.limiter = limiter
        self.clock = limiter.clock
        self.finish = finish
        self.model = None  # of the last call
        # Nothing is sent, so no certificate is checked: to load them takes longer than the test.
        transport = library.AsyncHTTPTransport(verify=False)
        self._limited = library.AsyncClient(transport=AsyncAdaptiveTransport(limiter, transport))
        self._plain = library.AsyncClient(verify=False)

    async def send(self, case, **changes):
        """Send the recorded request, its body changed if asked; returns the response."""
        request = request_of(case)
        with replay(case):
            if request["method"] == "GET":
                response = await self._read(request)
            else:
                response = await self._post(request, changes)
        return response

    async def _post(self, request, changes):
        before = {bucket.bucket_id: bucket.admitted for bucket in self.limiter.snapshot().buckets}
        body = json.loads(request["body"]) | changes
        response, _ = await self.finish(self._limited.post(request["uri"], json=body))
        (used,) = (
            bucket.bucket_id
            for bucket in self.limiter.snapshot().buckets
            if bucket.admitted > before.get(bucket.bucket_id, 0)
        )
        self.model = used.partition("/")[2].partition("@")[0].strip("*") or None
        return response

    async def _read(self, request):
        """A transport takes reads for no calls; whoever limits them observes them by hand."""
        reservation, _ = await self.finish(self.limiter.aacquire())
        response = await self._plain.get(request["uri"])
        reservation.observe(response.status_code, response.headers, response.text, url=str(response.url))
        reservation.lapse()
        return response

    async def insist(self, case, times):
        """Like an SDK that tries again at once, within one call: the seconds before each attempt that was sent."""
        request, sent = request_of(case), []
        with observe_http(), replay(*[case] * times) as cassette:
            reservation, _ = await self.finish(self.limiter.aacquire())
            async with reservation:
                for _ in range(times):
                    work = self._plain.request(request["method"], request["uri"], content=request["body"])
                    _, seconds = await self.finish(work)
                    if cassette.play_count > len(sent):
                        sent.append(seconds)
        return sent

    async def wait(self, **call):
        """The seconds until one more call may go. Raises CapacityExceededError if it may not."""
        reservation, seconds = await self.finish(self.limiter.aacquire(**{"model": self.model} | call))
        reservation.cancel()
        return seconds

    def going(self, most, **call):
        """The calls that go at this instant, up to `most`."""
        calls = []
        while len(calls) < most:
            reservation = self.limiter.try_acquire(**{"model": self.model} | call)
            if reservation is None:
                break
            calls.append(reservation)
        return calls

    @property
    def bucket(self):
        """The only bucket that was used."""
        (bucket,) = [bucket for bucket in self.limiter.snapshot().buckets if bucket.admitted]
        return bucket

    async def aclose(self):
        await self._limited.aclose()
        await self._plain.aclose()


@pytest.fixture
def library():
    """A test that concerns httpx2 as well is parametrized with `library`."""
    return httpx


@pytest.fixture
async def caller(library, limiter, finish):
    caller = Caller(library, limiter, finish)
    yield caller
    await caller.aclose()
