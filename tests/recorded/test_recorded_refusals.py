"""The six kinds of refusal ask for six behaviours; each recorded one is met by its own."""

import asyncio
import json
import time
from datetime import datetime, timezone
from itertools import pairwise

import pytest
from tests.recorded.cassettes import request_of
from tests.recorded.expected import (
    CONCURRENCY,
    LIMITS,
    NOT_ENTITLED,
    OVERLOAD,
    PACE,
    REFUSALS,
    SPENT,
    TOO_LARGE,
)

from adaptive_rate_limiter import CapacityExceededError, Forecast
from adaptive_rate_limiter.core.windows import BINS

ON_THE_WIRE = [case for case in REFUSALS if case != "huggingface/429-ietf-draft"]  # that one refuses a read
TIMED = {case: seconds for case, seconds in PACE.items() if seconds is not None}
UNTIMED = [case for case, seconds in PACE.items() if seconds is None]
BIN = 60.0 / BINS + 1e-6  # seconds by which what a sliding window returns may be late
SLIDING = "a sliding window stays plausible, so a whole window is waited for instead of the told seconds"
HOUR, DAY = 3600, 86_400


@pytest.fixture(autouse=True)
def two_hours_before_the_told_end(monkeypatch):
    """One recording tells an instant, 07:41:44 in Beijing, and has no Date to count from."""
    now = datetime(2026, 8, 24, 21, 41, 44, tzinfo=timezone.utc).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refused_call_ends_and_is_counted(case, caller):
    await caller.send(case)
    assert (caller.bucket.admitted, caller.bucket.refused, caller.bucket.in_flight) == (1, 1, 0)


# Pace: wait as long as is told, else a little, and longer each time


@pytest.mark.parametrize(
    "case",
    TIMED,
)
async def test_the_next_call_goes_when_the_provider_says(case, caller):
    await caller.send(case)
    assert caller.bucket.paused_for == pytest.approx(TIMED[case])
    assert await caller.wait() == pytest.approx(TIMED[case], abs=0.5)


@pytest.mark.parametrize(
    "case",
    [case for case in TIMED if case in ON_THE_WIRE],
)
async def test_a_retry_is_held_back_as_long(case, caller):
    assert await caller.insist(case, 2) == [0, pytest.approx(TIMED[case], abs=0.5)]


@pytest.mark.parametrize("case", UNTIMED)
async def test_a_retry_without_a_told_time_is_held_back_and_each_further_one_no_less(case, caller):
    first, *waits = await caller.insist(case, 7)
    assert first == 0
    assert 0.5 <= waits[0] <= 61  # a first refusal tells little, except where it tells a minute's limit
    assert all(later >= earlier - BIN for earlier, later in pairwise(waits))
    assert waits[-1] >= 10


@pytest.mark.parametrize("case", [case for case in UNTIMED if case not in LIMITS])
async def test_a_refusal_without_a_time_stops_nobody_for_long(case, caller):
    """One refusal does not tell a limit: others are not made to wait for a minute."""
    await caller.send(case)
    assert 0 < await caller.wait() <= 2


# Concurrency: fewer in flight, cured by an end and not by time


@pytest.mark.parametrize(
    "case",
    CONCURRENCY,
)
async def test_after_a_concurrency_refusal_a_call_goes_when_another_ends(case, caller, turns):
    model = json.loads(request_of(case)["body"])["model"]
    others = [(await caller.finish(caller.limiter.aacquire(model)))[0] for _ in range(CONCURRENCY[case])]
    await caller.send(case)
    waiting = asyncio.ensure_future(caller.limiter.aacquire(model))
    await turns()
    caller.clock.advance(DAY)
    await turns()
    assert not waiting.done()
    while not waiting.done():
        others.pop().settle(tokens=1)
        await turns()
    assert caller.bucket.in_flight <= CONCURRENCY[case]


@pytest.mark.parametrize("case", CONCURRENCY)
async def test_a_concurrency_refusal_teaches_no_rate(case, caller):
    await caller.send(case)
    assert caller.bucket.limits == ()
    assert caller.limiter.forecast(requests=10**6) == Forecast(None, None)


@pytest.mark.parametrize("case", CONCURRENCY)
async def test_a_concurrency_refusal_of_the_only_call_is_not_tried_again_at_once(case, caller):
    """Somebody else holds the slots: nothing of ours can end, so only time is left."""
    _, *waits = await caller.insist(case, 4)
    assert all(seconds > 0 for seconds in waits)


# Overload: back off, and learn no limit


@pytest.mark.parametrize("case", OVERLOAD)
async def test_an_overloaded_provider_is_left_alone_for_longer_each_time(case, caller):
    waits = await caller.insist(case, 5)
    assert [round(seconds) for seconds in waits[:1]] == [0]
    for least, seconds in zip([1, 2, 4, 8], waits[1:], strict=True):
        assert least <= seconds <= 1.25 * least


@pytest.mark.parametrize("case", OVERLOAD)
async def test_an_overload_teaches_no_limit(case, caller):
    await caller.send(case)
    assert caller.bucket.limits == ()
    caller.clock.advance(2)
    assert caller.limiter.forecast(requests=10**6) == Forecast(None, None)
    assert await caller.wait() == 0


# A spent quota: stop, and say until when


@pytest.mark.parametrize("case", SPENT)
async def test_behind_a_spent_quota_a_call_is_refused_at_once_and_told_when(case, caller):
    await caller.send(case)
    with pytest.raises(CapacityExceededError, match="quota exhausted") as refused:
        await caller.wait()
    assert refused.value.bucket_id == caller.bucket.bucket_id
    assert caller.clock.now() == 0
    if SPENT[case] is None:  # asked again in a while, for nothing tells the end
        assert HOUR <= refused.value.retry_after <= 1.01 * DAY
    else:
        assert refused.value.retry_after == pytest.approx(SPENT[case])


@pytest.mark.parametrize("case", SPENT)
async def test_a_call_that_met_a_spent_quota_is_not_sent_again(case, caller):
    assert await caller.insist(case, 4) == [0]


@pytest.mark.parametrize("case", [case for case, seconds in SPENT.items() if seconds])
async def test_when_the_told_time_is_over_calls_go_again(case, caller):
    await caller.send(case)
    caller.clock.advance(SPENT[case] - 1)
    assert await caller.wait() == pytest.approx(1)
    assert await caller.wait() == 0


@pytest.mark.parametrize("max_pause", [432, 86_400])
async def test_who_allows_so_long_a_pause_waits_it_out(caller):
    await caller.send("openai/429-rpd-7m12s")
    assert await caller.wait() == pytest.approx(432)


async def test_an_end_that_has_passed_is_no_invitation_to_try_again_at_once(caller, monkeypatch):
    """This machine's clock may be ahead of the provider's."""
    now = time.time() + HOUR * 3
    monkeypatch.setattr(time, "time", lambda: now)
    _, *waits = await caller.insist("zai/429-1308-chinese", 4)
    assert all(seconds > 0 for seconds in waits)


# Too large, or not entitled: at once and for good, and nobody else is held up


@pytest.mark.parametrize("case", [*TOO_LARGE, *NOT_ENTITLED])
async def test_what_no_wait_cures_is_never_sent_again(case, caller):
    assert await caller.insist(case, 4) == [0]


@pytest.mark.parametrize("case", [*TOO_LARGE, *NOT_ENTITLED])
async def test_what_one_call_may_not_do_holds_up_no_other(case, caller):
    await caller.send(case)
    assert caller.bucket.limits == ()
    assert caller.bucket.paused_for == 0
    assert await caller.wait(tokens=100) == 0
    assert caller.limiter.forecast(requests=10**6) == Forecast(None, None)
