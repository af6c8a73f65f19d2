"""One thread runs what is due, in order; the fake clock does the same by hand."""

import logging
import subprocess
import sys
import threading
import time

import pytest

from adaptive_rate_limiter import clock as clocks
from adaptive_rate_limiter.clock import SystemClock
from adaptive_rate_limiter.testing import FakeClock


class Noted:
    def __init__(self, expected):
        self.seen = []
        self.all = threading.Event()
        self.expected = expected

    def note(self, what):
        self.seen.append(what)
        if len(self.seen) == self.expected:
            self.all.set()

    def wait(self):
        assert self.all.wait(10)
        return self.seen


def test_callbacks_run_in_the_order_in_which_they_are_due():
    clock, noted, ready = SystemClock(), Noted(4), threading.Event()
    clock.call_at(-1.0, lambda: ready.wait(10))  # none of them runs before all are set
    now = clock.now()
    for delay in (0.03, 0.01, 0.02, -1.0):
        clock.call_at(now + delay, lambda delay=delay: noted.note(delay))
    ready.set()
    assert noted.wait() == [-1.0, 0.01, 0.02, 0.03]
    assert clock.now() >= now + 0.03


def test_callbacks_due_at_once_run_in_the_order_of_setting():
    clock, noted = SystemClock(), Noted(20)
    when = clock.now() + 0.02
    for index in range(20):
        clock.call_at(when, lambda index=index: noted.note(index))
    assert noted.wait() == list(range(20))


def test_one_that_was_cancelled_does_not_run():
    clock, noted = SystemClock(), Noted(1)
    when = clock.now() + 0.01
    clock.call_at(when, lambda: noted.note("cancelled")).cancel()
    clock.call_at(when + 0.01, lambda: noted.note("kept"))
    assert noted.wait() == ["kept"]


def test_one_that_raises_is_logged_and_the_others_go_on(caplog):
    clock, noted = SystemClock(), Noted(1)

    def fail():
        raise RuntimeError("broken")

    when = clock.now() + 0.01
    clock.call_at(when, fail)
    clock.call_at(when, lambda: noted.note("next"))
    assert noted.wait() == ["next"]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "a timer's callback failed")
    assert "broken" in str(record.exc_info[1])


def test_an_earlier_timer_is_not_held_up_by_a_later_one():
    clock, noted = SystemClock(), Noted(1)
    late = clock.call_at(clock.now() + 3600, lambda: noted.note("late"))
    started = time.monotonic()
    clock.call_at(clock.now() + 0.01, lambda: noted.note("early"))
    assert noted.wait() == ["early"]
    assert time.monotonic() - started < 5
    late.cancel()


def test_a_callback_may_set_the_next_timer():
    clock, noted = SystemClock(), Noted(3)

    def again():
        noted.note(len(noted.seen))
        if len(noted.seen) < 3:
            clock.call_at(clock.now() + 0.002, again)

    clock.call_at(clock.now(), again)
    assert noted.wait() == [0, 1, 2]


def test_cancelled_timers_of_a_far_future_do_not_pile_up():
    thread, noted = clocks._TimerThread(), Noted(1)
    far = time.monotonic() + 3600
    thread.add(clocks._Entry(far, lambda: None))  # those behind it do not come to the top
    for _ in range(5000):
        entry = clocks._Entry(far + 1, lambda: None)
        entry.cancel()
        thread.add(entry)
    thread.add(clocks._Entry(-1.0, lambda: noted.note("after")))
    noted.wait()
    assert len(thread._due) <= clocks.TIDY


def test_no_thread_is_started_while_the_interpreter_ends(monkeypatch):
    thread = clocks._TimerThread()
    monkeypatch.setattr("sys.is_finalizing", lambda: True)
    thread.add(clocks._Entry(-1.0, lambda: None))
    assert not thread._started


def test_timers_set_from_many_threads_all_run():
    clock, noted = SystemClock(), Noted(400)

    def many():
        for _ in range(50):
            clock.call_at(clock.now() + 0.001, lambda: noted.note(1))

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(noted.wait()) == 400


def test_one_thread_a_process():
    before = threading.active_count()
    for _ in range(10):
        SystemClock().call_at(time.monotonic() + 3600, lambda: None).cancel()
    assert threading.active_count() <= before + 1


def test_fake_time_stands_still_until_it_is_moved():
    clock = FakeClock(start=100.0)
    seen = []
    clock.call_at(105.0, lambda: seen.append((5, clock.now())))
    clock.call_at(103.0, lambda: seen.append((3, clock.now())))
    clock.call_at(104.0, lambda: seen.append((4, clock.now()))).cancel()
    clock.call_at(-1.0, lambda: seen.append((0, clock.now())))
    assert (clock.now(), seen, clock.next_due()) == (100.0, [], -1.0)
    clock.advance(0)
    assert seen == [(0, 100.0)]
    assert clock.next_due() == 103.0
    clock.advance(10)
    assert seen == [(0, 100.0), (3, 103.0), (5, 105.0)]
    assert (clock.now(), clock.next_due()) == (110.0, None)


def test_fake_callbacks_may_set_timers_within_the_same_step():
    clock = FakeClock()
    seen = []
    clock.call_at(1.0, lambda: clock.call_at(2.0, lambda: seen.append(clock.now())))
    clock.advance(3)
    assert seen == [2.0]


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_fake_time_goes_forward_only(seconds):
    with pytest.raises(ValueError, match="forward"):
        FakeClock().advance(seconds)


def test_the_fake_clock_needs_no_extra():
    script = (
        "import sys\n"
        "for name in ('starlette', 'uvicorn', 'httpx', 'pytest'): sys.modules[name] = None\n"
        "from adaptive_rate_limiter.testing import FakeClock\n"
        "from adaptive_rate_limiter import Limiter\n"
        "Limiter(clock=FakeClock()).acquire().settle()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
