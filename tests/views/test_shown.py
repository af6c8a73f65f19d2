"""A limiter shows its buckets, limits, levels, line and refusals, and nothing that others wrote is obeyed."""

import asyncio
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.views import View
from langchain_adaptive_rate_limiter import AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveLimiter as LlamaIndexLimiter

EVIL = "<script>alert('x')</script>\x1b[31m[bold]'\"&"


def in_terminal(limiter, width=140):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(limiter)
    return console.file.getvalue()


class Text(HTMLParser):
    """What a browser would show."""

    def __init__(self, html):
        super().__init__()
        self.words, self.tags = [], set()
        self.feed(html)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)


async def test_everything_that_is_known_is_shown(clock, limiter, call):
    call(tokens=5000)
    limiter.acquire("m", 1000, timeout=0).observe(429, {"retry-after": "20"})
    task = asyncio.ensure_future(limiter.aacquire("m", 3000))
    await asyncio.sleep(0)
    told = (
        "2 calls let in",
        "0 under way",
        "1 in line, the last goes in about 40 s",
        "nothing is sent for 20 s",
        "1 refused (rate limit: 1)",
        "60 per minute",
        "token bucket, stated by you",
        "0 left",
        "call 1 of 1 waits out a pause",
    )
    text = " ".join(str(View(limiter)).split())
    for words in told:
        assert words in text
        assert words in " ".join(Text(limiter._repr_html_()).words)
        assert words in " ".join(in_terminal(limiter).split())
    task.cancel()


def test_columns_of_a_narrow_terminal_wrapped_to_three_lines(clock):
    """Only how a limit is counted and who told it may take a second line; the bar gives way first."""
    limiter = Limiter(clock=clock)
    with limiter.acquire("m", 100, timeout=0) as reservation:
        reservation.observe(
            200, {"x-ratelimit-limit-input-tokens": "150000000", "x-ratelimit-remaining-input-tokens": "9"}
        )
    lines = in_terminal(limiter, width=80).splitlines()
    (first,) = [number for number, line in enumerate(lines) if "input tokens" in line]
    assert "150,000,000 per minute" in lines[first]
    assert "told by headers" in lines[first + 1]
    assert max(map(len, lines)) == 80


def test_html_is_well_formed_and_has_the_pages_own_colour_of_text(call, limiter):
    call(tokens=5900)
    root = ET.fromstring(f"<all>{limiter._repr_html_()}</all>")
    styles = [element.get("style", "") for element in root.iter()]
    assert not any(
        re.search(r"(?:^|;)color:(?!inherit)|background:(?:white|#fff)", style) for style in styles
    )
    bars = [element.get("aria-label") for element in root.iter("span") if element.get("role") == "img"]
    assert bars == ["98% left", "2% left"]
    assert {"width:98%", "width:2%"} <= {part for style in styles for part in style.split(";")}


def test_names_of_others_are_text(clock):
    limiter = Limiter(clock=clock)
    with limiter.acquire(EVIL, 100, timeout=0) as reservation:
        reservation.observe(200, {"x-ratelimit-limit-<img src=x>": "5", "x-ratelimit-limit-requests": "500"})
    shown = Text(limiter._repr_html_())
    assert not shown.tags & {"script", "img"}
    assert "<script>alert('x')</script>?[31m[bold]'\"&" in shown.words
    assert "\x1b[31m" not in in_terminal(limiter)
    assert "[bold]" in in_terminal(limiter)


def test_long_names_are_cut(clock):
    limiter = Limiter(clock=clock)
    limiter.acquire("m" * 1000, timeout=0).cancel()
    assert max(map(len, Text(limiter._repr_html_()).words)) < 200


@pytest.mark.parametrize(
    "show", [lambda limiter: limiter._repr_html_(), in_terminal, lambda it: str(View(it))]
)
def test_a_limiter_that_has_done_nothing_says_so(clock, show):
    limiter = Limiter(clock=clock)
    assert "No call was made yet" in show(limiter)
    limiter.acquire("m", timeout=0).cancel()
    assert "no limit is known yet" in show(limiter)


def test_where_there_is_no_html_there_is_text(limiter, call):
    call()
    printed = io.StringIO()
    limiter._repr_pretty_(SimpleNamespace(text=printed.write), cycle=False)
    assert printed.getvalue() == str(View(limiter))


@pytest.mark.parametrize("adaptive", [AdaptiveLimiter, LlamaIndexLimiter])
def test_the_limiters_of_the_integrations_show_their_own(limiter, call, adaptive):
    call()
    mine = adaptive(limiter)
    assert mine._repr_html_() == limiter._repr_html_()
    assert in_terminal(mine) == in_terminal(limiter)
    assert mine.history is limiter.history


def test_a_limit_that_is_overdrawn_has_nothing_left(limiter, call):
    call(tokens=5900)
    with limiter.acquire("m", 50, timeout=0) as reservation:
        reservation.settle(tokens=3000)
    assert [bar.left for bar in View(limiter).cards[0].bars] == ["58 left", "0 left"]


def test_the_busiest_bucket_comes_first(clock, limiter, call):
    call(model="quiet")
    call(model="busy")
    call(model="busy")
    assert [card.title for card in View(limiter).cards] == ["busy", "quiet"]


def test_a_limit_that_only_refusals_tell_has_no_level(clock):
    limiter = Limiter(clock=clock)
    while not _inferred(limiter):
        clock.advance(0.2)
        with limiter.acquire("m", timeout=3600) as reservation:
            refused = reservation.call.trial is not None and limiter.snapshot().buckets[0].admitted > 30
            reservation.observe(429 if refused else 200, {}, {"error": {"message": "Rate limit reached"}})
        assert clock.now() < 3600
    (card,) = View(limiter).cards
    (bar,) = card.bars
    assert (bar.left, bar.level, bar.origin) == ("", None, "inferred from refusals")
    assert "inferred from refusals" in in_terminal(limiter)
    assert "inferred from refusals" in " ".join(Text(limiter._repr_html_()).words)


def _inferred(limiter):
    return any(limit.source == "inferred" for bucket in limiter.snapshot().buckets for limit in bucket.limits)


def test_what_draws_is_imported_when_it_is_used():
    code = "import adaptive_rate_limiter, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=30
    )
    assert not {"matplotlib", "rich", "tqdm", "IPython"} & set(done.stdout.split())
