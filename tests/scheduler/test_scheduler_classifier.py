"""A classifier makes the metadata of requests, and can do no harm where it fails."""

import asyncio

import pytest

from adaptive_rate_limiter import RateLimiterError

from .conftest import Api, request
from .test_scheduler_provider import Told, answer, limits_of


class Classifier:
    def __init__(self, made):
        self.made = made

    async def classify(self, request):
        self.seen = request
        return await answer(self.made, None)


async def test_a_classifier_makes_the_metadata_of_a_mapping(make):
    classifier = Classifier(request(model_id="found"))
    async with make(classifier=classifier) as scheduler:
        asked = {"model": "m", "messages": []}
        assert await scheduler.submit_request(asked, Api("answer").call()) == "answer"
        assert list(limits_of(scheduler)) == ["default/found"]
    assert classifier.seen == asked


@pytest.mark.parametrize("made", [RuntimeError("down"), None, {"model_id": "m"}])
async def test_a_failing_classifier_is_reported_and_stops_nothing(make, caplog, made):
    async with make(classifier=Classifier(made)) as scheduler:
        assert await scheduler.submit_request({"model": "m"}, Api("answer").call()) == "answer"
        assert list(limits_of(scheduler)) == ["default/m"]
    assert "the classifier failed" in caplog.text


async def test_a_classifier_that_never_answers_holds_up_nothing(make, monkeypatch, caplog):
    monkeypatch.setattr("adaptive_rate_limiter.scheduler.scheduler.CLASSIFIER_PATIENCE", 0.01)
    async with make(classifier=Classifier("never")) as scheduler:
        assert await scheduler.submit_request({"model": "m"}, Api("answer").call()) == "answer"
    assert "the classifier failed" in caplog.text


@pytest.mark.parametrize("parts", [{"classifier": Classifier("never")}, {"provider": Told(bucket="never")}])
async def test_the_end_tells_who_is_not_in_line_yet(make, mode, turn, caplog, parts):
    api = Api()
    async with make(mode, **parts) as scheduler:
        asked = {"model": "m"} if "classifier" in parts else request()
        task = asyncio.create_task(scheduler.submit_request(asked, api.call()))
        await turn()
    with pytest.raises(RateLimiterError, match="stopped before the request was sent"):
        await task
    assert api.started == []
    assert "classifier" not in caplog.text


async def test_classified_at_the_moment_of_the_end(make, turn):
    gate, api = asyncio.Event(), Api()

    class Slow(Classifier):
        async def classify(self, request):
            await gate.wait()
            return self.made

    async with make(classifier=Slow(request())) as scheduler:
        task = asyncio.create_task(scheduler.submit_request({"model": "m"}, api.call()))
        await turn()
        gate.set()
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, scheduler.stop())
        await turn()
    with pytest.raises(RateLimiterError, match="stopped before the request was sent"):
        await task
    assert api.started == []
