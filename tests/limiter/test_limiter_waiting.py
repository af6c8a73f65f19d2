"""Those who wait are woken by a timer, in order; a long line is progress, and a wait in vain is refused at once."""

import asyncio
import logging
import pickle
import time

import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter, Quota
from adaptive_rate_limiter.testing import FakeClock


async def run_down(clock, turn, done):
    """Move the clock from timer to timer until `done`; the instants at which something was due."""
    instants = []
    await turn()
    while not done():
        when = clock.next_due()
        assert when is not None, "somebody waits, and no timer is set"
        instants.append(when)
        clock.advance(max(0.0, when - clock.now()))
        await turn()
    return instants


async def test_a_wait_of_an_hour_takes_a_handful_of_timers(clock, turn):
    limiter = Limiter(quotas=Quota("requests", 1, 3600.0), max_pause=7200, clock=clock)
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(limiter.aacquire("m"))
    instants = await run_down(clock, turn, task.done)
    assert clock.now() == pytest.approx(3600)
    assert len(instants) <= 2
    assert clock.set <= 3
    assert task.result().waited == pytest.approx(3600)
    assert task.result().wait_reason == "requests"


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
async def test_timers_are_as_few_as_admissions(clock, turn, algorithm):
    """One timer an admission at the most, and one pending at any time, however many wait."""
    limiter = Limiter(quotas=Quota("requests", 10, 60.0, algorithm), clock=clock)
    pending = []

    async def call():
        (await limiter.aacquire("m")).settle()
        pending.append(clock.pending)

    tasks = [asyncio.ensure_future(call()) for _ in range(100)]
    await run_down(clock, turn, lambda: all(task.done() for task in tasks))
    assert clock.set <= 110
    assert max(pending) <= 1


async def test_a_call_is_taken_to_be_sent_when_the_task_that_waited_for_it_goes_on(clock, turn):
    limiter = Limiter(quotas=Quota("requests", 1, 10.0, "sliding_window"), clock=clock)
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    clock.advance(clock.next_due() - clock.now())
    admitted_at = clock.now()
    clock.advance(3.0)  # its loop was busy
    await turn()
    hold = task.result().call.hold
    assert (hold.at, hold.sent_at) == (admitted_at, admitted_at + 3.0)


async def test_the_order_of_waking_is_the_order_of_arrival(limiter, clock, turn):
    order = []

    async def call(index):
        (await limiter.aacquire("m")).settle()
        order.append(index)

    tasks = [asyncio.ensure_future(call(index)) for index in range(50)]
    await run_down(clock, turn, lambda: all(task.done() for task in tasks))
    assert order == list(range(50))
    assert clock.now() == pytest.approx(49)


async def test_nobody_overtakes_a_line_that_could_go_now(limiter, clock, turn):
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    assert limiter.try_acquire("m") is None
    clock.advance(1.0)
    assert limiter.try_acquire("m") is None
    await turn()
    task.result().settle()


async def test_the_timer_is_taken_back_when_nobody_waits_any_more(limiter, clock, turn):
    (await limiter.aacquire("m")).settle()
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    assert clock.pending == 1
    task.cancel()
    await turn()
    assert clock.pending == 0


async def test_a_batch_of_two_thousand_under_sixty_a_minute_proceeds(clock, turn, caplog):
    """Its length is no reason to refuse it; it says how long it takes when asked, and by itself in the log."""
    caplog.set_level(logging.INFO, logger="adaptive_rate_limiter")
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    finished = 0

    async def call():
        nonlocal finished
        (await limiter.aacquire("m")).settle()
        finished += 1

    tasks = [asyncio.ensure_future(call()) for _ in range(2000)]
    await turn()
    assert finished == 60

    assert str(limiter.forecast()) == "about 32 min, bound by requests"
    assert limiter.forecast().seconds == pytest.approx(1940)
    assert limiter.snapshot().buckets[0].eta == pytest.approx(1940)
    first, *_ = limiter.explain("m")
    assert first == (
        "default/m: call 1 of 1,940 waits for requests (1 missing of 60 per 60 s), next in line, "
        "goes in about 1.0 s"
    )
    last = limiter.explain("m", most=2000)[-1]
    assert last.startswith(
        "default/m: call 1,940 of 1,940 waits for requests (1,940 missing of 60 per 60 s), "
    )
    assert last.endswith("1,939 ahead of it, goes in about 32 min")

    await run_down(clock, turn, lambda: finished == 2000)
    assert clock.now() == pytest.approx(1940)
    await asyncio.gather(*tasks)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:3] == [
        "default/m: 100 calls wait for requests; the last goes in about 2 min",
        "default/m: 1,000 calls wait for requests; the last goes in about 17 min",
        "default/m: 1,880 calls wait for requests; the last goes in about 31 min",
    ]
    assert lines[-1] == "default/m: 20 calls wait for requests; the last goes in about 20 s"
    assert len(lines) == 34  # one a minute, and two while it grew
    assert all(record.levelno == logging.INFO for record in caplog.records)


async def test_a_pause_is_told_at_once(clock, turn, caplog):
    caplog.set_level(logging.INFO, logger="adaptive_rate_limiter")
    limiter = Limiter(clock=clock)
    (await limiter.aacquire("m")).observe(429, {"retry-after": "200"})
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    assert caplog.messages == [
        "default/m: 1 call waits for retry-after of 200 s; the last goes in about 3 min"
    ]
    task.cancel()
    await turn()


REFUSED = {
    "larger than the limit": ({"tokens": 30_001}, {}, "can never pass", None),
    "beyond its timeout": ({"tokens": 30_000, "timeout": 5}, {}, "beyond its deadline in 5 s", 60.0),
    "timeout of zero": ({"tokens": 30_000, "timeout": 0}, {}, "beyond its deadline", 60.0),
    "beyond max_wait": ({"tokens": 30_000}, {"max_wait": 10}, "beyond its deadline in 10 s", 60.0),
    "the shorter of both": ({"tokens": 30_000, "timeout": 40}, {"max_wait": 10}, "in 10 s", 60.0),
    "beyond max_pause": ({"tokens": 30_000}, {"max_pause": 30}, "beyond max_pause=30", 60.0),
}


@pytest.mark.parametrize(("call", "arguments", "why", "retry_after"), REFUSED.values(), ids=REFUSED)
def test_what_waits_in_vain_is_refused_at_once(clock, call, arguments, why, retry_after):
    limiter = Limiter(quotas={"tokens": 30_000}, clock=clock, **arguments)
    limiter.acquire("m", 30_000, timeout=0).settle()
    with pytest.raises(CapacityExceededError, match=why) as caught:
        limiter.acquire("m", **call)
    error = caught.value
    assert error.bucket_id == "default/m"
    assert error.retry_after == (None if retry_after is None else pytest.approx(retry_after))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.bucket_id, copy.retry_after) == (str(error), error.bucket_id, error.retry_after)
    assert limiter.snapshot().buckets[0].waiting == 0


async def test_what_can_never_pass_is_refused_by_a_full_bucket_too(clock):
    limiter = Limiter(quotas={"tokens": 30_000}, clock=clock)
    with pytest.raises(CapacityExceededError, match="can never pass"):
        await limiter.aacquire("m", 30_001)


def test_a_deadline_counts_those_ahead_in_line(clock, in_thread, until):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    for _ in range(60):
        limiter.acquire("m").settle()
    threads = [in_thread(lambda: limiter.acquire("m").settle()) for _ in range(5)]
    until(lambda: limiter.snapshot().waiting == 5)
    with pytest.raises(CapacityExceededError) as caught:
        limiter.acquire("m", timeout=5)
    assert caught.value.retry_after == pytest.approx(6)
    clock.advance(5)
    for thread in threads:
        thread.join()


def test_a_timeout_without_bound_is_none_at_all(clock):
    limiter = Limiter(quotas={"tokens": 600}, clock=clock, max_wait=float("inf"), max_pause=float("inf"))
    assert limiter.acquire("m", 600, timeout=float("inf")).call.deadline is None


async def test_an_estimate_above_the_limit_is_sent_alone_on_a_full_bucket(clock, turn):
    limiter = Limiter(quotas={"tokens": 600}, clock=clock)
    (await limiter.aacquire("m", 300)).settle(tokens=300)
    task = asyncio.ensure_future(limiter.aacquire("m", input_tokens=900, output_tokens=0, estimated=True))
    await turn()
    assert not task.done()
    clock.advance(29.9)
    await turn()
    assert not task.done()
    clock.advance(0.2)
    await turn()
    assert task.done()

    behind = asyncio.ensure_future(limiter.aacquire("m", 1))
    await turn()
    assert not behind.done()  # the debt is paid first
    task.result().settle(tokens=500)
    await turn()
    assert behind.done()


def test_what_the_provider_called_too_large_is_never_retried(clock):
    limiter = Limiter(clock=clock)
    reservation = limiter.acquire("m", prompt="x" * 10_000)
    info = reservation.observe(
        429,
        {},
        {
            "error": {
                "message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): "
                "Limit 30000, Requested 60000. The input or output tokens must be reduced.",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    )
    assert info.refusal.kind.value == "request_too_large"
    with pytest.raises(CapacityExceededError, match="for good: request_too_large") as caught:
        reservation.readmit()
    assert caught.value.retry_after is None
    limiter.acquire("m", timeout=1).settle()  # others go on


def test_an_unannounced_call_is_one_request(clock):
    limiter = Limiter(quotas={"requests": 2, "tokens": 10}, clock=clock)
    limiter.acquire().settle()
    limiter.acquire().settle()
    assert limiter.try_acquire() is None
    assert [limit.remaining for limit in limiter.snapshot().buckets[0].limits] == [0, 10]


def test_record_goes_in_any_case_and_is_counted(clock):
    limiter = Limiter(quotas={"requests": 2}, clock=clock)
    for _ in range(5):
        limiter.record("m").settle()
    assert limiter.snapshot().buckets[0].limits[0].remaining == -3
    assert limiter.try_acquire("m") is None


def test_a_jump_of_the_wall_clock_changes_nothing(monkeypatch):
    limiter = Limiter(quotas=Quota("requests", 10, 0.2))
    for jump in (1e10, -1e10, 0.0):
        monkeypatch.setattr("time.time", lambda jump=jump: jump)
        for _ in range(10):
            limiter.acquire("m", timeout=2).settle()
    assert limiter.snapshot().buckets[0].limits[0].remaining <= 10


def test_a_fake_clock_that_stands_still_admits_what_is_there_and_no_more():
    limiter = Limiter(quotas={"requests": 3}, clock=FakeClock())
    assert [limiter.try_acquire("m") is not None for _ in range(5)] == [True, True, True, False, False]


def work(seconds):
    """Take so much of the processor, however busy the machine is."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def send(limiter, index, woken, sent):
    """Take as many steps as it takes to build a request; then note how many had begun by then."""
    (await limiter.aacquire("m")).settle()
    woken.append(index)
    for _ in range(3):
        work(0.003)
        await asyncio.sleep(0)
    sent.append(len(woken))


async def test_calls_that_are_let_go_together_do_not_take_every_step_together(clock, turn):
    """Hundreds of them did: the first request was written when the last one was, and so it was at each turn of a window."""
    limiter = Limiter(quotas=Quota("requests", 60, algorithm="fixed_window"), clock=clock)
    woken, sent = [], []

    for _ in range(60):
        (await limiter.aacquire("m")).settle()
    tasks = [asyncio.ensure_future(send(limiter, index, woken, sent)) for index in range(60)]
    await turn()
    clock.advance(60.0)
    await asyncio.gather(*tasks)
    assert woken == list(range(60))
    assert sent[0] <= 15
    assert sent[30] <= 45


async def test_the_rest_of_those_let_go_together_are_woken_if_some_have_left(clock, turn):
    limiter = Limiter(quotas=Quota("requests", 60, algorithm="fixed_window"), clock=clock)
    for _ in range(60):
        (await limiter.aacquire("m")).settle()
    tasks = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(60)]
    await turn()
    clock.advance(60.0)  # they are woken in the next round
    for task in tasks[:50]:
        task.cancel()
    await turn()
    assert all(task.cancelled() for task in tasks[:50])
    assert all(task.done() for task in tasks)
    assert limiter.snapshot().buckets[0].limits[0].remaining == 50


async def test_calls_that_are_let_go_a_few_at_a_time_stand_in_one_line(clock, turn):
    """A sliding window gives back a few each time. Where each few began anew, none was written until all had begun."""
    limiter = Limiter(quotas=Quota("requests", 60, algorithm="sliding_window"), clock=clock)
    woken, sent = [], []

    for _ in range(10):
        for _ in range(6):
            (await limiter.aacquire("m")).settle()
        clock.advance(1.0)
    tasks = [asyncio.ensure_future(send(limiter, index, woken, sent)) for index in range(60)]
    await turn()
    clock.advance(60.0)  # ten timers, before the loop has its next round
    await asyncio.gather(*tasks)
    assert sent[0] <= 15
    assert sent[30] <= 45


def test_who_was_woken_in_a_loop_that_then_stood_still_goes_when_it_runs_again(clock):
    limiter = Limiter(quotas=Quota("requests", 60, algorithm="fixed_window"), clock=clock)

    async def use_up():
        for _ in range(60):
            (await limiter.aacquire("m")).settle()

    async def line_up():
        tasks = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(30)]
        await asyncio.sleep(0)
        return tasks

    async def end(tasks):
        return await asyncio.gather(*tasks)

    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
    one.run_until_complete(use_up())
    first, second = one.run_until_complete(line_up()), two.run_until_complete(line_up())
    clock.advance(60.0)
    two.run_until_complete(asyncio.sleep(0))
    one.run_until_complete(asyncio.sleep(0))
    assert len(two.run_until_complete(end(second))) == len(one.run_until_complete(end(first))) == 30
    one.close()
    two.close()
