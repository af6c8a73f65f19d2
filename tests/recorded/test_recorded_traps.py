"""What recordings show that a limiter must not be misled by, in what it learns and in what it does next."""

import httpx
import pytest
from tests.recorded.cassettes import recording, replay, request_of
from tests.recorded.expected import LIMITS

from adaptive_rate_limiter import CapacityExceededError
from adaptive_rate_limiter.http import AsyncAdaptiveTransport


def limits_of(bucket):
    return sorted(
        (limit.unit, limit.limit, limit.window) for limit in bucket.limits if limit.source == "told"
    )


def bucket_of(limiter, part):
    (bucket,) = [
        bucket for bucket in limiter.snapshot().buckets if part in bucket.bucket_id and bucket.admitted
    ]
    return bucket


# A reset says when all is there again: of a bucket it is the time to full, of a window its end


# Where one reply fits a refill it is taken for one. Where it does not, all that may be is waited for.
SHORT = [  # more than is left, and the seconds of the reset that brings all back
    ("groq/200-reset-34m-7-53s", {"tokens": 7400}, 7.532),
    ("groq/200-50000rpd-refill", {"tokens": 29_500}, 1.986),
    ("openai/200-stream-input-images", {"tokens": 29_900}, 1.58),
    ("anthropic/200-stream-thinking-reserve", {"input_tokens": 150_000, "output_tokens": 100}, 21),
]


@pytest.mark.parametrize(("case", "call"), [(case, call) for case, call, _ in SHORT])
async def test_more_than_is_left_waits_and_never_longer_than_a_window(case, call, caller):
    await caller.send(case)
    assert 0 < await caller.wait(**call) <= 61


@pytest.mark.parametrize(("case", "call", "reset"), SHORT)
async def test_more_than_is_left_waits_for_the_reset_at_the_most(case, call, reset, caller):
    await caller.send(case)
    assert 0 < await caller.wait(**call) <= reset + 2


STEADY = [  # sent again and again, each reply as the one before: only a bucket that refills tells that
    ("groq/200-rpd-reset-5h18m", 86.4, 86.4),
    ("groq/200-reset-34m-7-53s", 86.4, 86.4),
    ("openai/200-stream-input-images", 1.6, 0.12),
    ("azure-openai/200-reset-in-seconds", 1.2, 1.2),
]


@pytest.mark.parametrize(("case", "every", "slot"), STEADY)
async def test_a_bucket_that_refills_is_known_by_its_replies_and_its_next_slot_is_waited_for(
    case, every, slot, caller
):
    for _ in range(8):
        await caller.send(case)
        caller.clock.advance(every)
    (requests,) = [limit for limit in caller.bucket.limits if limit.unit == "requests"]
    assert requests.algorithm == "token_bucket"
    gone = caller.going(2000)
    assert len(gone) >= requests.remaining - 1
    gone += [await next_of(caller), await next_of(caller)]
    assert await caller.wait() == pytest.approx(slot, rel=0.02)


async def next_of(caller):
    reservation, _ = await caller.finish(caller.limiter.aacquire(**caller.last))
    return reservation


async def test_a_reset_that_slides_with_each_reply_is_never_waited_for(caller):
    """SambaNova's reset is always a minute, and a day, away: who waited for it would wait for ever."""
    for _ in range(12):
        await caller.send("sambanova/200-stream")
        assert caller.clock.now() % 10 == 0
        caller.clock.advance(10)
    assert 0.9 * 202 <= len(caller.going(300)) <= 202
    assert 0 < await caller.wait() <= 61


@pytest.mark.parametrize(
    "case",
    [
        "anthropic/200-batch-retry-after",
        "anthropic/200-retry-after-8-resets-past",
        "huggingface/router-200-retry-after",
        "huggingface/router-200-together",
        "together/200-59-of-30",
    ],
)
async def test_retry_after_on_a_success_is_no_pause(case, caller):
    response = await caller.send(case)
    assert "retry-after" in response.headers
    assert caller.bucket.paused_for == 0
    assert await caller.wait() == 0


# Figures that are none


@pytest.mark.parametrize(
    ("case", "limit"), [("together/200-59-of-30", 30), ("huggingface/router-200-together", 100)]
)
async def test_more_left_than_the_limit_lets_no_more_go_than_the_limit(case, limit, caller):
    await caller.send(case)
    assert 0.9 * limit <= len(caller.going(300)) <= limit


async def test_a_remaining_that_never_moves_makes_no_call_free(limiter):
    """xAI tells 1800 of 1800 after the call, too: what one has sent oneself is known all the same."""
    response = recording("xai/200-no-reset")["interactions"][0]["response"]
    headers = {name: value for name, (value,) in response["headers"].items()}
    for _ in range(2000):
        reservation = limiter.try_acquire("grok-4.3")
        if reservation is None:
            break
        reservation.observe(200, headers, url=request_of("xai/200-no-reset")["uri"])
        reservation.settle(tokens=1)
    assert limiter.snapshot().buckets[0].admitted <= 1800


async def test_tokens_told_in_thousands_do_not_make_small_calls_free(caller):
    for _ in range(3):
        await caller.send("anthropic/200-2024-fixed-window")
    (tokens,) = [limit for limit in caller.bucket.limits if limit.unit == "tokens"]
    assert 10_000 - 500 - 3 * 37 <= tokens.remaining <= 10_000 - 3 * 37


# What one reply leaves out, it does not take back


@pytest.mark.parametrize(
    ("full", "partial"),
    [
        ("mistral/200-req-720", "mistral/200-stream-no-limits"),
        ("mistral/200-bysize-2025", "mistral/200-stream-no-limits"),
        ("mistral/200-audio-and-tokens", "mistral/429-message-only"),
        ("anthropic/200-retry-after-8-resets-past", "anthropic/529-overloaded"),
        ("openai/200-stream-input-images", "openai/503-envoy-text"),
        ("openai/200-rpd-reset-1h8m", "openai/429-request-too-large"),
        ("github-models/200-2025-shared-pool", "github-models/429-minute"),
        ("groq/200-reset-34m-7-53s", "groq/429-tpm-59-977s"),
    ],
)
async def test_a_reply_that_tells_nothing_wipes_nothing(full, partial, caller):
    await caller.send(full, model="shared")
    learned = limits_of(caller.bucket)
    await caller.send(partial, model="shared")
    assert limits_of(caller.bucket) == learned


@pytest.mark.parametrize(
    ("full", "partial", "kept"),
    [
        ("anthropic/200-stream-thinking-reserve", "anthropic/200-stream-requests-only", "input_tokens"),
        ("mistral/200-audio-and-tokens", "mistral/429-request-rung-only", "audio_seconds"),
        ("mistral/200-req-10-second", "mistral/429-request-rung-only", "tokens"),
        ("openai/200-stream-input-images", "openai/200-rpd-reset-1h8m", "images"),
    ],
)
async def test_a_reply_that_tells_some_limits_keeps_the_others(full, partial, kept, caller):
    await caller.send(full, model="shared")
    before = [limit[:3] for limit in limits_of(caller.bucket) if limit[0] == kept]
    await caller.send(partial, model="shared")
    assert [limit[:3] for limit in limits_of(caller.bucket) if limit[0] == kept] == before
    assert before


async def test_a_stream_without_limits_is_charged_to_those_that_were_told(caller):
    await caller.send("mistral/200-req-720", model="shared")
    left = {limit.unit: limit.remaining for limit in caller.bucket.limits}
    await caller.send("mistral/200-stream-no-limits", model="shared")
    after = {limit.unit: limit.remaining for limit in caller.bucket.limits}
    assert left["requests"] - after["requests"] == pytest.approx(1)
    assert left["tokens"] - after["tokens"] == pytest.approx(187)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cerebras/200-float-seconds", "cerebras/200-intelligence"),
        ("cerebras/200-intelligence", "cerebras/200-float-seconds"),
        ("groq/200-50000rpd-refill", "groq/200-reset-34m-7-53s"),
        ("anthropic/200-2024-fixed-window", "anthropic/429-2024-no-retry-after"),
    ],
)
async def test_a_limit_that_has_moved_is_followed_up_and_down(before, after, caller):
    await caller.send(before, model="shared")
    caller.clock.advance(60)
    await caller.send(after, model="shared")
    assert limits_of(caller.bucket) == sorted(told[:3] for told in LIMITS[after])


# Whose bucket it is


@pytest.mark.parametrize(
    "case", ["replicate/200-get", "huggingface/429-ietf-draft", "anthropic/200-batch-retry-after"]
)
async def test_a_read_is_no_call_and_what_it_tells_binds_none(case, limiter):
    transport = AsyncAdaptiveTransport(limiter, httpx.AsyncHTTPTransport(verify=False))
    async with httpx.AsyncClient(transport=transport) as client:
        with replay(case):
            await client.get(request_of(case)["uri"])
    assert limiter.snapshot().buckets == ()


async def test_reading_and_predicting_have_each_a_quota_of_their_own(caller):
    await caller.send("replicate/200-get")
    await caller.send("replicate/201-prediction", model="shared")
    assert limits_of(bucket_of(caller.limiter, "*")) == [("requests", 2999, 60)]
    assert limits_of(bucket_of(caller.limiter, "shared")) == [("requests", 599, 60)]


async def test_the_limit_that_refuses_is_not_the_one_that_headers_show(caller):
    """The deployment behind has 990 left; the user's own quota, of which no header tells, is spent."""
    await caller.send("github-models/200-2025-shared-pool")
    assert await caller.wait() == 0
    await caller.send("github-models/429-minute")
    assert await caller.wait() == pytest.approx(44, abs=0.5)
    assert await caller.wait() == 0


async def test_models_behind_one_router_have_each_a_bucket_of_their_own(caller):
    for case in ("kong-style", "together", "retry-after"):
        await caller.send(f"huggingface/router-200-{case}")
    assert limits_of(bucket_of(caller.limiter, "Qwen")) == [("requests", 400, 60)]
    assert limits_of(bucket_of(caller.limiter, "Kimi")) == [("requests", 100, 1), ("tokens", 33_333, 1)]
    assert limits_of(bucket_of(caller.limiter, "DeepSeek")) == []


@pytest.mark.parametrize(
    ("gateway", "direct"),
    [
        ("litellm-proxy/200-prefixed-copy", "openai/200-stream-tokens-usage-based"),
        ("github-models/200-2025-shared-pool", "openai/200-rpd-reset-1h8m"),
        ("huggingface/router-200-together", "together/200-59-of-30"),
        ("portkey/200-passthrough", "openai/200-project-tokens"),
    ],
)
async def test_a_model_behind_a_gateway_shares_nothing_with_the_same_model_at_its_provider(
    gateway, direct, caller
):
    await caller.send(direct, model="shared")
    own = bucket_of(caller.limiter, "")
    await caller.send(gateway, model="shared")
    one, other = caller.limiter.snapshot().buckets
    assert (one.bucket_id, limits_of(one)) == (own.bucket_id, limits_of(own))
    assert limits_of(other) == sorted(told[:3] for told in LIMITS[gateway])
    assert limits_of(one) == sorted(told[:3] for told in LIMITS[direct])


async def test_a_call_to_a_gateway_is_counted_there_and_not_at_the_provider(caller):
    await caller.send("openai/200-rpd-reset-1h8m", model="shared")
    await caller.send("github-models/200-2025-shared-pool", model="shared")
    assert [bucket.admitted for bucket in caller.limiter.snapshot().buckets] == [1, 1]


async def test_a_refusal_behind_a_gateway_stops_nobody_at_the_provider(caller):
    await caller.send("openai/200-rpd-reset-1h8m", model="shared")
    await caller.send("openrouter/429-free-per-day", model="shared")
    with pytest.raises(CapacityExceededError):
        await caller.wait(model="shared", route=("openrouter.ai", "/api/v1/chat/completions"))
    assert await caller.wait(model="shared", route=("api.openai.com", "/v1/chat/completions")) == 0


@pytest.mark.parametrize("case", ["openrouter/429-upstream-chutes", "openrouter/429-upstream-google"])
async def test_another_key_s_refusal_costs_a_moment_and_no_limit(case, caller):
    await caller.send(case)
    assert 1 <= await caller.wait() <= 1.25
    assert await caller.wait() == 0
    assert caller.bucket.limits == ()


# Several limits at once


async def test_of_several_limits_broken_at_once_the_longest_binds(caller):
    """A minute's tokens and requests, and a day's requests: after the minute the day is still spent."""
    await caller.send("gemini/429-minute-and-day")
    caller.clock.advance(61)
    with pytest.raises(CapacityExceededError) as refused:
        await caller.wait()
    assert refused.value.retry_after > 300


async def test_a_day_s_requests_and_a_minute_s_tokens_bind_each_by_itself(caller):
    await caller.send("groq/200-reset-34m-7-53s")
    await caller.send("groq/200-reset-34m-7-53s")
    tokens = await caller.wait(tokens=7900)
    assert 0 < tokens <= 61
    caller.clock.advance(60)
    gone = caller.going(2000, tokens=0)
    assert 974 <= len(gone) <= 977
    assert await caller.ready_in(tokens=0) > 0


async def test_two_windows_of_one_unit_are_two_limits(caller):
    """The sixty of ten seconds bind before the tokens of a minute; the month's are told beside them."""
    await caller.send("mistral/200-req-10-second")
    gone = caller.going(100)
    assert 51 <= len(gone) <= 53
    assert 0 < await caller.wait() <= 10.1
