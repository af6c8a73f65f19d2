"""A view that follows the limiter, in a notebook or a terminal, woken by a timer."""

import sys
import threading
from types import SimpleNamespace

import pytest

from adaptive_rate_limiter import ConfigurationError
from adaptive_rate_limiter.views.ticker import Ticker


class Notebook:
    """What a kernel has of IPython: a display with a handle."""

    def __init__(self):
        self.views = []
        self.grown = threading.Condition()

    def display(self, view, display_id):
        assert display_id is True
        self.update(view)
        return self

    def update(self, view):
        with self.grown:
            self.views.append(view)
            self.grown.notify_all()

    def wait_for(self, views):
        with self.grown:
            assert self.grown.wait_for(lambda: len(self.views) >= views, 10)


@pytest.fixture
def notebook(monkeypatch):
    notebook = Notebook()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    return notebook


def test_the_view_of_a_notebook_is_renewed_while_the_block_runs(notebook, clock, limiter, call):
    with limiter.watch(every=0.5):
        assert "No call was made yet" in str(notebook.views[0])
        call()
        for looks in range(2, 5):
            clock.advance(0.5)
            notebook.wait_for(looks)
        assert "1 call let in" in notebook.views[-1]._repr_html_()
        call()
    assert "2 calls let in" in str(notebook.views[-1])  # the last view is of the end
    seen = len(notebook.views)
    clock.advance(10)
    assert (len(notebook.views), clock.next_due()) == (seen, None)
    assert len(limiter.history) == seen


async def test_a_watch_is_for_coroutines_too(notebook, limiter, call):
    async with limiter.watch():
        call()
    assert "1 call let in" in str(notebook.views[-1])


def test_the_view_of_a_terminal(capsys, limiter, call):
    with limiter.watch():
        call()
    said = capsys.readouterr().out
    assert "1 call let in" in said
    assert "60 per minute" in said


@pytest.mark.parametrize("terminal", ["1", ""])
def test_what_was_printed_after_a_view_began_in_its_last_line(terminal, monkeypatch, capsys, limiter):
    monkeypatch.setenv("FORCE_COLOR", terminal)
    with limiter.watch():
        pass
    said = capsys.readouterr().out.removesuffix("\x1b[?25h")  # the cursor is seen again
    assert said.endswith("\n")
    assert not said.endswith("\n\n")


def test_a_bar_tore_the_view_of_a_terminal(monkeypatch, capsys, limiter, call):
    """It is a line of the view while that is shown, and stays above it in the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    with limiter.watch():
        limiter.map(lambda _: call(), range(7), progress=True).run()
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("7/7 [") == 1
    assert said.out.index("7/7 [") < said.out.rindex("7 calls let in")
    limiter.map(lambda _: call(), range(7), progress=True).run()
    said = capsys.readouterr()
    assert "7/7 [" in said.err
    assert said.out == ""


def test_a_bar_of_a_notebook_looked_like_an_error(notebook, capsys, limiter, call):
    """What goes to stderr is red there."""
    limiter.map(lambda _: call(), range(7), progress=True).run()
    said = capsys.readouterr()
    assert said.err == ""
    assert "7/7 [" in said.out


def test_a_terminal_without_rich(monkeypatch, limiter):
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(ImportError, match=r"adaptive-rate-limiter\[notebook\]"):
        limiter.watch().start()


@pytest.mark.parametrize("every", [0, -1, float("inf"), float("nan"), "soon"])
def test_how_often_is_checked(limiter, every):
    with pytest.raises(ConfigurationError, match="every must be seconds"):
        limiter.watch(every=every)


def test_a_ticker_works_in_its_own_thread(clock):
    threads, ticked = [], threading.Event()

    def action():
        threads.append(threading.current_thread())
        ticked.set()

    ticker = Ticker(clock, 1.0, action)
    ticker.start()
    ticked.clear()
    clock.advance(1)
    assert ticked.wait(10)
    ticker.stop()
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [True, False, True]
