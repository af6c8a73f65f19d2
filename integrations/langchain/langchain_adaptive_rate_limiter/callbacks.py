"""The callback handler behind `AdaptiveLimiter`: announces runs, and settles their reservations."""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from adaptive_rate_limiter import Limiter, Reservation
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook
from langchain_adaptive_rate_limiter.announcement import Announcement, announce, describe
from langchain_adaptive_rate_limiter.responses import (
    error_response,
    headers_of_message,
    usage_of_message,
    usage_of_result,
)

MOST_RUNS = 100_000  # of started runs that are remembered; one whose end never came is forgotten beyond it


class RunObserver(BaseCallbackHandler):
    """Ties each run to its reservation. One instance serves the process; LangChain calls it inline,
    in the context of the call, just before the limiter is asked.
    """

    run_inline = True

    def __init__(self) -> None:
        self._runs: OrderedDict[UUID, Announcement] = OrderedDict()

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **options: Any,
    ) -> None:
        prompt = [_content(message) for conversation in messages for message in conversation]
        announcement = describe(serialized, prompt, run_id, options)
        self._runs[run_id] = announcement
        while len(self._runs) > MOST_RUNS:
            self._runs.popitem(last=False)
        announce(announcement)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        reservation = self._end(run_id)
        if reservation is None:
            return
        message = _message(response)
        if message is not None and not reservation.sends:  # its SDK does not use httpx
            headers = headers_of_message(message)
            reservation.observe(200, headers)
        usage = usage_of_message(message) if message is not None else None
        usage = usage or usage_of_result(response)
        if usage is not None:
            reservation.settle(**usage)
        else:
            reservation.lapse()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        reservation = self._end(run_id)
        if reservation is None:
            return
        if not reservation.sends:
            status, headers, body = error_response(error)
            if status is not None:
                reservation.observe(status, headers, body)
        reservation.lapse()

    def _end(self, run_id: UUID) -> Reservation | None:
        announcement = self._runs.pop(run_id, None)
        if announcement is None:
            return None
        announcement.ended = True
        return announcement.reservation

    def forget(self, announcement: Announcement) -> None:
        """The call was not admitted: nothing is left to settle."""
        announcement.ended = True
        self._runs.pop(announcement.run_id, None)


def _content(message: BaseMessage) -> Any:
    calls = getattr(message, "tool_calls", None)
    return [message.content, calls] if calls else message.content


def _message(response: LLMResult) -> BaseMessage | None:
    for generations in response.generations:
        for generation in generations:
            if isinstance(generation, ChatGeneration):
                return generation.message
    return None


_observer = RunObserver()
_observed: ContextVar[RunObserver | None] = ContextVar("langchain_adaptive_observer", default=_observer)
_registered = False


def observe_runs() -> RunObserver:
    """Have every LangChain run pass the observer, from now on; asked for by each AdaptiveLimiter, done once."""
    global _registered  # noqa: PLW0603 - LangChain's hooks are process-wide, and cannot be taken back
    if not _registered:
        _registered = True
        register_configure_hook(_observed, inheritable=True)
    return _observer


class AdaptiveCallbackHandler(BaseCallbackHandler):
    """Watches an application, without limiting it: feeds a Limiter what its runs cost and what was refused.

    Pass it as `callbacks=[AdaptiveCallbackHandler(limiter)]`; `limiter.snapshot()` then tells, per model,
    what was used of which limit.
    """

    run_inline = True

    def __init__(self, limiter: Limiter | None = None) -> None:
        self.limiter = limiter or Limiter()
        self._runs: dict[UUID, Reservation] = {}

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **options: Any
    ) -> None:
        prompt = [_content(message) for conversation in messages for message in conversation]
        seen = describe(serialized, prompt, run_id, options)
        self._runs[run_id] = self.limiter.record(
            model=seen.model, prompt=seen.prompt, max_tokens=seen.max_tokens, route=seen.route
        )

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        reservation = self._runs.pop(run_id, None)
        if reservation is None:
            return
        message = _message(response)
        reservation.observe(200, headers_of_message(message) if message is not None else None)
        usage = (usage_of_message(message) if message is not None else None) or usage_of_result(response)
        if usage is not None:
            reservation.settle(**usage)
        else:
            reservation.lapse()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        reservation = self._runs.pop(run_id, None)
        if reservation is not None:
            status, headers, body = error_response(error)
            if status is not None:
                reservation.observe(status, headers, body)
            reservation.lapse()


__all__ = ["AdaptiveCallbackHandler", "RunObserver", "observe_runs"]
