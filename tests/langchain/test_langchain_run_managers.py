"""From admission to its end, a run is followed through its manager: no handler of ours is in the way of its model."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import Field
from tests.garbage import collect

from adaptive_rate_limiter import Reservation
from langchain_adaptive_rate_limiter import AdaptiveLimiter

PLENTY = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, "algorithm": "fixed_window"}
ANSWER = AIMessage("hello", usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})


class Scripted(BaseChatModel):
    """Answers without any wire, and notes who hears of its runs meanwhile."""

    answers: list[Any]
    heard_by: list[Any] = Field(default_factory=list)
    inner: Any = None

    @property
    def _llm_type(self):
        return "scripted"

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_model_name": "scripted", "ls_model_type": "chat"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.heard_by.append(list(run_manager.handlers))
        if self.inner is not None:
            self.inner.invoke(messages)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return ChatResult(generations=[ChatGeneration(message=answer)])


class Streaming(Scripted):
    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        yield ChatGenerationChunk(message=AIMessageChunk(self.answers.pop(0).content))


class Watching(BaseCallbackHandler):
    def __init__(self):
        self.ends = []

    def on_llm_end(self, response, **_):
        self.ends.append(response.generations[0][0].text)

    def on_llm_error(self, error, **_):
        self.ends.append(error)


@pytest.fixture
def one_at_a_time():
    return AdaptiveLimiter(max_concurrency=1, max_wait=5)


def _bucket(limiter):
    (bucket,) = limiter.limiter.snapshot().buckets
    return bucket


@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_only_the_users_handlers_hear_of_a_run_while_its_model_answers(form, limiter):
    model = Scripted(answers=[ANSWER, ANSWER], rate_limiter=limiter)
    watching = Watching()
    for _ in range(2):
        _run(model, form, {"callbacks": [watching]})
    assert model.heard_by == [[watching], [watching]]
    assert watching.ends == ["hello", "hello"]
    assert (_bucket(limiter).admitted, _bucket(limiter).in_flight) == (2, 0)


def test_nor_of_one_of_several_runs_of_one_call(limiter):
    model = Scripted(answers=[ANSWER, ANSWER], rate_limiter=limiter)
    watching = Watching()
    model.generate([[HumanMessage("first")], [HumanMessage("second")]], callbacks=[watching])
    assert model.heard_by == [[watching], [watching]]
    assert (_bucket(limiter).admitted, _bucket(limiter).in_flight) == (2, 0)


def _run(model, form, config=None):
    async def ainvoke():
        return await model.ainvoke("hello", config)

    return model.invoke("hello", config) if form == "invoke" else asyncio.run(ainvoke())


def test_a_run_inside_an_admitted_one_is_announced_as_well(limiter):
    inner = Scripted(answers=[ANSWER], rate_limiter=limiter)
    Scripted(answers=[ANSWER], rate_limiter=limiter, inner=inner).invoke("hello")
    assert (_bucket(limiter).admitted, _bucket(limiter).in_flight) == (2, 0)


@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_call_that_fails_before_it_is_sent_makes_room_for_its_retry(form, one_at_a_time):
    """The retry is admitted while the error, and all that its traceback refers to, is still there."""
    model = Scripted(answers=[ValueError("no such tool"), ANSWER], rate_limiter=one_at_a_time)
    retrying = model.with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
    assert _run(retrying, form).content == "hello"
    assert (_bucket(one_at_a_time).admitted, _bucket(one_at_a_time).in_flight) == (2, 0)


def test_what_is_sent_after_a_failure_is_not_the_failed_calls(lab, client, limiter, bucket_of):
    emulator = lab.provider(**PLENTY)
    failing = Scripted(answers=[ValueError("no such tool")], rate_limiter=limiter)
    failing.with_fallbacks([lab.chat(emulator, client, None)]).invoke("hello")
    assert (bucket_of().bucket_id, bucket_of().in_flight) == ("default/scripted", 0)
    assert not bucket_of().limits


def test_handlers_hear_of_an_error_as_ever(limiter):
    error = ValueError("no such tool")
    watching = Watching()
    with pytest.raises(ValueError, match="no such tool"):
        Scripted(answers=[error], rate_limiter=limiter).invoke("hello", {"callbacks": [watching]})
    assert watching.ends == [error]


def test_a_run_from_the_cache_is_forgotten_though_another_of_its_call_was_admitted(lab, client, limiter):
    llm = lab.chat(lab.provider(**PLENTY), client, limiter, cache=InMemoryCache())
    first, second = [HumanMessage("first")], [HumanMessage("second")]
    llm.generate([second])
    llm.generate([first, second])
    limiter.acquire()
    by_hand = [bucket for bucket in limiter.limiter.snapshot().buckets if bucket.bucket_id == "default/*"]
    assert [bucket.admitted for bucket in by_hand] == [1]


def test_an_answer_that_cannot_be_read_reaches_the_caller_and_ends_its_hold(limiter, caplog):
    odd = ChatMessage(content="hello", role="oracle", usage_metadata="plenty")
    assert Scripted(answers=[odd], rate_limiter=limiter).invoke("hello").content == "hello"
    assert _bucket(limiter).in_flight == 0
    assert "could not be read" in caplog.text


def _start(metadata=None):
    managers = CallbackManager.configure(inheritable_metadata=metadata)
    return managers.on_chat_model_start({}, [[HumanMessage("hi")]], batch_size=1)


def _admitted_run(limiter):
    (run_manager,) = _start()
    limiter.acquire()
    return run_manager


def test_a_run_whose_manager_is_gone_without_a_word_leaves_no_hold(limiter):
    manager = _admitted_run(limiter)
    assert _bucket(limiter).in_flight == 1
    del manager
    collect()
    assert _bucket(limiter).in_flight == 0


def test_a_run_whose_end_is_told_twice_is_counted_once():
    limiter = AdaptiveLimiter(quotas={"tokens": 1000})
    manager = _admitted_run(limiter)
    for message in (ANSWER, AIMessage("much later")):
        manager.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))
    (tokens,) = _bucket(limiter).limits
    assert (round(tokens.remaining), _bucket(limiter).in_flight) == (993, 0)


class RefusedError(Exception):
    status_code = 429

    def __init__(self):
        super().__init__("429: too many requests")
        self.response = SimpleNamespace(status_code=429, headers={"retry-after": "2"}, text="{}")


@pytest.mark.parametrize("failed", [False, True])
def test_where_no_run_manager_is_found_our_handler_stays_and_hears_the_end(failed, limiter):
    (manager,) = _start()  # under a name that LangChain's callers do not give it
    limiter.acquire()
    assert _bucket(limiter).in_flight == 1
    error = RefusedError()
    if failed:
        manager.on_llm_error(error)
    else:
        manager.on_llm_end(LLMResult(generations=[[ChatGeneration(message=ANSWER)]]))
    assert (_bucket(limiter).in_flight, _bucket(limiter).refused) == (0, int(failed))
    assert hasattr(error, "__notes__") == failed


@pytest.mark.parametrize("form", ["invoke", "ainvoke"])
def test_a_limiter_that_another_one_asks_from_its_own_thread_knows_the_run(form, limiter):
    """No caller of it there has the run manager."""
    model = Scripted(answers=[ANSWER], rate_limiter=Elsewhere(limiter))
    assert _run(model, form).content == "hello"
    assert (_bucket(limiter).bucket_id, _bucket(limiter).admitted) == ("default/scripted", 1)
    assert _bucket(limiter).in_flight == 0


class Elsewhere(BaseRateLimiter):
    def __init__(self, limiter):
        self._limiter = limiter

    def acquire(self, *, blocking=True):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, partial(self._limiter.acquire, blocking=blocking)).result()

    async def aacquire(self, *, blocking=True):
        return await asyncio.to_thread(self._limiter.acquire, blocking=blocking)


def test_whoever_may_not_wait_may_ask_again_for_the_same_run():
    limiter = AdaptiveLimiter(quotas={"requests": 1})
    assert limiter.limiter.try_acquire("scripted")
    (run_manager,) = _start({"ls_model_name": "scripted"})
    assert not limiter.acquire(blocking=False)
    assert not limiter.acquire(blocking=False)
    assert (_bucket(limiter).bucket_id, _bucket(limiter).admitted) == ("default/scripted", 1)
    assert run_manager.handlers


async def test_streams_that_ended_leave_nothing_on_the_task_that_read_them(limiter):
    model = Streaming(answers=[ANSWER] * 5, rate_limiter=limiter)
    before = _reservations()
    for _ in range(5):
        [chunk async for chunk in model.astream("hello")]
    assert _reservations() <= before + 1  # the last one is still this context's


def _reservations():
    collect()
    return sum(isinstance(thing, Reservation) for thing in gc.get_objects())
