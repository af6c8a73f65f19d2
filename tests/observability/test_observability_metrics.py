"""What is scraped is what happened: sums add up, counters never go down, labels are bounded."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.observability.scraped import Scrape

from adaptive_rate_limiter import (
    CapacityExceededError,
    Limiter,
    Quota,
)  # fmt: skip
from adaptive_rate_limiter.http import observe_http
from adaptive_rate_limiter.observability import export_metrics
from adaptive_rate_limiter.observability.metrics import COUNTERS, REASONS, WAITS
from adaptive_rate_limiter.testing import FakeClock, ProviderEmulator
from adaptive_rate_limiter.testing.limits import TokenBucket

REFUSALS = {
    "rate_limit": (429, {"retry-after": "2"}, {"error": {"message": "slow down"}}),
    "overload": (529, {}, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "concurrency": (429, {}, {"error": {"message": "Too many concurrent requests"}}),
    "quota_exhausted": (
        429,
        {"retry-after": "9"},
        {"error": {"message": "Rate limit reached on tokens per day (TPD)"}},
    ),
}
GROWING = {
    *(metric.name for metric in COUNTERS),
    *(WAITS.name + end for end in ("_bucket", "_sum", "_count")),
}
REASON = {"retry-after": "retry_after"} | REASONS


def test_a_run_against_a_provider_adds_up(registry):
    """Real requests, at most ten a second, two of which fail at first."""
    limiter = Limiter(quotas=Quota("requests", 600, 60.0, burst=10))
    export_metrics(limiter, registry=registry)
    faults = [None] * 12 + [503, None, 503]
    with (
        ProviderEmulator(requests_per_minute=1200, latency=0.01, faults=faults) as provider,
        httpx.Client() as client,
        observe_http(),  # which changes nothing for who observes by hand
    ):

        def call(_):
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
            with limiter.acquire("gpt-4o", input_tokens=5, output_tokens=20) as reservation:
                while True:
                    reply = client.post(f"{provider.base_url}/chat/completions", json=body)
                    reservation.observe(reply.status_code, reply.headers, reply.text)
                    if reply.is_success:
                        used = reply.json()["usage"]
                        reservation.settle(
                            input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"]
                        )
                        return reservation.waited, used["total_tokens"]
                    reservation.readmit()

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(call, range(30)))
        stats = provider.stats()
    seen = Scrape(registry)
    assert seen.one("calls_admitted_total") == stats.admitted + stats.faults == 32
    assert seen.by("calls_refused_total", "kind") == {"overload": 2}
    assert seen.by("calls_ended_total", "outcome") == {
        "settled": 30, "refused": 2, "cancelled": 0, "unknown": 0, "moved": 0,
    }  # fmt: skip
    waited = sum(seconds for seconds, _ in outcomes)
    assert waited > 2  # ten go at once, then one each 0.1 s
    assert seen.one("wait_seconds_sum") == pytest.approx(waited, rel=0.2)  # a caller wakes up a little later
    assert seen.one("wait_seconds_count") == 32
    reserved, used = seen.one("units_reserved_total", unit="tokens"), sum(tokens for _, tokens in outcomes)
    off = seen.by("estimate_error_tokens_total", "direction")
    assert reserved == 32 * 25
    assert 30 * 25 - off["over"] + off["under"] == used
    limits = seen.by("limit_units", "unit", "window", "source")
    assert limits == {("requests", "1m", "stated"): 600, ("requests", "1m", "told"): 1200}
    assert seen.one("pauses_total", reason="overload") >= 1
    assert seen.one("calls_in_flight") == seen.one("calls_waiting") == 0


class Books:
    """What a caller of the limiter sees for itself."""

    def __init__(self):
        self.open, self.waiting = [], []
        self.admitted = self.rejected = self.withdrawn = 0
        self.ended, self.refused, self.waits, self.waited = Counter(), Counter(), Counter(), Counter()
        self.tokens = Counter()

    def let_in(self, reservation, tokens):
        self.admitted += 1
        self.tokens["reserved"] += tokens
        self.open.append((reservation, tokens))
        if reservation.wait_reason is not None:
            reason = reservation.wait_reason.partition(" of ")[0]
            self.waits[REASON.get(reason, reason)] += 1
            self.waited[REASON.get(reason, reason)] += reservation.waited

    def collect(self):
        for task, tokens in self.waiting:
            if task.cancelled():
                self.withdrawn += 1
            elif task.done() and task.exception() is not None:
                assert isinstance(task.exception(), CapacityExceededError)
                self.rejected += 1
            elif task.done():
                self.let_in(task.result(), tokens)
        self.waiting = [(task, tokens) for task, tokens in self.waiting if not task.done()]

    def check(self, scrape):
        assert scrape.one("calls_admitted_total") == self.admitted
        assert scrape.one("calls_rejected_total") == self.rejected
        assert scrape.one("calls_withdrawn_total") == self.withdrawn
        assert scrape.by("calls_refused_total", "kind") == self.refused
        assert scrape.one("calls_waiting") == len(self.waiting)
        assert scrape.one("calls_in_flight") == len(self.open)
        assert +Counter(scrape.by("calls_ended_total", "outcome")) == self.ended
        waits = scrape.by("wait_seconds_count", "reason")
        assert waits.pop("none") == self.admitted - self.waits.total()
        assert waits == self.waits
        seconds = scrape.by("wait_seconds_sum", "reason")
        assert seconds.pop("none") == 0
        assert seconds == pytest.approx(self.waited)
        assert scrape.one("units_reserved_total", unit="tokens") == pytest.approx(self.tokens["reserved"])
        off = scrape.by("estimate_error_tokens_total", "direction")
        assert off == pytest.approx({"over": self.tokens["over"], "under": self.tokens["under"]})


STEPS = st.one_of(
    st.tuples(st.just("acquire"), st.integers(0, 400), st.sampled_from([None, 0.0, 3.0])),
    st.tuples(st.just("acquire"), st.just(5000), st.none()),
    st.tuples(st.just("record"), st.integers(0, 400), st.none()),
    st.tuples(st.just("advance"), st.floats(0.0, 20.0), st.none()),
    st.tuples(
        st.sampled_from(["settle", "cancel", "lapse", "withdraw"]), st.integers(0, 9), st.integers(0, 400)
    ),
    st.tuples(st.just("refuse"), st.integers(0, 9), st.sampled_from(sorted(REFUSALS))),
)


async def turn():
    for _ in range(8):
        await asyncio.sleep(0)


async def pass_time(clock, until):
    """Whoever is let in sees the instant at which it was."""
    while (due := clock.next_due()) is not None and due <= until:
        clock.advance(max(0.0, due - clock.now()))
        await turn()
    clock.advance(until - clock.now())


async def drive(steps, limiter, clock, books, look):
    for what, number, detail in steps:
        if what == "acquire":
            task = asyncio.ensure_future(limiter.aacquire("m", number, timeout=detail))
            books.waiting.append((task, number))
        elif what == "record":
            books.let_in(limiter.record("m", number), number)
        elif what == "advance":
            await pass_time(clock, clock.now() + number)
        elif what == "withdraw" and books.waiting:
            books.waiting[number % len(books.waiting)][0].cancel()
        elif what != "withdraw" and books.open:
            reservation, reserved = books.open.pop(number % len(books.open))
            if what == "settle":
                assert reservation.settle(tokens=detail)
                books.tokens["over" if reserved > detail else "under"] += abs(reserved - detail)
                books.ended["settled"] += 1
            elif what == "refuse":
                assert reservation.observe(*REFUSALS[detail]).refusal.kind == detail
                books.refused[detail] += 1
                books.ended["refused"] += 1
            else:
                assert getattr(reservation, what)()
                books.ended["cancelled" if what == "cancel" else "unknown"] += 1
        await turn()
        books.collect()
        look()
    for task, _ in books.waiting:
        task.cancel()
    await turn()


@given(st.lists(STEPS, min_size=10, max_size=60))
def test_every_scrape_agrees_with_what_the_callers_saw(steps):
    clock, registry, books = FakeClock(), CollectorRegistry(), Books()
    limiter = Limiter(
        quotas=[Quota("requests", 60, 60.0, burst=3), Quota("tokens", 1000)], max_pause=30, clock=clock
    )
    export_metrics(limiter, registry=registry)
    before = {}

    def look():
        nonlocal before
        scrape = Scrape(registry)
        if scrape.one("buckets"):
            books.check(scrape)
        growing = {key: value for key, value in scrape.samples.items() if key[0] in GROWING}
        assert all(growing[key] >= value for key, value in before.items())
        before = growing

    asyncio.run(drive(steps, limiter, clock, books, look))


async def test_a_line_and_its_limits_as_they_are_now(clock, turn, registry, scrape):
    limiter = Limiter(quotas=[Quota("requests", 60, 60.0, burst=10)], max_concurrency=20, clock=clock)
    export_metrics(limiter, registry=registry)
    tasks = [asyncio.ensure_future(limiter.aacquire("m", 10)) for _ in range(14)]
    await turn()
    clock.advance(0.5)
    seen = scrape()
    labels = {"unit": "requests", "window": "1m", "source": "stated"}
    assert {name: seen.one(name) for name in ("calls_waiting", "calls_in_flight", "calls_in_flight_max")} == {
        "calls_waiting": 4, "calls_in_flight": 10, "calls_in_flight_max": 20,
    }  # fmt: skip
    assert seen.one("oldest_wait_seconds") == 0.5
    assert seen.one("line_eta_seconds") == pytest.approx(3.5)
    assert seen.one("limit_units", **labels) == seen.one("limit_window_seconds", **labels) == 60
    assert seen.one("limit_remaining_units", **labels) == pytest.approx(0.5)
    assert seen.one("limit_level_ratio", **labels) == pytest.approx(0.05)
    assert seen.one("line_held_back_seconds_total", reason="requests") == pytest.approx(0.5)
    tasks[0].result().observe(529, {"retry-after": "8"})
    assert 8 <= scrape().one("pause_remaining_seconds") <= 10
    for task in tasks[10:]:
        task.cancel()
    await turn()


def test_a_limit_told_its_changes_and_the_use_of_others(clock, registry, scrape):
    limiter = Limiter(clock=clock)
    export_metrics(limiter, registry=registry)
    provider = TokenBucket(600, 60.0)
    for call in range(80):
        if call == 40:
            provider.set_limit(1200, clock.now())
        provider.charge(4, clock.now())  # one is ours, three are somebody else's
        reservation = limiter.record("m")
        reservation.observe(
            200,
            {
                "x-ratelimit-limit-requests": str(provider.limit),
                "x-ratelimit-remaining-requests": str(int(provider.remaining(clock.now()))),
                "x-ratelimit-reset-requests": f"{provider.reset_after(clock.now()):.3f}s",
            },
        )
        reservation.settle()
        clock.advance(0.3)
    seen = scrape()
    assert seen.by("limit_changes_total", "unit", "change") == {
        ("requests", "learned"): 1,
        ("requests", "raised"): 1,
    }
    assert seen.one("limit_units", source="told") == 1200
    by_others = seen.one("units_used_by_others_total", unit="requests", window="1m")
    assert by_others == pytest.approx(240, rel=0.05)


def test_a_forked_child_counts_what_its_parent_has_in_flight_as_unknown(clock, registry, scrape):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    export_metrics(limiter, registry=registry)
    for _ in range(3):
        limiter.acquire("m").settle()
    running = [limiter.acquire("m") for _ in range(2)]
    bucket = running[0].bucket
    bucket.before_fork()
    bucket.after_fork_in_child()
    seen = scrape()
    assert seen.by("calls_ended_total", "outcome") == {
        "settled": 3, "unknown": 2, "cancelled": 0, "refused": 0, "moved": 0,
    }  # fmt: skip
    assert seen.one("calls_in_flight") == 0
