"""Time is a FakeClock: it passes only where a call waits for it, an SDK's own pauses included."""

import asyncio
import json
import time

import anyio
import httpx
import pytest
from tests.recorded.cassettes import replay, request_of

from adaptive_rate_limiter import CapacityExceededError, Limiter
from adaptive_rate_limiter.http import AsyncAdaptiveTransport, observe_http
from adaptive_rate_limiter.http.payload import describe
from adaptive_rate_limiter.testing import FakeClock

PATIENCE = 5.0  # seconds of real time until a call that does not come to its end is given up
TURNS = 40  # of the event loop, in which all is done that needs no time


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def max_pause():
    """Overridden by the parametrization of a test that concerns it, as `library` below."""
    return 300.0


@pytest.fixture
def limiter(clock, max_pause):
    return Limiter(clock=clock, max_pause=max_pause)


@pytest.fixture
def turns():
    """Let the event loop do all that needs no time."""

    async def turns():
        for _ in range(TURNS):
            await asyncio.sleep(0)

    return turns


@pytest.fixture
def finish(clock, turns, monkeypatch):
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


class Caller:
    """One limiter, and HTTP clients under it that send the recorded requests."""

    def __init__(self, library, limiter, finish):
        self.limiter = limiter
        self.clock = limiter.clock
        self.finish = finish
        self.last = {}  # where the last call went: one more like it goes there, too
        # Nothing is sent, so no certificate is checked: to load them takes longer than the test.
        transport = library.AsyncHTTPTransport(verify=False)
        self._limited = library.AsyncClient(transport=AsyncAdaptiveTransport(limiter, transport))
        self._plain = library.AsyncClient(transport=transport)

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
        content = json.dumps(json.loads(request["body"]) | changes).encode()
        work = self._limited.post(
            request["uri"], content=content, headers={"content-type": "application/json"}
        )
        response, _ = await self.finish(work)
        url = response.request.url
        self.last = {"model": describe(content, url.path).get("model"), "route": (url.host, url.path)}
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
        reservation, seconds = await self.finish(self.limiter.aacquire(**self.last | call))
        reservation.cancel()
        return seconds

    async def ready_in(self, **call):
        """The seconds until one more call may go, whether it waits for them or is told them."""
        try:
            return await self.wait(**call)
        except CapacityExceededError as error:
            return error.retry_after

    def going(self, most, **call):
        """The calls that go at this instant, up to `most`."""
        calls = []
        while len(calls) < most:
            reservation = self.limiter.try_acquire(**self.last | call)
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
    return httpx


@pytest.fixture
async def caller(library, limiter, finish):
    caller = Caller(library, limiter, finish)
    yield caller
    await caller.aclose()
