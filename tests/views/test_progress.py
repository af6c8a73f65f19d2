"""The bar says how long the rest takes, what binds, what waits, and what failed."""

import asyncio
import re
import sys
from queue import SimpleQueue

import pytest

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.batch import progress
from adaptive_rate_limiter.batch.progress import Pace, progress_of


def test_the_rest_is_forecast_from_what_the_first_took(limiter, call):
    call(1000)  # what was used before is not this batch's
    pace = Pace(limiter)
    assert pace.forecast(0, 10).seconds is None
    for _ in range(5):
        call(1000)
    forecast = pace.forecast(done=5, left=12)
    assert (forecast.seconds, forecast.binds) == (pytest.approx(120), "tokens")
    assert pace.say(5, 12, failed=0, rate=1.0) == "about 2 min left, bound by tokens"


def test_the_rest_was_forecast_without_limits_on_input_and_output(clock):
    limiter = Limiter(quotas={"input_tokens": 60_000, "output_tokens": 6000}, clock=clock)
    pace = Pace(limiter)
    for _ in range(5):
        with limiter.acquire("m", input_tokens=100, output_tokens=1000, timeout=0) as reservation:
            reservation.settle(input_tokens=100, output_tokens=500)
    forecast = pace.forecast(done=5, left=19)
    assert (forecast.seconds, forecast.binds) == (pytest.approx(60), "output_tokens")


def test_where_no_limit_binds_the_rate_so_far_tells_the_time(limiter, call):
    pace = Pace(limiter)
    call(10)
    assert pace.say(1, 20, failed=2, rate=0.5) == "about 40 s left; 2 failed"
    assert pace.say(1, 20, failed=0, rate=None) == ""
    assert pace.say(21, 0, failed=0, rate=0.5) == ""


def test_what_is_under_way_is_not_counted_twice(limiter):
    pace = Pace(limiter)
    running = [limiter.acquire("m", 1000, timeout=0) for _ in range(6)]
    assert pace.forecast(done=0, left=6).seconds is None  # nothing is to come
    assert pace.forecast(done=0, left=12).seconds == pytest.approx(60)
    for reservation in running:
        reservation.cancel()


def test_a_bar_is_shown_if_it_is_wanted(limiter, call, capsys):
    limiter.map(lambda _: call(1000), range(7), progress=True).run()
    said = capsys.readouterr().err.split("\r")[-1].strip()
    assert re.fullmatch(r"100%\|█+\| 7/7 \[\d\d:\d\d, +[\d.]+it/s, 1 failed\]", said)


def test_no_bar_where_nobody_looks(limiter, capsys):
    limiter.map(str, range(7)).run()
    limiter.map(str, range(7), progress=False).run()
    assert capsys.readouterr().err == ""


def test_a_bar_without_tqdm(limiter, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"adaptive-rate-limiter\[notebook\]"):
        limiter.map(str, [1], progress=True).run()


class Bar:
    """What tqdm is used for, with a word whenever it is drawn."""

    def __init__(self, **_):
        self.text = ""
        self.drawn = SimpleQueue()

    def set_postfix_str(self, text, refresh):
        self.text = text

    def refresh(self):
        self.drawn.put(self.text)

    def close(self):
        pass


async def test_the_bar_is_renewed_while_nothing_ends(clock, limiter, call, monkeypatch):
    bars = []
    monkeypatch.setattr(progress, "_tqdm", lambda: lambda **given: bars.append(Bar(**given)) or bars[0])
    call(6000)
    shown = progress_of(limiter, 4, [], wanted=True)
    assert bars[0].drawn.get(timeout=10) == ""
    task = asyncio.ensure_future(limiter.aacquire("m", 3000))
    await asyncio.sleep(0)
    clock.advance(1)
    assert bars[0].drawn.get(timeout=10) == "1 in line"
    shown.close()
    assert clock.next_due() == 30.0  # when the call goes, and nothing of the bar's
    task.cancel()
