"""Every mode limits: by what is told, by what is refused; in fair and prompt order."""

import asyncio
import random

import pytest

from adaptive_rate_limiter import CapacityExceededError, MemoryBackend
from adaptive_rate_limiter.scheduler import StateConfig
from adaptive_rate_limiter.testing import FixedWindow, SlidingWindow, TokenBucket

from .conftest import Api, request

ONE_A_SECOND = {"unit": "requests", "limit": 60, "burst": 1}


def told(limit=60, remaining=59, **more):
    return {
        "headers": {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(remaining),
            "x-ratelimit-reset-requests": f"{(limit - remaining) * 60 / limit:.3f}s",
        },
        **more,
    }


class RefusedError(Exception):
    def __init__(self, retry_after=None, status=429, body=None, **headers):
        super().__init__("refused")
        self.status_code = status
        self.headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        self.body = body


async def test_requests_are_paced_by_stated_limits(make, mode, later):
    api = Api()
    async with make(mode, quotas=ONE_A_SECOND) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call(n))) for n in range(4)]
        for seconds in range(4):
            await later(0 if not seconds else 1)
            assert api.started == list(range(seconds + 1))
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_requests_are_paced_by_told_limits(make, mode, later):
    api = Api(told(remaining=1))
    async with make(mode, rate_limit_buffer_ratio=1.0) as scheduler:
        await scheduler.submit_request(request(), api.call())
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call(n))) for n in range(9)]
        await later(0.5)
        assert len(api.started) <= 1 + 1
        await later(10)
        assert len(api.started) <= 1 + 1 + 11
        await later(60)
        assert sorted(await asyncio.gather(*tasks)) == list(range(9))


@pytest.mark.parametrize("seconds", [0.123, 2, 7.5])
async def test_retry_after_is_obeyed_to_the_millisecond(make, mode, clock, later, seconds):
    sent = []

    async def call():
        sent.append(clock.now())
        if len(sent) == 1:
            raise RefusedError(seconds)
        return "answer"

    async with make(mode) as scheduler:
        first = asyncio.create_task(scheduler.submit_request(request(), call))
        await later(0)
        second = asyncio.create_task(scheduler.submit_request(request(), call))  # its bucket pauses, too
        await later(seconds - 0.001)
        assert len(sent) == 1
        await later(0.002)
        assert sent[1] == pytest.approx(seconds, abs=1e-6)
        await later(5)
        assert await first == await second == "answer"


@pytest.mark.parametrize("ratio", [0.9, 0.5, 1.0])
async def test_only_a_part_of_a_limit_is_used(make, mode, later, ratio):
    api = Api(told(limit=100, remaining=100))
    async with make(mode, rate_limit_buffer_ratio=ratio) as scheduler:
        await scheduler.submit_request(request(), api.call())
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(120)]
        await later(0)
        expected = 100 * ratio
        assert expected - 5 <= len(api.started) - 1 <= expected
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow, SlidingWindow])
@pytest.mark.parametrize("ratio", [0.9, 0.5])
async def test_minute_after_minute_only_a_part_of_the_limit_is_used(make, clock, later, kind, ratio):
    """Of a token bucket the depth was left, and all that flows in was used."""
    limit, sent = kind(600, 60.0), []

    async def call():
        now = clock.now()
        limit.charge(1, now)
        sent.append(now)
        reply = told(600, int(limit.remaining(now)))
        reply["headers"]["x-ratelimit-reset-requests"] = f"{limit.reset_after(now):.3f}s"
        return reply

    async with make(rate_limit_buffer_ratio=ratio, max_queue_size=5000) as scheduler:
        await scheduler.submit_request(request(), call)
        tasks = [asyncio.create_task(scheduler.submit_request(request(), call)) for _ in range(3000)]
        await later(240)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for minute in (1, 2, 3):
        used = sum(60 * minute <= at - sent[0] < 60 * (minute + 1) for at in sent)
        assert used == pytest.approx(600 * ratio, rel=0.02)


async def test_a_bucket_that_is_less_deep_than_its_limit_is_used(make, later):
    """Of 1200 a minute, no more than 60 are ever there at once: a tenth of 1200 must not be kept of them."""
    answers = [told(limit=1200, remaining=59 - n) for n in range(10)]
    api = Api(*answers)
    async with make() as scheduler:
        for _ in range(10):
            await scheduler.submit_request(request(), api.call())
        assert len(api.started) == 10


async def test_a_request_above_the_limit_fails_at_once_and_blocks_nobody(make, mode, later):
    api = Api()
    async with make(mode, quotas={"tokens": 1000}) as scheduler:
        await scheduler.submit_request(request(estimated_tokens=900), api.call("first"))
        large = asyncio.create_task(
            scheduler.submit_request(request(estimated_tokens=2000), api.call("large"))
        )
        small = asyncio.create_task(scheduler.submit_request(request(), api.call("small")))
        with pytest.raises(CapacityExceededError, match="2,000 tokens can never pass") as caught:
            await large
        assert caught.value.retry_after is None
        assert await small == "small"


async def test_a_request_that_turns_out_too_large_while_it_waits_blocks_nobody(make, later):
    api = Api(told(remaining=0, status=200)).hold()
    async with make(max_concurrent_executions=1) as scheduler:
        first = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await later(0)
        large = asyncio.create_task(
            scheduler.submit_request(request(estimated_tokens=10**6), api.call("large"))
        )
        small = asyncio.create_task(scheduler.submit_request(request(), api.call("small")))
        await later(0)
        api.answers[0]["headers"].update(
            {"x-ratelimit-limit-tokens": "5000", "x-ratelimit-remaining-tokens": "4000"}
        )
        api.gate.set()
        await later(70)
        await first
        with pytest.raises(CapacityExceededError, match="can never pass"):
            await large
        assert await small == "small"


async def test_a_full_bucket_does_not_hold_up_another(make, turn):
    api = Api()
    quotas = {"slow": ONE_A_SECOND, "fast": {"requests": 6000}}
    async with make(quotas=quotas, max_concurrent_executions=2) as scheduler:
        slow = [
            asyncio.create_task(scheduler.submit_request(request(model_id="slow"), api.call()))
            for _ in range(10)
        ]
        await turn()
        fast = [scheduler.submit_request(request(model_id="fast"), api.call(n)) for n in range(50)]
        assert await asyncio.gather(*fast) == list(range(50))
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_priority_goes_first(make, mode, later):
    api = Api()
    priorities = [0, 0, 0, 9, 5, -1, 9]
    async with make(mode, quotas=ONE_A_SECOND) as scheduler:
        await scheduler.submit_request(request(), api.call("first"))
        tasks = [
            asyncio.create_task(scheduler.submit_request(request(priority=p), api.call((p, n))))
            for n, p in enumerate(priorities)
        ]
        await later(10)
        await asyncio.gather(*tasks)
    assert [p for p, _ in api.started[1:]] == sorted(priorities, reverse=True)
    assert [n for p, n in api.started[1:] if p == 0] == [0, 1, 2]


async def run_tenants(make, later, weights, seconds):
    api = Api()
    async with make("account", quotas=ONE_A_SECOND, weights=weights) as scheduler:
        await scheduler.submit_request(request(), api.call("first"))
        tasks = [
            asyncio.create_task(
                scheduler.submit_request(request(client_id=who, model_id=model), api.call(who))
            )
            for who, model in [("greedy", "a")] * 80 + [("modest", "b")] * 40
        ]
        await later(seconds)
        served = api.started[1:]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {who: served.count(who) for who in ("greedy", "modest")}


async def test_tenants_of_an_account_share_one_budget_evenly(make, later):
    served = await run_tenants(make, later, None, 40)
    assert sum(served.values()) == 40
    assert abs(served["greedy"] - served["modest"]) <= 1


async def test_tenants_of_an_account_share_by_weight(make, later):
    served = await run_tenants(make, later, {"modest": 3}, 40)
    assert served["modest"] == pytest.approx(30, abs=1)


async def test_models_have_their_own_buckets_but_in_account_mode(make, mode):
    async with make(mode) as scheduler:
        for model in ("a", "b"):
            await scheduler.submit_request(request(model_id=model), Api().call())
        await scheduler.submit_request(request(requires_model=False), Api().call())
        found = {bucket.bucket_id for bucket in scheduler.limiter.snapshot().buckets}
    expected = (
        {"default/account"} if mode == "account" else {"default/a", "default/b", "default/default_text"}
    )
    assert found == expected


@pytest.mark.parametrize(("namespace", "shared"), [("default", True), ("other", False)])
async def test_schedulers_share_a_budget_by_backend_and_namespace(make, turn, namespace, shared):
    backend, api = MemoryBackend(), Api()
    options = {"backend": backend, "quotas": ONE_A_SECOND}
    async with make(**options) as one, make(**options, state_config=StateConfig(namespace=namespace)) as two:
        await one.submit_request(request(), api.call())
        task = asyncio.create_task(two.submit_request(request(), api.call()))
        await turn()
        assert task.done() is not shared
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Where nothing is told


def release(api):
    """Let those go that have started, and hold the next."""
    gate, api.gate = api.gate, asyncio.Event()
    gate.set()


async def test_calls_of_which_nothing_is_seen_go_as_they_come(make, mode, turn, later):
    api = Api().hold()
    async with make(mode, max_concurrent_executions=50) as scheduler:
        first = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await turn()
        herd = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(60)]
        await turn()
        assert len(api.started) == 1  # its reply may tell the limits
        release(api)
        await first
        await turn()
        assert len(api.started) == 51
        api.gate.set()
        await asyncio.gather(*herd)


@pytest.mark.parametrize(("mode", "at_once"), [("basic", 60), ("intelligent", 8), ("account", 8)])
async def test_replies_that_tell_nothing_are_followed_with_care(make, turn, mode, at_once):
    api = Api({"headers": {"date": "today"}}).hold()
    async with make(mode) as scheduler:
        first = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await turn()
        herd = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(60)]
        release(api)
        await first
        await turn()
        assert 1 <= len(api.started) - 1 <= at_once
        if mode == "basic":
            assert len(api.started) == 61
        for task in herd:
            task.cancel()
        await asyncio.gather(*herd, return_exceptions=True)


async def test_after_a_burst_was_refused_the_rest_follows_step_by_step(make, clock, later):
    """Thirty at once, then two a second, of which no header tells."""
    left, at = 30.0, clock.now()
    refused = 0

    async def call():
        nonlocal left, at, refused
        left, at = min(30.0, left + 2 * (clock.now() - at)), clock.now()
        if left < 1:
            refused += 1
            raise RefusedError
        left -= 1

    async with make("basic", max_retries=8) as scheduler:
        await scheduler.submit_request(request(), call)
        tasks = [asyncio.create_task(scheduler.submit_request(request(), call)) for _ in range(60)]
        await later(90)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results == [None] * 60
    assert refused < 60


async def test_order_is_kept_under_random_sizes(make, later):
    """Nobody is overtaken without end, whatever the sizes."""
    rng, api = random.Random(1), Api()
    async with make(quotas={"tokens": 6000}) as scheduler:
        await scheduler.submit_request(request(estimated_tokens=6000), api.call())
        tasks = [
            asyncio.create_task(
                scheduler.submit_request(request(estimated_tokens=rng.choice((10, 100, 3000))), api.call(n))
            )
            for n in range(40)
        ]
        await later(3600)
        assert sorted(await asyncio.gather(*tasks)) == list(range(40))
    assert all(api.started[1:].index(n) <= n + 40 for n in range(40))
