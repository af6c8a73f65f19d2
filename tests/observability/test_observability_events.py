"""What is rare is said: once, with its figures, to the log and to whoever subscribed, with no lock held."""

import asyncio
import itertools
import logging
import threading

import httpx
import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter, Quota
from adaptive_rate_limiter.backends.waking import ThreadWaker
from adaptive_rate_limiter.core.events import SENTENCES, Events
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.observability import Event

SECRET = "sk-very-secret-key"
PROMPT = "the prompt of somebody"
PATIENCE = 10.0


def headers(limit, remaining):
    return {"x-ratelimit-limit-requests": str(limit), "x-ratelimit-remaining-requests": str(remaining)}


def said(events):
    return [(event.name, event.fields) for event in events]


def test_a_limit_is_learned_and_changes(clock, heard):
    limiter = Limiter(clock=clock)
    for limit in (600, 600, 300, 900):
        clock.advance(2)
        reservation = limiter.acquire("m")
        reservation.observe(200, headers(limit, limit - 1))
        reservation.settle()
    learned = {"unit": "requests", "limit": 600, "window": 60, "source": "headers"}
    assert said(heard) == [
        ("limit_learned", learned),
        ("limit_changed", learned | {"limit": 300, "limit_before": 600, "window_before": 60}),
        ("limit_changed", learned | {"limit": 900, "limit_before": 300, "window_before": 60}),
    ]
    assert [event.at for event in heard] == [2, 6, 8]
    assert [str(event) for event in heard] == [
        "default/m: limit of 600 requests per 60 s, from headers",
        "default/m: limit of 300 requests per 60 s, from headers; it was 600 per 60 s",
        "default/m: limit of 900 requests per 60 s, from headers; it was 300 per 60 s",
    ]


def test_a_limit_that_changes_with_every_response_is_said_once_a_second(clock, heard):
    limiter = Limiter(clock=clock)
    for call in range(200):
        reservation = limiter.record("m")
        reservation.observe(200, headers(600 + call, 500))
        reservation.settle()
        clock.advance(0.1)
    changes = [event for event in heard if event.name == "limit_changed"]
    assert 15 <= len(changes) <= 20
    for before, after in itertools.pairwise(changes):  # none is missed in between
        assert after.fields["limit_before"] == before.fields["limit"]


def test_a_refusal_a_pause_and_its_end(clock, heard):
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    limiter.acquire("m").observe(529, {"retry-after": "20"})
    clock.advance(30)
    assert said(heard)[:1] == [("refused", {"kind": "overload", "unit": None, "retry_after": 20})]
    (pause,) = [event for event in heard if event.name == "paused"]
    assert pause.fields["reason"] == "provider overloaded"
    assert 20 <= pause.fields["seconds"] <= 25  # jitter adds up to a quarter
    assert [event.name for event in heard] == ["refused", "paused"]  # it is over when a call goes
    limiter.acquire("m").settle()
    assert said(heard)[2:] == [("resumed", {"reason": "provider overloaded", "seconds": 30})]
    limiter.acquire("m").settle()
    assert len(heard) == 3


def test_a_pause_that_turns_out_much_longer_is_said_again(clock, heard):
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    running = [limiter.acquire("m") for _ in range(4)]
    for reservation, seconds in zip(running, (10, 12, 100, 90), strict=True):
        reservation.observe(429, {"retry-after": str(seconds)}, {"error": {"message": "slow down"}})
        clock.advance(1.5)
    assert [event.fields["seconds"] for event in heard if event.name == "paused"] == [10, 100]


async def test_the_limiters_own_refusals(clock, turn, heard):
    limiter = Limiter(
        quotas=[Quota("requests", 60, 60.0, burst=1), Quota("tokens", 1000)], max_pause=30, clock=clock
    )
    with pytest.raises(CapacityExceededError):
        limiter.acquire("m", tokens=2000)
    limiter.acquire("m", tokens=10).settle()
    with pytest.raises(CapacityExceededError):
        limiter.acquire("m", timeout=0.5)
    waiting = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(50)]
    await turn()
    limiter.record("m").observe(429, {"retry-after": "100"}, {"error": {"message": "slow down"}})
    await turn()
    assert said(event for event in heard if event.name == "rejected") == [
        ("rejected", {"reason": "too_large", "limit": "tokens", "retry_after": None}),
        ("rejected", {"reason": "deadline", "limit": "the limit", "retry_after": pytest.approx(1)}),
        ("rejected", {"reason": "max_pause", "limit": "retry-after", "retry_after": 100}),
    ]
    assert heard[-1].count == 50  # all that waited are sent away at once, and that is one line
    assert str(heard[-1]).endswith("not let in: max_pause (retry-after, retry after 100 s) (50 times)")
    with pytest.raises(CapacityExceededError):
        await asyncio.gather(*waiting)


def test_a_refusal_that_no_known_limit_explains(clock, heard):
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    for _ in range(4):
        limiter.record("m").observe(429, {}, {"error": {"message": "Rate limit reached"}})
        clock.advance(30)
    names = [event.name for event in heard]
    assert names.count("refused") == 4
    assert names.count("limit_contradicted") == 3  # from then on another limit is looked for
    assert ("limit_contradicted", {"unit": None, "retry_after": None}) in said(heard)
    assert [event.fields["reason"] for event in heard if event.name == "paused"][:1] == [
        "a refusal that no header explains"
    ]


def test_a_limit_that_only_refusals_tell(clock, heard):
    """60 a minute, ten at once, never told."""
    limiter = Limiter(clock=clock)
    level, at = 10.0, 0.0
    for _ in range(3000):
        reservation = limiter.try_acquire("m")
        if reservation is not None:
            level, at = min(10.0, level + clock.now() - at), clock.now()
            passed = level >= 1
            level -= passed
            reservation.observe(
                200 if passed else 429, {}, None if passed else {"error": {"message": "Rate limit"}}
            )
            reservation.settle()
        clock.advance(0.1)
    told = [event for event in heard if event.fields.get("source") == "refusals"]
    assert [event.name for event in told][:1] == ["limit_learned"]
    assert told[-1].fields["unit"] == "requests"
    assert told[-1].fields["limit"] == pytest.approx(60, rel=0.25)
    assert {event.name for event in told[1:]} <= {"limit_changed"}


async def test_a_line_that_is_long_is_said(clock, turn, heard):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    tasks = [asyncio.ensure_future(limiter.aacquire("m")) for _ in range(160)]
    await turn()
    (event,) = heard
    assert event.fields == {"waiting": 100, "limit": "requests", "seconds": pytest.approx(100)}
    assert str(event) == "default/m: 100 calls wait for requests; the last goes in about 2 min"
    for task in tasks:
        task.cancel()
    await turn()


# To whom, and how


def test_the_same_again_within_a_second_is_counted_in_the_next():
    events = Events("b")
    for now in (0.0, 0.2, 0.9, 1.0, 1.5, 2.5):
        events.add("refused", "overload", now, kind="overload")
        events.add("refused", "overload", now, kind="overload")  # of one step, both are said together
        if now == 0.2:
            events.add("refused", "rate_limit", now, kind="rate_limit")  # another kind is another matter
        told = [(event.fields["kind"], event.count) for event in events.take()]
        assert told == {
            0.0: [("overload", 2)],
            0.2: [("rate_limit", 1)],
            1.0: [("overload", 6)],
            2.5: [("overload", 4)],
        }.get(now, [])


def test_log_records_have_the_figures(clock, caplog):
    caplog.set_level(logging.DEBUG, logger="adaptive_rate_limiter")
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    limiter.acquire("m").observe(
        429,
        {},
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
    )
    refused, paused = caplog.records
    assert (refused.name, refused.levelname, refused.event) == ("adaptive_rate_limiter", "WARNING", "refused")
    assert (refused.bucket_id, refused.kind, refused.retry_after, refused.count) == (
        "default/m", "quota_exhausted", None, 1,
    )  # fmt: skip
    assert (paused.levelname, paused.event, paused.seconds) == ("DEBUG", "paused", 3600)


@pytest.mark.parametrize("name", SENTENCES)
def test_no_figure_has_a_name_that_a_log_record_has_already(name):
    fields = {word.partition("}")[0] for word in SENTENCES[name].split("{")[1:]}
    assert not fields & set(vars(logging.makeLogRecord({})))
    assert not {"event", "bucket_id", "count", "message", "asctime"} & fields


def test_a_subscriber_that_fails_reaches_nobody(clock, heard, listen, caplog):
    def fail(event):
        raise ValueError("mine")

    unsubscribe = listen(fail)
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    limiter.acquire("m").observe(529, {"retry-after": "1"})
    unsubscribe()
    limiter.acquire("another").observe(529, {"retry-after": "1"})
    assert [event.name for event in heard] == ["refused", "paused"] * 2
    failed = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert failed == ["a subscriber failed on refused", "a subscriber failed on paused"]


def test_who_subscribes_twice_hears_twice_and_ends_each_by_itself(clock, listen):
    events = []
    first, second = listen(events.append), listen(events.append)
    limiter = Limiter(clock=clock)
    heard = []
    for model, end in (("a", lambda: None), ("b", first), ("c", first), ("d", second)):
        end()
        limiter.acquire(model).observe(200, headers(60, 59))
        heard.append(len(events))
    assert heard == [2, 3, 4, 4]


def test_no_lock_is_held_when_a_subscriber_is_called(clock, listen):
    """It may use the limiter, and so may others at the time."""
    limiter = Limiter(quotas={"requests": 6000}, clock=clock)
    looked = []

    def look(event):
        thread = threading.Thread(target=lambda: looked.append((event.name, limiter.snapshot())), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        limiter.record("m").settle()

    listen(look)
    limiter.acquire("m").observe(200, headers(60, 59))
    limiter.acquire("m").observe(529, {"retry-after": "500"})
    with pytest.raises(CapacityExceededError):
        limiter.acquire("m")
    assert [name for name, _ in looked] == ["limit_learned", "refused", "paused", "rejected"]


async def test_who_waits_is_woken_before_a_subscriber_is_called(clock, turn, listen):
    limiter = Limiter(quotas=[Quota("requests", 60, 60.0, burst=1)], max_pause=10, clock=clock)
    limiter.acquire("m").settle()
    waiting = asyncio.ensure_future(limiter.aacquire("m"))
    await turn()
    (call,) = limiter.routes.buckets()[0].bucket.queue.calls()
    woken = []
    listen(lambda event: woken.append((event.name, call.wake.done())))
    limiter.record("m").observe(429, {"retry-after": "60"}, {"error": {"message": "slow down"}})
    assert woken == [("refused", True), ("paused", True), ("rejected", True)]
    with pytest.raises(CapacityExceededError):
        await waiting


def test_a_step_within_a_look_is_put_off_until_it_is_over(clock, heard):
    """The garbage collector ends what was lost wherever it runs: in the middle of a report, for one."""
    limiter = Limiter(quotas={"requests": 600}, clock=clock)
    reservation = limiter.acquire("m")
    reservation.observe(529, {"retry-after": "1"})
    clock.advance(5)
    heard.clear()
    bucket = reservation.bucket

    def look(core, now):
        assert limiter.try_acquire("m")  # as if within __del__
        assert reservation.lapse()
        return core.account.admitted, list(heard)

    assert bucket.look(look) == (1, [])
    clock.advance(0)
    assert [event.name for event in heard] == ["resumed"]
    assert limiter.snapshot().buckets[0].in_flight == 1


def test_what_a_step_cannot_say_because_another_thread_looks_that_one_says(clock, heard):
    limiter = Limiter(quotas=[Quota("requests", 60, 60.0, burst=1)], max_pause=10, clock=clock)
    running = limiter.acquire("m")
    bucket = running.bucket
    looks, may_go = threading.Event(), threading.Event()

    def view(core, now):
        looks.set()
        assert may_go.wait(PATIENCE)

    looker = threading.Thread(target=lambda: bucket.look(view), daemon=True)

    class Woken(ThreadWaker):
        def wake(self):  # between the step and its events
            super().wake()
            looker.start()
            assert looks.wait(PATIENCE)

    call = Call({"requests": 1.0}, since=clock.now())
    assert bucket.submit(call, Woken) is False
    running.observe(429, {"retry-after": "60"}, {"error": {"message": "slow down"}})
    assert call.error is not None
    assert heard == []
    may_go.set()
    looker.join(PATIENCE)
    assert [event.name for event in heard] == ["refused", "paused", "rejected"]


def test_nothing_private_is_said(clock, heard, caplog):
    caplog.set_level(logging.DEBUG)
    limiter = Limiter(quotas={"tokens": 1000}, clock=clock)
    reservation = limiter.acquire("m", prompt=PROMPT, tenant="somebody@example.com")
    reservation.begin_send(
        httpx.URL("https://user:password@api.example.com/v1/chat/completions"), f"Bearer {SECRET}".encode()
    )
    reservation.observe(
        429, {"retry-after": "500", "x-request-id": "abc"}, {"error": {"message": PROMPT + SECRET}}
    )
    for options in ({"prompt": PROMPT * 400}, {"tokens": 5000}, {"timeout": 0}):
        with pytest.raises(CapacityExceededError):
            limiter.acquire("m", tenant="somebody@example.com", **options)
    assert {event.name for event in heard} == {"refused", "limit_contradicted", "paused", "rejected"}
    shown = "\n".join(
        [*map(repr, heard), *map(str, heard), *(repr(vars(record)) for record in caplog.records)]
    )
    for private in (SECRET, PROMPT, "password", "somebody"):
        assert private not in shown


def test_an_event_is_a_value():
    event = Event("refused", "b", 1.0, {"kind": "overload", "unit": None, "retry_after": 0.25})
    assert event == Event("refused", "b", 1.0, {"kind": "overload", "unit": None, "retry_after": 0.25})
    assert str(event) == "b: the provider refused: overload (unit: ?, retry after 0.25 s)"
    with pytest.raises(AttributeError):
        event.name = "other"
