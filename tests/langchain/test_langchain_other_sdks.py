"""Models whose SDK uses neither httpx nor httpx2: limits from response metadata, refusals from errors."""

import asyncio
import json
import urllib.error
import urllib.request
from types import SimpleNamespace
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from adaptive_rate_limiter import Limiter
from langchain_adaptive_rate_limiter import AdaptiveCallbackHandler, AdaptiveLimiter, callbacks


class StatusError(Exception):
    """As SDKs raise it: the response hangs on it."""

    def __init__(self, status, headers, text):
        super().__init__(f"{status}: {text}")
        self.status_code = status
        self.response = SimpleNamespace(status_code=status, headers=headers, text=text)


class BotoError(Exception):
    """As botocore raises it: the response is a dictionary."""

    def __init__(self, status, headers, text):
        super().__init__(text)
        self.response = {
            "Error": {
                "Code": "ThrottlingException",
                "Message": "Too many requests, please wait before trying again.",
            },
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
        }


class UrllibChat(BaseChatModel):
    """A chat model that talks HTTP by urllib."""

    url: str
    model: str = "plain"
    boto: bool = False

    @property
    def _llm_type(self):
        return "urllib"

    def _get_ls_params(self, stop=None, **kwargs):
        return {
            "ls_provider": "urllib",
            "ls_model_name": self.model,
            "ls_model_type": "chat",
            "ls_max_tokens": 20,
        }

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        content = {
            "model": self.model,
            "max_tokens": 20,
            "messages": [{"role": "user", "content": messages[0].content}],
        }
        request = urllib.request.Request(
            self.url + "/chat/completions", json.dumps(content).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                headers, body = dict(response.headers), json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                kind = BotoError if self.boto else StatusError
                raise kind(error.code, dict(error.headers), error.read().decode()) from error
        metadata = {"ResponseMetadata": {"HTTPHeaders": headers}} if self.boto else {"headers": headers}
        message = AIMessage(body["choices"][0]["message"]["content"], response_metadata=metadata)
        return ChatResult(
            generations=[ChatGeneration(message=message)], llm_output={"token_usage": body["usage"]}
        )


PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}


@pytest.mark.parametrize("boto", [False, True])
def test_limits_come_from_response_metadata(boto, lab, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    UrllibChat(url=emulator.base_url, boto=boto, rate_limiter=limiter).invoke("hello")
    told = {limit.unit: limit.limit for limit in bucket_of("plain").limits}
    assert told == {"requests": 1000, "tokens": 100_000}
    assert bucket_of().in_flight == 0


@pytest.mark.parametrize("boto", [False, True])
def test_refusals_come_from_the_error(boto, lab, limiter, bucket_of):
    emulator = lab.provider("ietf", requests_per_minute=1, window=1.0, latency=0.0)
    UrllibChat(url=emulator.base_url).invoke("takes the limit without telling")
    llm = UrllibChat(url=emulator.base_url, boto=boto, rate_limiter=limiter)
    with pytest.raises(BotoError if boto else StatusError):
        llm.invoke("refused")
    assert (bucket_of().refused, bucket_of().in_flight) == (1, 0)
    assert llm.with_retry(retry_if_exception_type=(StatusError, BotoError)).invoke("hello").content
    assert emulator.stats().refused == 1


def test_without_observation_httpx_is_left_alone(lab, client):
    emulator = lab.provider(**PLENTY)
    limiter = AdaptiveLimiter(observe_http=False)
    lab.chat(emulator, client, limiter, include_response_headers=True).invoke("hello")
    (bucket,) = limiter.limiter.snapshot().buckets
    assert {limit.unit for limit in bucket.limits} == {"requests", "tokens"}


def test_a_watching_handler_counts_and_holds_nobody_back(lab, client):
    emulator = lab.provider(**PLENTY)
    watching = AdaptiveCallbackHandler(Limiter(quotas=[{"unit": "requests", "limit": 1, "window": 3600}]))
    llm = lab.chat(emulator, client, None, include_response_headers=True)
    for _ in range(3):
        llm.invoke("hello", {"callbacks": [watching]})
    list(llm.stream("hello", {"callbacks": [watching]}))
    (bucket,) = watching.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (4, 0)
    assert {limit.unit for limit in bucket.limits if limit.source == "told"} == {"requests", "tokens"}


def test_a_watching_handler_sees_refusals(lab, client):
    emulator = lab.provider("ietf", requests_per_minute=1)
    watching = AdaptiveCallbackHandler()
    llm = lab.chat(emulator, client, None, max_retries=0, callbacks=[watching])
    llm.invoke("hello")
    with pytest.raises(Exception, match="429"):
        llm.invoke("hello")
    (bucket,) = watching.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.refused, bucket.in_flight) == (2, 1, 0)


def test_a_watching_handler_counts_completion_models_too():
    watching = AdaptiveCallbackHandler()
    FakeListLLM(responses=["one", "two"]).generate(["a", "b"], callbacks=[watching])
    (bucket,) = watching.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (2, 0)


async def test_a_watching_handler_counts_async_calls(lab, async_client):
    emulator = lab.provider(**PLENTY)
    watching = AdaptiveCallbackHandler()
    await lab.chat(emulator, async_client, None).abatch(["a", "b", "c"], {"callbacks": [watching]})
    (bucket,) = watching.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (3, 0)


async def test_a_watched_call_that_is_cancelled_leaves_no_hold(lab, async_client):
    emulator = lab.provider(latency=5.0)
    watching = AdaptiveCallbackHandler()
    call = asyncio.ensure_future(
        lab.chat(emulator, async_client, None).ainvoke("hello", {"callbacks": [watching]})
    )
    in_flight = lambda: sum(bucket.in_flight for bucket in watching.limiter.snapshot().buckets)  # noqa: E731
    while not in_flight():  # noqa: ASYNC110 - pytest's time limit is the bound
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    while in_flight():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def test_of_too_many_runs_whose_end_is_never_told_the_oldest_is_given_up(monkeypatch):
    monkeypatch.setattr(callbacks, "MOST_RUNS", 2)
    watching = AdaptiveCallbackHandler()
    for _ in range(5):
        watching.on_llm_start({}, ["hello"], run_id=uuid4())
    (bucket,) = watching.limiter.snapshot().buckets
    assert (bucket.admitted, bucket.in_flight) == (5, 2)


def test_a_handler_that_fails_harms_no_call(lab, client):
    class Failing(BaseCallbackHandler):
        def on_custom_event(self, *_, **__):
            raise ValueError

    emulator = lab.provider(headers=False)
    limiter = AdaptiveLimiter(quotas=[{"unit": "requests", "limit": 1, "window": 0.2}])
    llm = lab.chat(emulator, client, limiter)
    for _ in range(2):
        assert llm.invoke("hello", {"callbacks": [Failing()]}).content


@pytest.mark.parametrize(
    ("output", "tokens"),
    [
        ({"token_usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}}, 34),
        ({"usage": {"input_tokens": 30, "output_tokens": 4}}, 34),
        ({"token_usage": {}}, 26),  # nothing: the prompt as guessed, and the answer
        (None, 26),
    ],
)
def test_usage_is_read_where_integrations_put_it(output, tokens):
    class Told(FakeListLLM):
        def _generate(self, *args, **options):
            result = super()._generate(*args, **options)
            result.llm_output = output
            return result

    watching = AdaptiveCallbackHandler(Limiter(quotas=[{"unit": "tokens", "limit": 1000, "window": 1e8}]))
    Told(responses=["word"]).generate(["word" * 25], callbacks=[watching])
    (bucket,) = watching.limiter.snapshot().buckets
    (stated,) = [limit for limit in bucket.limits if limit.source == "stated"]
    assert 1000 - stated.remaining == pytest.approx(tokens, abs=1)
