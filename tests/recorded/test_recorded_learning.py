"""What a limiter has learned from one recorded response, and what it lets go next."""

import math
import re

import httpx
import httpx2
import pytest
from tests.recorded.cassettes import recording, replay, request_of
from tests.recorded.expected import LIMITS, REFUSALS, SILENT

from adaptive_rate_limiter import CapacityExceededError, Forecast
from adaptive_rate_limiter.http import AdaptiveTransport

JITTER = 0.3  # seconds of refill that the limiter keeps back, since sends overtake each other
ROUNDING = 500  # of Anthropic's tokens, told in thousands
MOST = 2000  # requests that a test really sends
GRACE = 1.01  # of a window: what the bins of a sliding window add
CUT = 1.11  # seconds: a reset in whole ones may be one later, and so may the end of a window

SUCCESSES = [case for case in LIMITS if case not in REFUSALS]


def counted(case):
    """The shortest limit on requests that the recording tells with a remaining; None if there is none."""
    told = [told for told in LIMITS[case] if told.unit == "requests" and told.remaining is not None]
    return min(told, key=lambda told: told.window, default=None)


COUNTED = [case for case in SUCCESSES if counted(case)]
SMALL = [case for case in COUNTED if counted(case).remaining <= MOST]
SIZED = [case for case in LIMITS if any(told.unit == "tokens" for told in LIMITS[case])]


def guard(told):
    """What is kept back of it because sends overtake each other."""
    return JITTER * told.limit / told.window


def used_by(case):
    """Tokens of the recorded call. At its end they are charged, whatever the header had counted by then."""
    body = recording(case)["interactions"][0]["response"]["body"]["string"]
    return max(map(int, re.findall(r'_tokens": (\d+)', body)), default=0)


def pairs(case, bucket):
    """Each told limit with the snapshot's."""
    learned = sorted(bucket.limits, key=lambda limit: (limit.unit, limit.window))
    return zip(sorted(LIMITS[case], key=lambda told: (told.unit, told.window)), learned, strict=True)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("case", LIMITS)
async def test_the_limits_that_a_response_tells_are_learned(case, caller):
    await caller.send(case)
    for told, learned in pairs(case, caller.bucket):
        assert (learned.unit, learned.limit, learned.window) == told[:3]
        assert learned.source == "told"
    assert caller.bucket.in_flight == 0


@pytest.mark.parametrize("case", [case for case in SUCCESSES if request_of(case)["method"] == "POST"])
def test_a_client_without_an_event_loop_learns_the_same(case, limiter):
    request = request_of(case)
    with replay(case), httpx.Client(transport=AdaptiveTransport(limiter)) as client:
        client.post(request["uri"], content=request["body"])
    (bucket,) = limiter.snapshot().buckets
    for told, learned in pairs(case, bucket):
        assert (learned.unit, learned.limit, learned.window) == told[:3]


@pytest.mark.parametrize(
    "case",
    LIMITS,
)
async def test_no_more_is_left_than_was_told(case, caller):
    await caller.send(case)
    for told, learned in pairs(case, caller.bucket):
        if told.remaining is not None:
            whole = math.floor(learned.remaining) if told.unit == "requests" else learned.remaining
            assert whole <= told.remaining + (ROUNDING if case.startswith("anthropic/") else 0)


@pytest.mark.parametrize("case", SUCCESSES)
async def test_nearly_all_that_was_told_is_left(case, caller):
    await caller.send(case)
    for told, learned in pairs(case, caller.bucket):
        left = told.limit - 1 if told.remaining is None else told.remaining
        spent = 0 if told.unit == "requests" else used_by(case) + ROUNDING
        assert learned.remaining >= left - guard(told) - spent - 1e-6


@pytest.mark.parametrize(
    "case",
    SUCCESSES,
)
async def test_the_next_call_goes_at_once(case, caller):
    await caller.send(case)
    assert await caller.wait() == 0
    assert caller.bucket.paused_for == 0


@pytest.mark.parametrize("case", COUNTED)
async def test_a_forecast_of_what_is_left_is_now(case, caller):
    await caller.send(case)
    told = counted(case)
    left = max(1, math.floor(told.remaining - guard(told)))
    assert caller.limiter.forecast(requests=left).seconds == 0


@pytest.mark.parametrize(
    "case",
    COUNTED,
)
async def test_a_forecast_of_more_than_is_left_is_within_a_window(case, caller):
    await caller.send(case)
    told = counted(case)
    more = caller.limiter.forecast(requests=told.remaining + 1)
    assert more.binds == "requests"
    assert 0 < more.seconds <= GRACE * told.window + CUT


@pytest.mark.parametrize("case", SMALL)
async def test_what_is_left_goes_at_once_and_the_next_waits_for_a_window_at_the_most(case, caller):
    await caller.send(case)
    told = counted(case)
    gone = caller.going(MOST)
    assert math.floor(told.remaining - guard(told)) <= len(gone) <= told.remaining
    assert 0 < await caller.ready_in() <= GRACE * told.window + CUT


@pytest.mark.parametrize("case", SIZED)
async def test_a_call_above_a_whole_limit_is_refused_at_once_for_good(case, caller):
    await caller.send(case)
    smallest = min(told.limit for told in LIMITS[case] if told.unit == "tokens")
    with pytest.raises(CapacityExceededError, match="can never pass") as refused:
        await caller.wait(tokens=smallest + 1)
    assert refused.value.retry_after is None


@pytest.mark.parametrize("case", SILENT)
async def test_what_is_no_limit_teaches_none(case, caller):
    await caller.send(case)
    assert caller.bucket.limits == ()
    assert caller.limiter.forecast(requests=10**6) == Forecast(None, None)
    assert await caller.wait() == 0
