"""What a limiter did over time: recorded from outside, bounded, with a mark where it was refused or told a limit."""

import math
import sys
from itertools import pairwise

import pytest

from adaptive_rate_limiter import ConfigurationError
from adaptive_rate_limiter.views import history
from adaptive_rate_limiter.views.plot import allowed, sent


def look(limiter):
    limiter.history.add(limiter.snapshot())


def headers(limit, remaining):
    return {"x-ratelimit-limit-requests": str(limit), "x-ratelimit-remaining-requests": str(remaining)}


def test_nothing_is_recorded_unless_somebody_asks(clock, limiter, call):
    call()
    clock.advance(60)
    assert (len(limiter.history), clock.next_due()) == (0, None)


def test_a_block_is_recorded(clock, limiter, call):
    call(tokens=1000)
    with limiter.history:
        call(tokens=1000)
        clock.advance(history.EVERY)
        call(tokens=1000)
    points = limiter.history.points()["default/m"]
    assert (points[0].at, points[0].units["tokens"], points[0].admitted) == (0.0, 1000, 1)
    assert (points[-1].at, points[-1].units["tokens"], points[-1].admitted) == (clock.now(), 3000, 3)
    limiter.history.clear()
    assert (len(limiter.history), limiter.history.points()) == (0, {})


def test_refusals_and_limits_are_marked_with_their_reason(clock, limiter, call):
    call(headers=headers(600, 599))
    look(limiter)
    clock.advance(1)
    call(headers=headers(300, 298))
    call(status=529)
    look(limiter)
    marks = [(mark.at, mark.kind, mark.text) for mark in limiter.history.marks("m")]
    assert (0.0, "limit", "60 requests per minute, stated by you") in marks
    assert (0.0, "limit", "600 requests per minute, told by headers") in marks
    assert (1.0, "limit", "300 requests per minute, told by headers; it was 600") in marks
    assert (1.0, "refused", "1 refused: overload") in marks
    assert limiter.history.marks("another") == []


def test_the_first_calls_of_a_bucket_were_not_drawn(clock, limiter, call):
    """It comes to be between two looks: until then it had done nothing, since the first look as all others."""
    call(model="old")
    look(limiter)
    clock.advance(1)
    look(limiter)
    clock.advance(1)
    call(model="new", tokens=500)
    look(limiter)
    before, first = limiter.history.points()["default/new"]
    assert (before.at, set(before.units.values()), before.limits) == (1.0, {0.0}, ())
    assert (first.at, first.units["tokens"]) == (2.0, 500)
    old, new = (limiter.history.plot(model).axes[0] for model in ("old", "new"))
    assert list(old.lines[1].get_xdata()) == [0.0, 1.0, 2.0]
    assert list(new.lines[1].get_xdata()) == [1.0, 2.0]


def test_what_was_refused_before_anybody_looked_was_marked(clock, limiter, call):
    call(status=529)
    look(limiter)
    clock.advance(60)
    call(status=529)
    look(limiter)
    refused = [mark for mark in limiter.history.marks() if mark.kind == "refused"]
    assert [(mark.at, mark.text) for mark in refused] == [(60.0, "1 refused: overload")]


def test_a_limit_that_is_out_of_the_picture_is_said_to_be_above(clock, limiter, call):
    for _ in range(2):
        call(tokens=100)
        look(limiter)
        clock.advance(1)
    labels = [panel.get_legend().get_texts()[0].get_text() for panel in limiter.history.plot().axes[:2]]
    assert labels == ["sent, and what is left of the limit (above)"] * 2


def test_it_is_bounded_and_keeps_the_whole_time(clock, limiter, call, monkeypatch):
    monkeypatch.setattr(history, "MOST", 50)
    call()
    for _ in range(1000):
        clock.advance(1)
        look(limiter)
    assert len(limiter.history) <= 51
    times = [point.at for point in limiter.history.points()["default/m"]]
    assert times[0] <= 64
    assert times[-1] >= 936
    assert max(after - before for before, after in pairwise(times)) <= 32


def test_the_most_that_could_have_been_sent_is_what_was_and_what_is_left(clock, limiter, call):
    for tokens in (1000, 5000, 0):
        if tokens:
            call(tokens=tokens)
        look(limiter)
        clock.advance(6)
    points = limiter.history.points()["default/m"]
    assert allowed("tokens", points) == [pytest.approx(6000), pytest.approx(6600), pytest.approx(7200)]


def test_before_a_limit_was_known_it_was_drawn_as_if_nothing_were_allowed(clock, call, limiter):
    look(limiter)
    clock.advance(1)
    call(tokens=1000)
    look(limiter)
    before, known = allowed("tokens", limiter.history.points()["default/m"])
    assert math.isnan(before)
    assert known == pytest.approx(6000)


def test_what_was_sent_never_shrinks_where_an_estimate_proved_too_large(limiter, call):
    call(tokens=1000)
    look(limiter)
    running = limiter.acquire("m", 900, timeout=0)
    look(limiter)
    running.settle(tokens=100)
    look(limiter)
    points = limiter.history.points()["default/m"]
    assert [point.units["tokens"] for point in points] == [1000, 1900, 1100]
    assert sent("tokens", points) == [1000, 1100, 1100]


def test_a_plot_has_a_panel_for_each_unit_and_one_for_the_line(clock, limiter, call):
    for _ in range(5):
        call(tokens=1000)
        look(limiter)
        clock.advance(1)
    limiter.acquire("m", 10, timeout=0).observe(429, {"retry-after": "5"})
    look(limiter)
    panels = limiter.history.plot().axes
    assert [panel.get_ylabel() for panel in panels] == ["requests", "tokens", "calls"]
    assert panels[0].get_title(loc="left") == "m"
    assert list(panels[1].lines[1].get_ydata()) == [1000, 2000, 3000, 4000, 5000, 5010]
    labels = [text.get_text() for text in panels[1].get_legend().get_texts()]
    assert labels[:2] == ["sent, and what is left of the limit", "sent: 5,010"]
    assert "refused: rate limit" in labels
    assert "6,000 tokens per minute, stated by you" in labels


def test_a_plot_of_several_buckets_of_one_and_of_none(clock, limiter, call):
    assert [panel.get_ylabel() for panel in limiter.history.plot().axes] == ["calls"]
    call(model="a", tokens=0)
    call(model="b$x$")
    look(limiter)
    clock.advance(3600)
    look(limiter)
    both = limiter.history.plot()
    assert len(both.axes) == 6
    assert both._repr_png_().startswith(b"\x89PNG")
    one = limiter.history.plot("b$x$")
    assert one.axes[-1].get_xlabel() == "minutes since the first look"
    assert len(one.axes) == 3


def test_a_plot_without_matplotlib(monkeypatch, limiter):
    monkeypatch.delitem(sys.modules, "adaptive_rate_limiter.views.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"adaptive-rate-limiter\[notebook\]"):
        limiter.history.plot()


async def test_it_can_be_started_twice_and_is_for_coroutines_too(clock, limiter, call):
    async with limiter.history as same:
        same.start()
        call()
    assert limiter.history.points()["default/m"][-1].admitted == 1
    limiter.history.stop()
    with pytest.raises(ConfigurationError, match="every must be seconds, above 0, got 0"):
        limiter.history.start(every=0)
