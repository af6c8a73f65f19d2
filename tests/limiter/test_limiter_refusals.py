"""What providers say, and what the limiter does next: pace, shrink, back off, stop, refuse."""

import asyncio

import httpx
import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter, RefusalKind


@pytest.fixture
def limiter(clock):
    return Limiter(quotas={"requests": 6000}, clock=clock)


def error(message, **fields):
    return {"error": {"message": message, **fields}}


TPM = error(
    "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29500, "
    "Requested 1200. Please try again in 1.4s.",
    type="tokens",
    code="rate_limit_exceeded",
)
SPENT = error(
    "You exceeded your current quota, please check your plan and billing details.",
    type="insufficient_quota",
    code="insufficient_quota",
)
DAILY = error("Rate limit reached on tokens per day (TPD): Limit 500000, Used 499000, Requested 3000.")
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
CONCURRENT = error("Too many concurrent requests")
NO_ACCESS = error("Project does not have access to model gpt-4o", code="model_not_found")


def test_headers_of_a_success_are_learned(limiter, bucket):
    reservation = limiter.acquire("m", 900)
    info = reservation.observe(
        200,
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29100",
            "x-ratelimit-reset-tokens": "1.8s",
        },
    )
    assert (info.rpm_limit, info.tpm_remaining) == (60, 29100)
    assert reservation.refusal is None
    reservation.settle(tokens=900)
    told = {limit.unit: limit.limit for limit in bucket().limits if limit.source == "told"}
    assert told == {"requests": 60, "tokens": 30000}
    assert limiter.largest("m") == 30000
    with pytest.raises(CapacityExceededError, match="can never pass"):
        limiter.acquire("m", 30001)


async def test_rate_limit_paces_until_the_time_told(clock, turn):
    limiter = Limiter(quotas={"tokens": 30_000}, clock=clock)
    reservation = await limiter.aacquire("m", 1200)
    info = reservation.observe(429, {"retry-after-ms": "1400"}, TPM)
    assert info.refusal.kind is RefusalKind.RATE_LIMIT
    retry = asyncio.ensure_future(reservation.areadmit())
    other = asyncio.ensure_future(limiter.aacquire("m", 100))
    await turn()
    clock.advance(1.39)
    await turn()
    assert not retry.done()
    assert not other.done()
    clock.advance(0.02)
    await turn()
    assert retry.done()
    assert reservation.waited == pytest.approx(1.4, abs=0.011)
    assert reservation.wait_reason == "retry-after of 1.4 s"
    assert reservation.settle(tokens=1200) is True


def test_concurrency_shrinks_the_window_and_time_does_not_cure_it(limiter, clock):
    running = [limiter.acquire("m") for _ in range(10)]
    running.pop().observe(429, {}, CONCURRENT)
    clock.advance(10)
    assert limiter.try_acquire("m") is None  # eight may be in flight, nine are
    running.pop().settle()
    assert limiter.try_acquire("m") is None
    running.pop().settle()
    admitted = limiter.try_acquire("m")
    assert admitted is not None
    for reservation in [*running, admitted]:
        reservation.observe(200, {})
        reservation.settle()
    assert len([one for one in (limiter.try_acquire("m") for _ in range(20)) if one]) >= 8


def test_overload_backs_off_and_doubles_and_forgets(limiter, bucket):
    pauses = []
    for _ in range(3):
        reservation = limiter.record("m")
        reservation.observe(529, {}, OVERLOADED)
        pauses.append(bucket().paused_for)
    assert 1.0 <= pauses[0] <= 1.25
    assert 2.0 <= pauses[1] <= 2.5
    assert 4.0 <= pauses[2] <= 5.0
    limits = bucket().limits
    assert [limit.source for limit in limits] == ["stated"]  # nothing was learned about one's own limit
    limiter.record("m").observe(200, {})
    limiter.clock.advance(10)
    limiter.acquire("m").observe(529, {}, OVERLOADED)
    assert bucket().paused_for <= 1.25


@pytest.mark.parametrize(
    ("headers", "body", "until"),
    [({}, SPENT, 3600.0), ({"retry-after": "73192"}, DAILY, 73192.0)],
    ids=["spent, no end told", "daily, told"],
)
def test_a_spent_quota_stops_and_says_until_when(limiter, bucket, headers, body, until):
    limiter.acquire("m").observe(429, headers, body)
    assert bucket().paused_for == until
    with pytest.raises(CapacityExceededError, match=r"quota exhausted.*max_pause=300") as caught:
        limiter.acquire("m")
    assert caught.value.retry_after == pytest.approx(until)
    limiter.acquire("another model", timeout=0).settle()
    limiter.clock.advance(until)
    limiter.acquire("m", timeout=0).settle()


async def test_a_spent_quota_turns_away_those_who_wait(clock, turn):
    limiter = Limiter(quotas={"requests": 60}, max_concurrency=1, clock=clock)
    running = await limiter.aacquire("m")
    waiting = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(3)]
    await turn()
    running.observe(429, {"retry-after": "73192"}, DAILY)
    await turn()
    for task in waiting:
        assert task.done()
        with pytest.raises(CapacityExceededError) as caught:
            task.result()
        assert caught.value.retry_after == pytest.approx(73192)
        assert caught.value.bucket_id == "default/m"
    assert limiter.snapshot().buckets[0].in_flight == 0


@pytest.mark.parametrize(("status", "body"), [(429, SPENT), (403, NO_ACCESS)])
def test_what_no_wait_cures_is_not_admitted_again(limiter, status, body):
    reservation = limiter.acquire("m")
    info = reservation.observe(status, {}, body)
    assert info.refusal.retryable is False
    with pytest.raises(CapacityExceededError, match="for good"):
        reservation.readmit()
    reservation.lapse()


def test_not_entitled_stops_nobody_else(limiter, bucket):
    limiter.acquire("m").observe(403, {}, NO_ACCESS)
    assert bucket().paused_for == 0
    limiter.acquire("m", timeout=0).settle()


@pytest.mark.parametrize(
    "told",
    [
        "1e400",
        "-5",
        "nan",
        "inf",
        "-inf",
        "",
        "soon",
        "0x10",
        "9" * 400,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "\x00",
        "1_0",
    ],
)
@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests"])
def test_a_hostile_time_neither_raises_nor_stops_the_world(limiter, bucket, clock, header, told):
    reservation = limiter.acquire("m")
    reservation.observe(429, {header: told}, error("Rate limit reached"))
    assert 0 <= bucket().paused_for < 86400 * 366
    clock.advance(61)
    if bucket().paused_for == 0:
        limiter.acquire("m", timeout=60).settle()
    else:  # then it says until when
        with pytest.raises(CapacityExceededError) as caught:
            limiter.acquire("m")
        assert caught.value.retry_after > 300


@pytest.mark.parametrize(
    "body", [None, b"\xff\xfe", "<html>", [], [[[[]]]], {"error": None}, {"error": "x" * 10_000}, 5]
)
@pytest.mark.parametrize("headers", [None, {}, [("a", "b")], {"x-ratelimit-limit-requests": "nan"}, 7])
def test_any_response_is_harmless(limiter, headers, body):
    for status in (0, 200, 429, 503, 999):
        limiter.record("m").observe(status, headers, body)
    assert limiter.snapshot().buckets[0].in_flight >= 0
    assert all(limit.remaining == limit.remaining for limit in limiter.snapshot().buckets[0].limits)


async def test_a_retry_keeps_its_place_by_age(clock, turn):
    limiter = Limiter(quotas={"unit": "requests", "limit": 60, "burst": 1}, clock=clock)
    first = await limiter.aacquire("m")
    clock.advance(0.1)
    younger = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(3)]
    await turn()
    first.observe(429, {"retry-after": "1"}, error("Rate limit reached"))
    retry = asyncio.ensure_future(first.areadmit())
    await turn()
    while not retry.done():
        assert not any(task.done() for task in younger)
        clock.advance(0.5)
        await turn()
        assert clock.now() < 10
    for task in younger:
        task.cancel()
    await turn()


def test_a_retry_in_a_thread_waits_as_well(limiter, bucket, clock, in_thread, until):
    reservation = limiter.acquire("m")
    reservation.observe(529, {"retry-after": "10"}, OVERLOADED)
    retry = in_thread(reservation.readmit)
    until(lambda: bucket().waiting == 1)
    clock.advance(12.5)
    retry.join(10)
    assert retry.error is None
    assert reservation.waited == pytest.approx(12.5)
    assert reservation.wait_reason == "provider overloaded"
    assert reservation.settle() is True


def test_a_retry_that_was_not_admitted_may_be_tried_again(limiter, clock):
    reservation = limiter.acquire("m")
    reservation.observe(429, {"retry-after": "400"}, error("Rate limit reached"))
    for _ in range(2):
        with pytest.raises(CapacityExceededError) as caught:
            reservation.readmit()
        assert caught.value.retry_after == pytest.approx(400)
    clock.advance(401)
    reservation.readmit()
    assert reservation.settle() is True


def test_an_attempt_that_never_left_is_given_back(limiter, bucket):
    reservation = limiter.acquire("m")
    assert (
        reservation.begin_send(httpx.URL("https://api.openai.com/v1/chat/completions"), b"Bearer k") is False
    )
    left = bucket().limits[0].remaining
    reservation.never_sent()
    assert bucket().limits[0].remaining == left + 1
    assert bucket().in_flight == 0
    assert (
        reservation.begin_send(httpx.URL("https://api.openai.com/v1/chat/completions"), b"Bearer k") is True
    )
    reservation.readmit()
    assert bucket().in_flight == 1
    assert reservation.sends == 2
    reservation.settle()
    assert bucket().in_flight == 0


def test_a_told_concurrency_bounds_what_is_in_flight(limiter):
    with limiter.acquire("m") as first:
        first.observe(200, {"maximum-concurrent-requests": "2", "current-concurrent-requests": "1"})
        assert limiter.snapshot().buckets[0].most_in_flight == 2
        second = limiter.try_acquire("m")
        assert second is not None
        assert limiter.try_acquire("m") is None
        second.cancel()


def test_a_new_limit_with_every_reply_fills_no_memory(limiter):
    with limiter.acquire("m") as reservation:
        for number in range(100):
            reservation.observe(
                200, {f"x-ratelimit-limit-thing{number}": "9", f"x-ratelimit-remaining-thing{number}": "8"}
            )
    told = [limit for limit in limiter.snapshot().buckets[0].limits if limit.source == "told"]
    assert len(told) == 32
