"""What a scheduler leaves behind: nothing pending, nobody waiting, nothing in flight."""

import asyncio
import logging
import subprocess
import sys
import threading

import httpx
import prometheus_client
import pytest
from tests.garbage import collect

from adaptive_rate_limiter import RateLimiterError, create_scheduler
from adaptive_rate_limiter.http import observe
from adaptive_rate_limiter.scheduler import StateConfig

from .conftest import Api, Client, request
from .test_scheduler_limits import ONE_A_SECOND
from .test_scheduler_provider import Told


async def test_before_the_start_and_after_the_end(make, mode):
    scheduler = make(mode)
    for _ in range(2):
        assert not scheduler.is_running()
        with pytest.raises(RateLimiterError, match="not running"):
            await scheduler.submit_request(request(), Api().call())
        async with scheduler:
            assert scheduler.is_running()
            assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"


async def test_start_and_stop_may_be_called_again(make, mode):
    scheduler = make(mode)
    for _ in range(2):
        await scheduler.start()
        await scheduler.start()
        assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"
        await scheduler.stop()
        await scheduler.stop()


async def test_the_end_waits_for_what_is_under_way_and_tells_who_waits(make, mode, turn, settled):
    api = Api().hold()
    async with make(mode, quotas=ONE_A_SECOND) as scheduler:
        running = asyncio.create_task(scheduler.submit_request(request(), api.call("running")))
        waiting = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(3)]
        await turn()
        asyncio.get_running_loop().call_later(0.01, api.gate.set)
    assert await running == "running"
    for task in waiting:
        with pytest.raises(RateLimiterError, match="stopped before the request was sent"):
            await task
    assert api.started == ["running"]
    assert settled(scheduler)


async def test_an_error_in_the_block_ends_what_is_under_way(make, mode, turn, settled):
    scheduler, tasks = make(mode), []

    async def block():
        async with scheduler:
            tasks.append(asyncio.create_task(scheduler.submit_request(request(), Api().hold().call())))
            await turn()
            raise KeyError

    with pytest.raises(KeyError):
        await block()
    with pytest.raises(RateLimiterError, match="while the request was under way"):
        await tasks[0]
    assert settled(scheduler)


async def test_the_end_ends_who_waits_for_another_attempt(make, turn, settled):
    scheduler = make("basic")
    await scheduler.start()
    error = ConnectionError()
    task = asyncio.create_task(scheduler.submit_request(request(), Api(error).call()))
    await turn()
    assert not task.done()  # it waits a second
    await scheduler.stop()
    with pytest.raises(RateLimiterError, match="stopped") as caught:
        await task
    assert caught.value.__cause__ is error
    assert settled(scheduler)


async def test_a_request_may_stop_its_own_scheduler(make, mode):
    async with make(mode) as scheduler:

        async def call():
            await scheduler.stop()
            return "answer"

        assert await scheduler.submit_request(request(), call) == "answer"


async def test_blocks_may_overlap(make, mode, turn):
    """Each of several tasks enters the same scheduler; the last one out stops it."""
    scheduler, api = make(mode), Api().hold()

    async def make_request(name):
        async with scheduler:
            return await scheduler.submit_request(request(), api.call(name))

    tasks = [asyncio.create_task(make_request(name)) for name in "abc"]
    await turn()
    api.gate.set()
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert not scheduler.is_running()


async def test_cancelled_while_it_stops(make, turn):
    scheduler, api = make(), Api().hold()
    await scheduler.start()
    running = asyncio.create_task(scheduler.submit_request(request(), api.call("running")))
    await turn()
    stopping = asyncio.create_task(scheduler.stop())
    await turn()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    api.gate.set()
    assert await running == "running"
    assert len(asyncio.all_tasks()) == 1


async def test_a_stream_that_is_open_at_the_end_is_settled_and_can_be_read_on(make, mode, settled):
    async def stream():
        for number in range(3):
            yield number

    async def call():
        return stream()

    async with make(mode) as scheduler:
        opened = await scheduler.submit_request(request(), call)
        assert await anext(opened) == 0
        assert not settled(scheduler)
    assert settled(scheduler)
    assert [number async for number in opened] == [1, 2]


def life(scheduler, times=3):
    async def main():
        async with scheduler:
            return await asyncio.gather(
                *(scheduler.submit_request(request(n), Api(n).call()) for n in range(times))
            )

    return main()


def test_a_second_event_loop(mode):
    scheduler = create_scheduler(Client(), mode)
    for _ in range(3):
        assert asyncio.run(life(scheduler)) == [0, 1, 2]


def test_a_loop_that_ended_without_a_stop(mode, caplog):
    scheduler = create_scheduler(Client(), mode, provider=Told(limits="never"))

    async def forget():
        await scheduler.start()
        await scheduler.submit_request(request(), Api().call())

    with caplog.at_level(logging.DEBUG, "asyncio"):
        asyncio.run(forget())
        assert not scheduler.is_running()
        assert asyncio.run(life(scheduler)) == [0, 1, 2]
        collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_a_block_that_its_loop_never_left(mode):
    """It counted as one that is still to be left, and the scheduler did not stop any more."""
    scheduler = create_scheduler(Client(), mode)
    lost = asyncio.new_event_loop()
    lost.run_until_complete(scheduler.__aenter__())
    for task in asyncio.all_tasks(lost):
        task.cancel()
    lost.run_until_complete(asyncio.sleep(0))
    lost.close()

    async def main():
        async with scheduler:
            assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"
        assert not scheduler.is_running()

    asyncio.run(main())


def test_two_event_loops_at_once_are_told_apart():
    scheduler = create_scheduler(Client())
    inside, leave = threading.Event(), threading.Event()

    async def hold():
        async with scheduler:
            inside.set()
            await asyncio.to_thread(leave.wait)

    async def intrude():
        for attempt in (scheduler.start, scheduler.stop):
            with pytest.raises(RateLimiterError, match="another event loop"):
                await attempt()
        with pytest.raises(RateLimiterError, match="not running in this event loop"):
            await scheduler.submit_request(request(), Api().call())

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    inside.wait()
    asyncio.run(intrude())
    leave.set()
    thread.join()
    assert not scheduler.is_running()


async def test_nothing_is_pending_after_the_end(make, mode, turn):
    api = Api().hold()
    async with make(mode, provider=Told(limits="never", bucket="never"), quotas=ONE_A_SECOND) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(4)]
        await turn()
        api.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, RateLimiterError) for result in results)
    await turn()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_httpx_is_observed_while_it_runs_and_untouched_after(client):
    before = observe._observers  # an AdaptiveLimiter observes for as long as the process runs
    scheduler = create_scheduler(client)
    async with scheduler:
        assert observe._observers == before + 1
        assert httpx.AsyncClient in observe._wrapped
    assert observe._observers == before
    assert (httpx.AsyncClient in observe._wrapped) is (before > 0)
    async with create_scheduler(client, observe_http=False):
        assert observe._observers == before


async def test_metrics_say_what_is_under_way(make, mode, turn):
    api = Api().hold()
    async with make(mode, quotas=ONE_A_SECOND) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(3)]
        await turn()
        metrics = scheduler.get_metrics()
        assert (metrics["scheduler_mode"], metrics["running"]) == (mode, True)
        assert (metrics["active_requests"], metrics["waiting_requests"], metrics["open_streams"]) == (1, 2, 0)
        assert [bucket.waiting for bucket in metrics["buckets"]] == [2]
        api.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scheduler.get_metrics()["active_requests"] == 0


async def test_a_scheduler_that_is_started_is_in_the_registry_of_the_process(make, mode):
    state = StateConfig(namespace=f"seen by prometheus, {mode}")
    async with make(mode, state_config=state) as scheduler:
        await scheduler.submit_request(request(), Api().call())
        labels = {
            "bucket": f"{state.namespace}/{'account' if mode == 'account' else 'm'}",
            "model": "account" if mode == "account" else "m",
        }
        sample = prometheus_client.REGISTRY.get_sample_value
        assert sample("adaptive_rate_limiter_calls_admitted_total", labels) == 1


ALONE = """
import asyncio, sys

EXTRAS = {"prometheus_client", "httpx", "httpx2", "redis", "openai", "anthropic", "rich", "tqdm", "yaml", "matplotlib", "uvicorn"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in EXTRAS else found(name, package)
from adaptive_rate_limiter import TEXT, RequestMetadata, create_scheduler

class Client:
    base_url, timeout = "https://api.example.com", 30.0
    def get_headers(self): return {}

async def call():
    return "answer"

async def main(mode):
    async with create_scheduler(Client(), mode) as scheduler:
        print(await scheduler.submit_request(RequestMetadata("req-1", "m", TEXT), call))

for mode in ("basic", "intelligent", "account"):
    asyncio.run(main(mode))
print(EXTRAS & set(sys.modules))
"""


def test_a_scheduler_needs_none_of_the_extras():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE], check=True, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "answer\nanswer\nanswer\nset()\n"
