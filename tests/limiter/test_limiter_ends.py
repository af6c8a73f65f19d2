"""A reservation ends exactly once, on every way out, and what is unknown stays charged."""

import asyncio
import contextlib
import gc
import subprocess
import sys
from decimal import Decimal

import pytest
from tests.garbage import collect

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.reservation import current_reservation

SLOW_DOWN = {"error": {"message": "Rate limit reached for requests", "type": "requests"}}


@pytest.fixture
def limiter(clock):
    return Limiter(quotas={"requests": 60, "tokens": 6000}, clock=clock)


@pytest.fixture
def tokens(bucket):
    return lambda: next(limit.remaining for limit in bucket().limits if limit.unit == "tokens")


@pytest.mark.parametrize(
    ("usage", "left"),
    [
        ({"tokens": 400}, 5600),
        ({"input_tokens": 100, "output_tokens": 200}, 5700),
        ({"tokens": 0}, 6000),
        ({"tokens": 7000}, -1000),  # debt: it was used, whatever the limit says
        ({}, 5000),
        ({"tokens": float("nan")}, 5000),
        ({"tokens": -1}, 5000),
        ({"tokens": float("inf")}, 5000),
        ({"tokens": "400"}, 5000),
        ({"tokens": 10**400}, 5000),
        ({"tokens": Decimal(400)}, 5600),
        ({"input_tokens": 100, "output_tokens": None}, 5000),
    ],
)
def test_settle_replaces_the_estimate_by_what_is_known(limiter, bucket, tokens, usage, left):
    reservation = limiter.acquire("m", tokens=1000)
    assert tokens() == 5000
    assert reservation.settle(**usage) is True
    assert tokens() == left
    assert bucket().in_flight == 0


ENDS = {
    "settle": lambda reservation: reservation.settle(tokens=10),
    "cancel": lambda reservation: reservation.cancel(),
    "lapse": lambda reservation: reservation.lapse(),
    "refusal": lambda reservation: reservation.observe(429, {}, SLOW_DOWN),
}


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
def test_only_the_first_end_counts(limiter, bucket, tokens, first, second):
    reservation = limiter.acquire("m", tokens=1000)
    ENDS[first](reservation)
    before = tokens(), bucket().in_flight
    again = ENDS[second](reservation)
    if second != "refusal":
        assert again is False
        assert (tokens(), bucket().in_flight) == before
    assert bucket().in_flight == 0


def test_with_block_that_settles(limiter, bucket, tokens):
    with limiter.acquire("m", tokens=1000) as reservation:
        assert current_reservation.get() is reservation
        reservation.settle(tokens=400)
    assert current_reservation.get() is None
    assert (tokens(), bucket().in_flight) == (5600, 0)


def test_with_block_that_says_nothing_keeps_the_charge(limiter, bucket, tokens):
    with limiter.acquire("m", tokens=1000):
        pass
    assert (tokens(), bucket().in_flight) == (5000, 0)


def test_exception_in_the_block(limiter, bucket, tokens):
    with pytest.raises(KeyError), limiter.acquire("m", tokens=1000):
        raise KeyError
    assert (tokens(), bucket().in_flight) == (5000, 0)
    assert current_reservation.get() is None


def test_break_out_of_the_block(limiter, bucket, tokens):
    for _ in range(3):
        with limiter.acquire("m", tokens=1000) as reservation:
            reservation.cancel()
            break
    assert (tokens(), bucket().in_flight) == (6000, 0)


async def test_async_with_and_an_exception(limiter, bucket, tokens):
    with pytest.raises(RuntimeError):
        async with await limiter.aacquire("m", tokens=1000):
            raise RuntimeError
    assert (tokens(), bucket().in_flight) == (5000, 0)


async def test_async_with_and_a_cancellation(limiter, bucket, tokens, turn):
    async def call():
        async with await limiter.aacquire("m", tokens=1000):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(call())
    await turn()
    assert bucket().in_flight == 1
    task.cancel()
    await turn()
    assert (tokens(), bucket().in_flight) == (5000, 0)


async def test_async_generator_closed_in_another_context(limiter, bucket):
    """Break out of a stream: the generator is closed by whoever collects it, in a context of its own."""

    async def stream():
        async with await limiter.aacquire("m", tokens=1000):
            yield 1
            yield 2

    generator = stream()
    assert await anext(generator) == 1
    await asyncio.get_running_loop().create_task(generator.aclose())
    assert bucket().in_flight == 0


def test_a_reservation_that_is_dropped_lapses(limiter, bucket, tokens, clock):
    limiter.acquire("m", tokens=1000)
    collect()
    clock.advance(0)
    assert (tokens(), bucket().in_flight) == (5000, 0)


def test_who_looks_sees_no_reservation_that_was_dropped_before(limiter, bucket):
    """It was in flight until the timer's thread had its turn."""
    limiter.acquire("m", tokens=1000)
    collect()
    assert bucket().in_flight == 0


async def test_those_who_wait_go_on_when_a_dropped_reservation_lapses(clock, turn):
    limiter = Limiter(max_concurrency=1, quotas={"requests": 600}, clock=clock)
    dropped = await limiter.aacquire("m")
    task = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    del dropped
    collect()
    clock.advance(0)
    await turn()
    assert task.done()
    task.result().settle()


def test_the_collector_may_end_reservations_within_a_step(limiter, bucket, clock):
    """A generator with a reservation in a cycle is closed wherever the collector happens to run."""

    def stream():
        with limiter.acquire("m", tokens=10):
            yield

    read = []

    class Collecting(dict):
        """A cost whose reading runs the collector: as if it came in the middle of a step."""

        def get(self, *unit):
            read.append(unit)
            collect()
            return super().get(*unit)

    generator = stream()
    next(generator)
    cycle = [generator]
    cycle.append(cycle)
    del generator, cycle
    other = limiter.acquire("m", tokens=10)
    other.call.hold.cost = Collecting(other.call.hold.cost)
    gc.disable()
    try:
        other.settle()
        bucket()  # what ended in the journal is posted when somebody looks
    finally:
        gc.enable()
    clock.advance(0)
    assert read
    assert bucket().in_flight == 0


def test_observe_after_the_end_still_teaches_the_limits(limiter, bucket):
    with limiter.acquire("m", tokens=100) as reservation:
        reservation.settle(tokens=100)
    reservation.observe(200, {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "3"})
    told = next(limit for limit in bucket().limits if limit.source == "told")
    assert (told.limit, told.unit) == (10, "requests")


def test_observe_after_cancel_changes_nothing(limiter, bucket):
    reservation = limiter.acquire("m", tokens=100)
    reservation.cancel()
    info = reservation.observe(429, {"retry-after": "100"}, SLOW_DOWN)
    assert info.refusal is not None
    assert bucket().paused_for == 0


def test_repr_tells_state_and_wait(limiter):
    reservation = limiter.acquire("m")
    assert repr(reservation) == "<Reservation of default/m, open, waited 0.000 s>"
    reservation.settle()
    assert "closed" in repr(reservation)


def test_a_reservation_open_at_exit_is_silent():
    """The interpreter ends over an open reservation, with nobody waiting and with a thread that waits."""
    script = (
        "import threading\n"
        "from adaptive_rate_limiter import Limiter\n"
        "limiter = Limiter(max_concurrency=1)\n"
        "reservation = limiter.acquire('m')\n"
        "threading.Thread(target=limiter.acquire, args=('m',), daemon=True).start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_settled_by_two_threads_at_once(limiter, bucket, in_thread):
    reservation = limiter.acquire("m", tokens=1000)
    results = []
    threads = [in_thread(lambda: results.append(reservation.settle(tokens=500))) for _ in range(8)]
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert bucket().in_flight == 0


def test_usage_that_the_http_layer_saw_ends_the_block(limiter, tokens):
    class Reply:
        def usage(self):
            return {"input_tokens": 30.0, "output_tokens": 20.0}

    with limiter.acquire("m", tokens=1000) as reservation:
        reservation.reply = Reply()
    assert tokens() == 5950
    with contextlib.suppress(KeyError), limiter.acquire("m", tokens=1000) as reservation:
        reservation.reply = Reply()
        reservation.settle(tokens=1)
        raise KeyError
    assert tokens() == 5949
