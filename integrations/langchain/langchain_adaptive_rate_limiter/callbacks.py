"""Callback handlers: the one behind `AdaptiveLimiter`, which settles what it admitted, and one that only watches."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tracers.context import register_configure_hook

from adaptive_rate_limiter.adapters import limiter_from, note_refusal
from adaptive_rate_limiter.reservation import current_reservation
from langchain_adaptive_rate_limiter.announcement import announce_again, announced, describe, withdraw
from langchain_adaptive_rate_limiter.responses import settle_error, settle_result
from langchain_adaptive_rate_limiter.runs import AdmittedRun

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from adaptive_rate_limiter import Limiter, Reservation

MOST_RUNS = 100_000  # of runs in flight; the oldest of more is one whose end was never told


class _Kept(NamedTuple):
    reservation: Reservation
    task: asyncio.Task[Any] | None


class ModelHandler(BaseCallbackHandler):
    """Settles the reservations of runs. Hears of models only, inline: in the context of the call."""

    run_inline = True
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True
    ignore_llm = ignore_chat_model = False  # said here, they are no calls of properties

    def __init__(self) -> None:
        self._runs: dict[UUID, _Kept] = {}

    def keep(self, run_id: UUID, reservation: Reservation) -> None:
        """Remember what the run has reserved, until its end; or that of its task, if that is cancelled."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; does not raise where there is none
        task = None if loop is None else asyncio.current_task(loop)
        if task is not None:
            task.add_done_callback(self._task_ended)
        self._runs[run_id] = _Kept(reservation, task)
        if len(self._runs) > MOST_RUNS:
            self._release(next(iter(self._runs))).lapse()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if run_id not in self._runs:
            withdraw(run_id)
            return
        settle_result(self._release(run_id), response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        if run_id not in self._runs:
            withdraw(run_id)
            return
        settle_error(self._release(run_id), error)

    def _release(self, run_id: UUID) -> Reservation:
        reservation, task = self._runs.pop(run_id)
        if task is not None and not task.done():
            task.remove_done_callback(self._task_ended)
        reservation.reply = None
        return reservation

    def _task_ended(self, ended: asyncio.Task[Any]) -> None:
        if ended.cancelled():
            for run_id in [run_id for run_id, kept in self._runs.items() if kept.task is ended]:
                self._release(run_id).lapse()


class RunObserver(ModelHandler):
    """Announces each run to the `acquire` that follows. One instance serves the process."""

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        invocation_params: dict[str, Any] | None = None,
        batch_size: int = 1,
        **_: Any,
    ) -> None:
        current = current_reservation.get()
        if current is not None:
            _step_aside(current, parent_run_id)
        call = describe(serialized, messages, invocation_params or {}, metadata or {})
        if batch_size == 1:  # the `acquire` that follows is this run's
            announced.set({run_id: call})
        else:
            announce_again(run_id, call)

    def follow(self, run_id: UUID | None, reservation: Reservation, manager: Any) -> None:
        """End what was reserved for the run when that ends, as its manager tells, else as a handler hears."""
        if run_id is None:  # asked for by hand: nobody will say how it ended
            reservation.lapse()
            return
        reservation.owner = run_id
        current_reservation.set(reservation)
        if manager is None:
            self.keep(run_id, reservation)
            return
        AdmittedRun(reservation, manager)
        # Shared by the runs of one call, of which others may end without admission.
        handlers = manager.handlers
        if self in handlers:
            manager.handlers = handlers = handlers.copy()
            handlers.remove(self)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        kept = self._runs.get(run_id)
        super().on_llm_error(error, run_id=run_id, **options)
        if kept is not None:
            note_refusal(kept.reservation, error)


def _step_aside(current: Reservation, parent_run_id: UUID | None) -> None:
    """A run begins while another one's answer is still read: what it sends is not that other one's.

    A run inside another, before that has sent anything, is how a model sends that wraps a second model.
    """
    if current.owner is not None and current.sends and parent_run_id != current.owner:
        current_reservation.set(None)


_observer = RunObserver()
_observed: ContextVar[RunObserver | None] = ContextVar("langchain_adaptive_observer", default=_observer)
_registered = False


def observe_runs() -> RunObserver:
    """Have every LangChain run pass the observer, from now on; asked for by each AdaptiveLimiter, done once."""
    global _registered  # noqa: PLW0603 - LangChain's hooks are process-wide, and cannot be taken back
    if not _registered:
        _registered = True
        register_configure_hook(_observed, inheritable=False)  # every run gets it from here
    return _observer


class AdaptiveCallbackHandler(ModelHandler):
    """Watches an application, without limiting it: feeds a Limiter what its runs cost and what was refused.

    Pass it as `callbacks=[AdaptiveCallbackHandler(limiter)]`; `limiter.snapshot()` then tells, per model,
    what was used of which limit. It learns limits from response metadata and errors.
    """

    def __init__(self, limiter: Limiter | None = None) -> None:
        super().__init__()
        self.limiter = limiter_from(limiter, {})

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **options: Any
    ) -> None:
        self._record(run_id, serialized, messages, options)

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **options: Any
    ) -> None:
        messages: list[list[BaseMessage]] = [[HumanMessage(prompt) for prompt in prompts]]
        self._record(run_id, serialized, messages, options)

    def _record(
        self,
        run_id: UUID,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        options: dict[str, Any],
    ) -> None:
        params, metadata = options.get("invocation_params") or {}, options.get("metadata") or {}
        call = describe(serialized, messages, params, metadata)
        self.keep(run_id, self.limiter.record(**call))
