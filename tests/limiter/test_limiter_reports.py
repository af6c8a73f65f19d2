"""Every wait can name its limit, what is missing, who is ahead and when it goes."""

import asyncio
import math

import pytest

from adaptive_rate_limiter import Forecast, Limiter, Quota
from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.report import duration, explain_bucket

HEAD, SOON, LATER = "default/m: ", "goes in about 10 s", "goes in about 20 s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (0.84, "0.8 s"), (59.6, "60 s"), (100, "2 min"), (1940, "32 min"), (7500, "2 h 5 min")],
)
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_a_new_limiter_knows_nothing(clock):
    limiter = Limiter(clock=clock)
    assert limiter.snapshot().buckets == ()
    assert limiter.snapshot().waiting == 0
    assert limiter.explain() == []
    assert limiter.forecast(requests=100) == Forecast(None, None)
    assert str(limiter.forecast(requests=100)) == "no limit is known yet"
    assert limiter.largest("m") == math.inf


def test_a_forecast_leaves_no_bucket_behind(clock):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    assert limiter.forecast(requests=120, model="m").seconds == pytest.approx(60)
    assert limiter.snapshot().buckets == ()


def test_snapshot_of_a_busy_bucket(clock):
    limiter = Limiter(
        quotas=[Quota("requests", 10, 60.0, "fixed_window"), Quota("tokens", 1000)], clock=clock
    )
    limiter.acquire("m", 300).settle(tokens=200)
    running = limiter.acquire("m", 100)
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.bucket_id, bucket.waiting, bucket.in_flight, bucket.admitted, bucket.refused) == (
        "default/m", 0, 1, 2, 0,
    )  # fmt: skip
    assert (bucket.paused_for, bucket.eta) == (0, 0)
    seen = [
        (limit.unit, limit.limit, limit.window, limit.remaining, limit.algorithm) for limit in bucket.limits
    ]
    assert seen == [("requests", 10, 60, 8, "fixed_window"), ("tokens", 1000, 60, 700, "token_bucket")]

    running.observe(429, {"retry-after": "20"}, {"error": {"message": "slow down"}})
    (bucket,) = limiter.snapshot().buckets
    assert (bucket.in_flight, bucket.refused, bucket.paused_for) == (0, 1, 20)


async def test_a_line_behind_tokens_is_explained(clock, turn):
    limiter = Limiter(quotas={"requests": 600, "tokens": 6000}, clock=clock)
    (await limiter.aacquire("m", 6000)).settle(tokens=6000)
    tasks = [asyncio.ensure_future(limiter.aacquire("m", 1000, tenant=tenant)) for tenant in ("", "acme")]
    await turn()
    assert (
        limiter.explain()
        == limiter.explain("m")
        == [
            HEAD + "call 1 of 2 waits for tokens (1,000 missing of 6,000 per 60 s), next in line, " + SOON,
            HEAD
            + "call 2 of 2 of acme waits for tokens (2,000 missing of 6,000 per 60 s), 1 ahead of it, "
            + LATER,
        ]
    )
    assert len(limiter.explain(most=1)) == 1
    assert limiter.explain("another") == []
    assert limiter.snapshot().waiting == 2
    assert limiter.snapshot().buckets[0].eta == pytest.approx(20)
    assert limiter.forecast(tokens=1000, model="m") == Forecast(pytest.approx(30), "tokens")
    for _ in tasks:
        clock.advance(10)
        await turn()
    assert [(task.result().waited, task.result().wait_reason) for task in tasks] == [
        (10, "tokens"),
        (20, "tokens"),
    ]
    for task in tasks:
        task.result().settle(tokens=1000)
    account = limiter.snapshot().buckets[0].account
    assert account.waited == {"tokens": pytest.approx(20)}
    assert (account.binding, account.share) == ("tokens", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("work", "seconds", "binds"),
    [
        ({"input_tokens": 6000}, 60, "input_tokens"),
        ({"input_tokens": 3000, "output_tokens": 900}, 120, "output_tokens"),
        ({"requests": 10, "output_tokens": 300}, 0, None),
        ({"tokens": 6000}, 60, "input_tokens"),  # as `acquire(tokens=...)` has it
        ({"tokens": 6000, "input_tokens": 1000, "output_tokens": 600}, 60, "output_tokens"),
    ],
)
def test_a_forecast_left_limits_on_input_and_output_out(clock, work, seconds, binds):
    quotas = {"requests": 1000, "input_tokens": 3000, "output_tokens": 300}
    assert Limiter(quotas=quotas, clock=clock).forecast(**work) == Forecast(pytest.approx(seconds), binds)


async def test_a_line_behind_a_pause_is_explained(clock, turn):
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    (await limiter.aacquire("m")).observe(529, {"retry-after": "40"})
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    (sentence,) = limiter.explain()
    assert sentence.startswith("default/m: call 1 of 1 waits out a pause (provider overloaded), next in line")
    assert limiter.forecast(requests=1).binds == "provider overloaded"
    task.cancel()
    await turn()


async def test_a_line_behind_concurrency_is_explained(clock, turn):
    limiter = Limiter(quotas={"requests": 600}, max_concurrency=1, clock=clock)
    running = await limiter.aacquire("m")
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    assert limiter.explain() == [
        "default/m: call 1 of 1 waits for concurrency, next in line, goes as soon as that allows"
    ]
    running.settle()
    await turn()
    assert task.result().wait_reason == "concurrency"
    task.result().settle()


async def test_a_limit_that_only_refusals_tell_is_reported_as_inferred(clock, turn):
    """60 a minute, never told: 429 without a word, until the limiter knows."""
    limiter = Limiter(clock=clock)
    level, at = 10.0, 0.0

    async def call():
        nonlocal level, at
        async with await limiter.aacquire("m") as reservation:
            while True:
                level, at = min(10.0, level + (clock.now() - at)), clock.now()
                if level >= 1.0:
                    level -= 1.0
                    reservation.observe(200, {})
                    return
                reservation.observe(429, {}, {"error": {"message": "Rate limit reached"}})
                await reservation.areadmit()

    tasks = [asyncio.ensure_future(call()) for _ in range(60)]
    await turn()
    said = []
    while not all(task.done() for task in tasks):
        said += limiter.explain(most=1)
        clock.advance(0.05)
        await asyncio.sleep(0)
        assert clock.now() < 600
    limits = limiter.snapshot().buckets[0].limits
    assert [(limit.unit, limit.source) for limit in limits] == [("requests", "inferred")]
    assert limiter.forecast(requests=60).binds == "requests"
    assert limiter.forecast(requests=60).seconds > 0
    assert any("waits for undiscovered limit, next in line, goes in about" in sentence for sentence in said)


def test_a_call_whose_turn_has_come_is_about_to_go():
    bucket = Bucket("b", [Quota("requests", 1, 1.0)], 0.0)
    for _ in range(2):
        bucket.submit(Call({"requests": 1.0}, since=0.0), 0.0)
    assert explain_bucket(bucket, 1.0, 5) == [
        "b: call 1 of 1 is about to go, next in line, goes as soon as that allows"
    ]


def test_a_forecast_is_the_slowest_of_all_buckets(clock):
    limiter = Limiter(
        quotas={"fast": {"requests": 600}, "slow": {"requests": 6}, "other": {"tokens": 5}}, clock=clock
    )
    for model in ("fast", "slow", "other"):
        limiter.acquire(model).settle()
    assert limiter.forecast(requests=1205) == Forecast(pytest.approx(12000), "requests")
    assert limiter.forecast(requests=1205, model="fast").seconds == pytest.approx(60.6)
    assert limiter.forecast(requests=1, model="other") == Forecast(None, None)
