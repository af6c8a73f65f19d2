"""Whatever is cancelled, late, refused, broken off or thrown away, and whenever: nothing is leaked."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.garbage import collect

from adaptive_rate_limiter.scheduler import RateLimiterConfig, create_scheduler
from adaptive_rate_limiter.testing import FakeClock

from .conftest import MODES, Client, request
from .test_scheduler_limits import RefusedError

QUOTAS = {"a": {"requests": 240, "tokens": 3000}, "account": {"requests": 240, "tokens": 3000}}
SLOTS = 3

places = st.integers(0, 7)
actions = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, 10, 900, 4000]),
        st.sampled_from([None, 0.001, 3.0]),
        st.integers(0, 2),
    ),
    st.tuples(
        st.sampled_from(["answer", "stream", "refuse", "refuse long", "fail", "break", "swallow"]), places
    ),
    st.tuples(st.sampled_from(["cancel", "read", "read on", "close", "drop", "cancel reader"]), places),
    st.tuples(st.just("turn"), st.integers(1, 4)),
    st.tuples(st.just("advance"), st.sampled_from([0.001, 0.3, 2.0, 61.0])),
    st.tuples(st.just("restart")),
)


class Chunks:
    def __init__(self):
        self.left = 3

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return {"usage": {"total_tokens": 10 * (3 - self.left)}}


class Walk:
    """One walk: submissions that wait for a word of the walk, and streams in its hands."""

    def __init__(self, mode, most):
        self.clock = FakeClock()
        config = RateLimiterConfig(
            max_concurrent_executions=SLOTS, max_queue_size=most, overflow_policy="drop_oldest",
            max_retries=2, request_timeout=0.5, max_failures=4,
        )  # fmt: skip
        self.scheduler = create_scheduler(
            Client(), mode, config, quotas=QUOTAS, clock=self.clock, observe_http=False
        )
        self.tasks, self.words, self.streams, self.readers = [], [], [], []

    def submit(self, model, tokens, timeout, priority):
        async def call():
            word = asyncio.get_running_loop().create_future()
            self.words.append(word)
            try:
                said = await word
            except asyncio.CancelledError:
                if getattr(word, "swallows", False):
                    return "swallowed"
                raise
            if isinstance(said, Exception):
                raise said
            return said

        metadata = request(
            model_id=model, estimated_tokens=tokens, timeout=timeout, priority=priority, client_id=model
        )
        self.tasks.append(asyncio.create_task(self.keep(metadata, call)))

    async def keep(self, metadata, call):
        result = await self.scheduler.submit_request(metadata, call)
        if not isinstance(result, str):
            self.streams.append(result)

    def say(self, what, place):
        words = [word for word in self.words if not word.done()]
        if not words:
            return
        word = words[place % len(words)]
        if what == "swallow":
            word.swallows = True
            return
        said = {
            "answer": "answer",
            "stream": Chunks(),
            "refuse": RefusedError(0.2),
            "refuse long": RefusedError(1000),
            "fail": OSError(),
            "break": ValueError(),
        }
        word.set_result(said[what])

    async def do(self, what, *given):
        if what == "submit":
            self.submit(*given)
        elif what == "turn":
            for _ in range(given[0]):
                await asyncio.sleep(0)
        elif what == "advance":
            self.clock.advance(given[0])
        elif what == "restart":
            await self.end()
            await self.scheduler.start()
        elif what == "cancel":
            if self.tasks:
                self.tasks[given[0] % len(self.tasks)].cancel()
        elif what == "cancel reader":
            if self.readers:
                self.readers[given[0] % len(self.readers)].cancel()
        elif what in {"read", "read on", "close", "drop"}:
            await self.use_stream(what, given[0])
        else:
            self.say(what, given[0])

    async def use_stream(self, what, place):
        if not self.streams:
            return
        stream = self.streams.pop(place % len(self.streams))
        if what == "close":
            await stream.aclose()
        elif what != "drop":

            async def read():
                async for _ in stream:
                    if what == "read":
                        return

            self.readers.append(asyncio.create_task(read()))

    async def end(self):
        """Everything under way is answered, so that the scheduler need not wait for it."""
        stopping = asyncio.create_task(self.scheduler.stop())
        while not stopping.done():
            for word in self.words:
                if not word.done():
                    word.set_result("the end")
            await asyncio.sleep(0)
        await stopping

    def check(self):
        self.clock.advance(0)  # what the garbage collector put off
        for bucket in self.scheduler.limiter.snapshot().buckets:
            assert (bucket.in_flight, bucket.waiting) == (0, 0), bucket
            for limit in bucket.limits:
                assert (
                    not limit.remaining > limit.limit
                )  # of a limit that is only inferred, it is not a number


async def walk(mode, most, steps, abort):
    walk = Walk(mode, most)
    scheduler = walk.scheduler
    await scheduler.start()
    for step in steps:
        await walk.do(*step)
    run = scheduler._run
    if abort:
        await scheduler._stop(abort=True)
    else:
        await walk.end()
    await asyncio.gather(*walk.tasks, *walk.readers, return_exceptions=True)
    walk.streams.clear()
    collect()
    for _ in range(3):
        await asyncio.sleep(0)
    walk.check()
    assert run.slots.free == SLOTS
    assert (len(run.line), len(run.attempts), len(run.streams), run.submissions) == (0, 0, 0, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(scope="module", autouse=True)
def young():
    """What other tests left need not be collected a hundred times."""
    collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("mode", MODES)
@given(st.integers(1, 4), st.lists(actions, max_size=40), st.booleans())
def test_a_random_walk_leaks_nothing(mode, most, steps, abort):
    asyncio.run(walk(mode, most, steps, abort))
