"""Many items through one function: order, failures, interrupts, and how many are under way."""

import contextvars
import pickle
import threading

import httpx
import openai
import pytest

from adaptive_rate_limiter import CapacityExceededError, ConfigurationError, Limiter, Outcome
from adaptive_rate_limiter.batch.work import FIRST


@pytest.fixture
def limiter():
    return Limiter()


def test_outcomes_come_in_the_order_of_their_items(limiter):
    later = threading.Event()

    def slow_first(item):
        if item == 0:
            assert later.wait(10)
        elif item == 2:
            later.set()
        return item * 10

    batch = limiter.map(slow_first, range(3))
    assert [(outcome.index, outcome.value) for outcome in batch] == [(0, 0), (1, 10), (2, 20)]
    assert batch.results() == [0, 10, 20]


def test_as_completed_yields_what_ends_first(limiter):
    later = threading.Event()

    def slow_first(item):
        return item == "slow" and later.wait(10)

    seen = []
    for outcome in limiter.map(slow_first, ["slow", "fast"]).as_completed():
        seen.append(outcome.item)
        later.set()
    assert seen == ["fast", "slow"]


def test_nothing_runs_before_somebody_asks(limiter):
    ran = []
    batch = limiter.map(ran.append, "ab")
    assert (ran, len(batch), batch.missing, batch.outcomes) == ([], 2, ["a", "b"], [])
    with pytest.raises(RuntimeError, match="2 of 2 items were not run"):
        batch.results()
    assert repr(batch) == "<Batch of 2 items, 0 done, 0 of them failed>"
    assert sorted(batch.run().missing + ran) == ["a", "b"]


def test_a_failure_is_an_outcome_and_costs_no_other_item(limiter):
    batch = limiter.map(lambda item: 6 // item, [1, 0, 2]).run()
    (failed,) = batch.failed
    assert (failed.index, failed.item, failed.ok, type(failed.error)) == (1, 0, False, ZeroDivisionError)
    assert [outcome.value for outcome in batch.outcomes if outcome.ok] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        batch.results()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_would_end_a_thread_is_an_outcome_too(limiter, error):
    def leave(_):
        raise error

    (failed,) = limiter.map(leave, "a").run().failed
    assert isinstance(failed.error, error)


def test_what_has_an_outcome_is_not_run_again(limiter):
    ran = []
    batch = limiter.map(ran.append, range(100), concurrency=1)
    for outcome in batch:
        if outcome.index == 10:
            break
    batch.run()
    batch.run()
    assert sorted(ran) == list(range(100))
    assert len(batch.outcomes) == 100


def test_an_interrupt_loses_nothing_of_what_is_under_way(limiter):
    """What runs when the batch is left goes on, counts for the next time, and is not begun again."""
    held, begun, ran = threading.Event(), threading.Event(), []

    def call(item):
        ran.append(item)
        if item == "held":
            begun.set()
            assert held.wait(10)
        return item

    batch = limiter.map(call, ["held", "quick", "never begun"], concurrency=2)

    def interrupt():
        for outcome in batch.as_completed():
            assert outcome.item == "quick"
            assert begun.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    held.set()
    assert batch.run().results() == ["held", "quick", "never begun"]
    assert sorted(ran) == ["held", "never begun", "quick"]


def test_whoever_begins_again_takes_over(limiter):
    held = threading.Event()
    batch = limiter.map(lambda item: item and held.wait(10), [0, 1], concurrency=1)
    left, taken = batch.as_completed(), batch.as_completed()
    assert (next(left).item, next(taken).item) == (0, 0)
    held.set()
    assert [outcome.item for outcome in taken] == [1]
    with pytest.raises(RuntimeError, match="begun again elsewhere"):
        list(left)


def test_earlier_outcomes_are_taken_over_and_failures_tried_again(limiter):
    first = limiter.map(lambda item: 6 // item, [1, 0, 2]).run()
    kept = pickle.loads(pickle.dumps(first.outcomes))
    ran = []

    def careful(item):
        ran.append(item)
        return 0

    again = limiter.map(careful, [1, 0, 3], earlier=kept).run()
    assert sorted(ran) == [0, 3]  # 0 had failed, and 3 was another item then
    assert again.results() == [6, 0, 0]
    assert limiter.map(careful, [1, 0, 3], earlier=again).run().results() == [6, 0, 0]
    assert len(ran) == 2


def test_outcomes_were_lost_where_an_error_could_be_pickled_and_not_read(limiter):
    """As those of openai, anthropic and httpx, which take arguments that a pickle does not keep."""
    reply = httpx.Response(429, request=httpx.Request("POST", "http://provider"))

    def refused(item):
        if item:
            raise openai.RateLimitError("slow down", response=reply, body=None)
        raise CapacityExceededError("never", "bucket", 3.0)

    first = limiter.map(refused, [0, 1]).run()
    ours, theirs = pickle.loads(pickle.dumps(first.outcomes))
    assert (type(ours.error), ours.error.retry_after) == (CapacityExceededError, 3.0)
    assert (type(theirs.error), str(theirs.error)) == (RuntimeError, "RateLimitError: slow down")
    assert limiter.map(str, [0, 1], earlier=[ours, theirs]).run().results() == ["0", "1"]


def test_the_limits_are_kept(clock):
    limiter = Limiter(quotas={"unit": "requests", "limit": 60, "burst": 2}, clock=clock)

    def call(_):
        with limiter.acquire("m", timeout=0) as reservation:
            reservation.settle()

    batch = limiter.map(call, range(5)).run()
    assert [type(outcome.error) for outcome in batch.failed] == [CapacityExceededError] * 3


def test_a_fixed_concurrency_is_never_exceeded(limiter):
    now, most, lock = 0, 0, threading.Lock()

    def call(_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    limiter.map(call, range(200), concurrency=3).run()
    assert most <= 3


def test_more_are_under_way_as_long_as_no_limit_holds_them_back(limiter, until):
    go, running = threading.Semaphore(0), []

    def call(item):
        running.append(item)
        go.acquire()

    batch = limiter.map(call, range(6 * FIRST))
    consumer = threading.Thread(target=batch.run)
    consumer.start()
    until(lambda: len(running) == FIRST)
    go.release(FIRST)  # each that ends is followed by two
    until(lambda: len(running) == 3 * FIRST)
    go.release(6 * FIRST)
    consumer.join(10)
    assert len(batch.outcomes) == 6 * FIRST


def test_items_see_the_context_of_whoever_runs_the_batch_and_not_each_others(limiter):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")

    def look(item):
        seen = variable.get()
        variable.set(item)
        return seen

    assert limiter.map(look, range(5), concurrency=1).run().results() == ["mine"] * 5


async def test_a_coroutine_function_is_for_amap(limiter):
    async def ask(item):
        return item

    with pytest.raises(ConfigurationError, match="amap"):
        limiter.map(ask, [1])
    with pytest.raises(ConfigurationError, match="func must be a coroutine function"):
        limiter.amap("ask", [1])
    with pytest.raises(ConfigurationError, match="concurrency must be a whole number of at least 1, got 0"):
        limiter.map(print, [1], concurrency=0)


def test_no_items_no_work(limiter):
    assert limiter.map(print, []).run().results() == []


def test_an_outcome_tells_its_value_or_raises_its_error():
    assert Outcome(0, "a", None).result() is None
    with pytest.raises(KeyError):
        Outcome(0, "a", error=KeyError("a")).result()
