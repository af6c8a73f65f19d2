"""A user's provider is believed where it speaks, and can do no harm where it fails."""

import asyncio
import logging
import time

import pytest

from adaptive_rate_limiter import (
    BucketNotFoundError,
    CapacityExceededError,
    DiscoveredBucket,
    RateLimitInfo,
    RequestTimeoutError,
)
from adaptive_rate_limiter.scheduler.provider import Provider, readings_of
from adaptive_rate_limiter.types import QuotaReading, Refusal

from .conftest import Api, request
from .test_scheduler_limits import RefusedError, told
from .test_scheduler_seed import MyProvider


class Told(MyProvider):
    """Tells whatever the test wants, and counts how often it was asked."""

    def __init__(self, limits=None, bucket="default", info=None):
        self.limits = limits
        self.bucket = bucket
        self.info = info
        self.asked = {"limits": 0, "bucket": 0, "parse": 0}

    async def discover_limits(self, force_refresh=False, timeout=30.0):
        self.asked["limits"] += 1
        return await answer(self.limits, {"default": DiscoveredBucket("default", rpm_limit=100)})

    def parse_rate_limit_response(self, headers, body=None, status_code=None):
        self.asked["parse"] += 1
        self.seen = headers, body, status_code
        if isinstance(self.info, BaseException):
            raise self.info
        return self.info or super().parse_rate_limit_response(headers, body, status_code)

    async def get_bucket_for_model(self, model_id, resource_type=None):
        self.asked["bucket"] += 1
        return await answer(self.bucket, None)


async def answer(wanted, usual):
    if isinstance(wanted, BaseException):
        raise wanted
    if wanted == "never":
        await asyncio.Event().wait()
    return usual if wanted is None else wanted


def limits_of(scheduler):
    return {
        bucket.bucket_id: {(limit.unit, limit.limit) for limit in bucket.limits}
        for bucket in scheduler.limiter.snapshot().buckets
    }


async def test_discovered_limits_hold_from_the_first_request_on(make, mode, turn):
    api = Api()
    async with make(mode, provider=MyProvider()) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(120)]
        await turn()
        assert 88 <= len(api.started) <= 90  # of 100, by the default ratio
        assert limits_of(scheduler) == {"default/default": {("requests", 100.0), ("tokens", 100_000.0)}}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_left_is_believed_too(make, turn):
    limits = {"default": DiscoveredBucket("default", rpm_limit=100, rpm_remaining=20)}
    api = Api()
    async with make(provider=Told(limits), rate_limit_buffer_ratio=1.0) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit_request(request(), api.call())) for _ in range(40)]
        await turn()
        assert 15 <= len(api.started) <= 20
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_headers_replace_what_was_discovered(make):
    async with make(provider=MyProvider()) as scheduler:
        result = told(limit=500, remaining=499)
        await scheduler.submit_request(request(), Api(result).call())
        (limits,) = limits_of(scheduler).values()
    assert ("requests", 500) in limits


async def test_models_share_the_bucket_that_the_provider_names(make, mode):
    provider = Told()
    async with make(mode, provider=provider) as scheduler:
        for model in ("a", "b", "a", "b"):
            await scheduler.submit_request(request(model_id=model), Api().call())
        assert list(limits_of(scheduler)) == ["default/default"]
    assert provider.asked["bucket"] == 2
    assert provider.asked["limits"] == 1


async def test_missing_headers_are_no_wall(make, mode):
    """The usual way of writing a provider makes 0 of 0 of what was not told."""
    async with make(mode, provider=Told(limits={})) as scheduler:
        for _ in range(3):
            await scheduler.submit_request(request(), Api({"headers": {"date": "today"}}).call())
        assert limits_of(scheduler) == {"default/default": set()}


async def test_the_provider_reads_instead_of_the_built_in_rules(make):
    info = RateLimitInfo(rpm_limit=7, rpm_remaining=6)
    provider = Told(limits={}, info=info)
    async with make(provider=provider) as scheduler:
        await scheduler.submit_request(request(), Api(told(limit=500)).call())
        assert limits_of(scheduler) == {"default/default": {("requests", 7)}}
    headers, body, status = provider.seen
    assert headers["x-ratelimit-limit-requests"] == "500"
    assert (body, status) == (None, 200)


async def test_the_provider_reads_every_response(make):
    """Who knows what it looks for."""
    provider = Told(limits={})
    async with make(provider=provider) as scheduler:
        for _ in range(20):
            await scheduler.submit_request(request(), Api(told(limit=10_000, remaining=9_999)).call())
    assert provider.asked["parse"] == 20


@pytest.mark.parametrize(
    ("info", "waits"),
    [
        (RateLimitInfo(is_rate_limited=True), 2.0),  # what it leaves out, the headers tell
        (RateLimitInfo(is_rate_limited=True, retry_after=5), 5.0),
        (RateLimitInfo(), 2.0),
    ],
)
async def test_a_refusal_that_the_provider_reads(make, later, info, waits):
    api = Api(RefusedError(2, body={"error": {"message": "slow down"}}), "answer")
    provider = Told(limits={}, info=info)
    async with make(provider=provider) as scheduler:
        task = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await later(waits - 0.01)
        assert len(api.started) == 1
        await later(0.02)
        assert await task == "answer"
    assert provider.seen[1:] == ({"error": {"message": "slow down"}}, 429)


async def test_a_refusal_that_only_the_provider_sees(make, later):
    info = RateLimitInfo(is_rate_limited=True, retry_after=3)
    api = Api({"headers": {}, "status": 418}, "answer")
    async with make(provider=Told(limits={}, info=info)) as scheduler:
        task = asyncio.create_task(scheduler.submit_request(request(), api.call()))
        await later(2.9)
        assert len(api.started) == 1
        await later(0.2)
        assert await task == "answer"


FAILING = {
    "discovery fails": (Told(limits=RuntimeError("down")), "discover_limits"),
    "discovery returns nonsense": (Told(limits=[1, 2]), "discover_limits"),
    "a discovered bucket is nonsense": (Told(limits={"default": object()}), "discover_limits"),
    "the bucket's name fails": (Told(bucket=RuntimeError("down")), "get_bucket_for_model"),
    "the bucket has no name": (Told(bucket=""), "get_bucket_for_model"),
    "the bucket is no name": (Told(bucket=7), "get_bucket_for_model"),
    "reading fails": (Told(info=ValueError("invalid literal")), "parse_rate_limit_response"),
    "what was read is nonsense": (Told(info={"rpm_limit": 60}), "parse_rate_limit_response"),
    "a limit that was read is nonsense": (
        Told(info=RateLimitInfo(quotas=(("requests", 60),))),
        "parse_rate_limit_response",
    ),
    "a limit is of no unit": (
        Told(info=RateLimitInfo(quotas=(QuotaReading([], 60),))),
        "parse_rate_limit_response",
    ),
    "a refusal that was read is nonsense": (
        Told(info=RateLimitInfo(refusal="slow down")),
        "parse_rate_limit_response",
    ),
    "a refusal is of no kind": (
        Told(info=RateLimitInfo(refusal=Refusal("tired"))),
        "parse_rate_limit_response",
    ),
}


@pytest.mark.parametrize(("provider", "method"), FAILING.values(), ids=FAILING)
async def test_whatever_fails_is_reported_once_and_stops_nothing(make, mode, caplog, provider, method):
    with caplog.at_level(logging.WARNING):
        async with make(mode, provider=provider) as scheduler:
            for _ in range(3):
                result = told(limit=60)
                assert await scheduler.submit_request(request(), Api(result).call()) is result
            assert any(("requests", 60) in limits for limits in limits_of(scheduler).values())
    (record,) = caplog.records
    assert method in record.getMessage()
    assert record.exc_info is not None


async def test_a_provider_that_never_answers_holds_up_nothing(make, mode, monkeypatch, caplog):
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.provider.LOOKUP_PATIENCE", 0.01)
    provider = Told(limits="never", bucket="never")
    started = time.monotonic()
    async with make(mode, provider=provider) as scheduler:
        assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"
    assert time.monotonic() - started < 5
    assert "takes long" in caplog.text


async def test_a_provider_that_never_answers_holds_up_only_the_first(make, monkeypatch, caplog):
    """Each request waited for the whole time that one may take."""
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.provider.LOOKUP_PATIENCE", 0.5)
    provider = Told(bucket="never")
    started = time.monotonic()
    async with make(provider=provider) as scheduler:
        for _ in range(20):
            assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"
    assert time.monotonic() - started < 10 * 0.5
    assert provider.asked["bucket"] == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_lookup_that_hangs_is_given_up_and_made_again(make, monkeypatch, turn):
    """One that hung once was never made again."""
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.provider.LOOKUP_PATIENCE", 0.01)
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.provider.PATIENCE", 0.02)
    provider = Told(limits={}, bucket="never")
    async with make(provider=provider) as scheduler:
        await scheduler.submit_request(request(), Api().call())
        provider.bucket = "default"
        while "default/default" not in limits_of(scheduler):
            await scheduler.submit_request(request(), Api().call())
            await asyncio.sleep(0.005)
    assert provider.asked["bucket"] == 2


async def test_the_time_that_a_provider_takes_is_the_requests_own(make, mode):
    """Nobody waits longer for its bucket than the request may take in all."""
    started = time.monotonic()
    async with make(mode, provider=Told(bucket="never"), max_retries=0) as scheduler:
        with pytest.raises((CapacityExceededError, RequestTimeoutError)):
            await scheduler.submit_request(request(timeout=0.02), Api().hold().call())
        assert time.monotonic() - started < 0.5


async def test_limits_that_come_late_are_taken_in(make, turn):
    found = asyncio.Event()

    class Slow(MyProvider):
        async def discover_limits(self, force_refresh=False, timeout=30.0):
            await found.wait()
            return await super().discover_limits()

    async with make(provider=Slow()) as scheduler:
        assert await scheduler.submit_request(request(), Api("answer").call()) == "answer"
        assert limits_of(scheduler) == {"default/default": set()}
        found.set()
        await turn()
        assert ("requests", 100) in limits_of(scheduler)["default/default"]


async def test_an_unknown_model_is_the_providers_to_refuse(make, mode):
    provider = Told(bucket=BucketNotFoundError("no-such-model"))
    async with make(mode, provider=provider) as scheduler:
        for _ in range(2):
            with pytest.raises(BucketNotFoundError, match="no-such-model") as caught:
                await scheduler.submit_request(request(), Api().call())
            assert caught.value.bucket_id == "no-such-model"


async def test_errors_name_the_providers_bucket(make):
    async with make(provider=MyProvider()) as scheduler:
        with pytest.raises(CapacityExceededError) as caught:
            await scheduler.submit_request(request(estimated_tokens=10**6), Api().call())
    assert caught.value.bucket_id == "default"


NOW = 1.8e9


@pytest.mark.parametrize(
    ("info", "readings"),
    [
        (RateLimitInfo(), []),
        (RateLimitInfo(rpm_limit=0, rpm_remaining=0, tpm_limit=0, tpm_remaining=0), []),
        (RateLimitInfo(rpm_limit=10, rpm_remaining=0), [("requests", 10, 0, None, 60)]),
        (RateLimitInfo(tpm_remaining=5), [("tokens", None, 5, None, 60)]),
        (RateLimitInfo(rpm_limit=10, rpm_reset=NOW + 30), [("requests", 10, None, pytest.approx(30), 60)]),
        (
            RateLimitInfo(rpm_limit=10, rpm_reset=(NOW + 30) * 1000),
            [("requests", 10, None, pytest.approx(30), 60)],
        ),
        (RateLimitInfo(rpm_limit=10, rpm_reset=30), [("requests", 10, None, 30, 60)]),
        (RateLimitInfo(rpm_limit=10, rpm_reset=NOW - 30), [("requests", 10, None, 0, 60)]),
        (RateLimitInfo(rpm_limit=-1, rpm_remaining=float("nan"), tpm_limit=True), []),
        (RateLimitInfo(rpm_limit="10"), []),
        (RateLimitInfo(quotas=(QuotaReading("images", 5),)), [("images", 5, None, None, None)]),
        (
            RateLimitInfo(quotas=(QuotaReading("images", "5", -1, float("nan"), True, 7),)),
            [("images", None, None, None, None)],
        ),
    ],
)
def test_readings_of_an_info_filled_by_hand(monkeypatch, info, readings):
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert [tuple(reading[:5]) for reading in readings_of(info)] == readings


def test_header_names_reach_the_provider_in_lower_case():
    provider = Told()
    Provider(provider).parse({"X-RateLimit-Limit-Requests": "60", b"Retry-After": b"2"}, None, 200)
    assert provider.seen[0] == {"x-ratelimit-limit-requests": "60", "retry-after": "2"}


async def test_the_buckets_of_countless_models_are_not_kept_for_ever(make, monkeypatch):
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.provider.MOST_BUCKETS", 2)
    provider = Told(limits={})
    async with make(provider=provider) as scheduler:
        for model in "abcabc":
            await scheduler.submit_request(request(model_id=model), Api().call())
    assert provider.asked["bucket"] > 3
