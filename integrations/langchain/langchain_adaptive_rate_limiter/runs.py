"""From a run's admission to its end, which its run manager tells."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from adaptive_rate_limiter.adapters import note_refusal
from langchain_adaptive_rate_limiter.responses import settle_error, settle_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.outputs import LLMResult

    from adaptive_rate_limiter import Reservation

logger = logging.getLogger(__name__)


class AdmittedRun:
    """Ends a reservation with its run: the run manager tells it here, before it tells its handlers.

    A handler would hear the same. But while there is one, LangChain tries it for being a stream's, which takes
    longer than everything here. What LangChain does not tell is the end of an `ainvoke` that is cancelled, or of
    a stream that nobody reads on; the end of the task does, or that of the run manager, which alone holds this.
    """

    _task: asyncio.Task[Any] | None = None

    def __init__(self, reservation: Reservation, manager: Any) -> None:
        self._reservation = reservation
        self._manager: Callable[[], Any] = ref(manager)
        manager.on_llm_end = self.on_llm_end
        manager.on_llm_error = self.on_llm_error
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented; does not raise where there is none
            self._watch(asyncio.current_task())

    def _watch(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None:
            self._task = task
            self._on_cancel = partial(_lapse_if_cancelled, self._reservation)
            task.add_done_callback(self._on_cancel)

    def on_llm_end(self, response: LLMResult, **options: Any) -> Any:
        return self._end(settle_result, response).on_llm_end(response, **options)

    def on_llm_error(self, error: BaseException, **options: Any) -> Any:
        return self._end(_settle_and_note, error).on_llm_error(error, **options)

    def _end(self, settle: Callable[[Reservation, Any], None], told: Any) -> Any:
        """The manager, which from now on tells nothing here any more."""
        manager, reservation = self._manager(), self._reservation
        try:  # noqa: SIM105 - this runs on every call, and takes a tenth of `suppress`
            del manager.on_llm_end, manager.on_llm_error
        except AttributeError:  # told before
            pass
        if self._task is not None:
            self._task.remove_done_callback(self._on_cancel)
        reservation.reply = None
        try:
            settle(reservation, told)
        except Exception:  # as LangChain does with those of its handlers
            logger.warning("the end of a run could not be read", exc_info=True)
            reservation.lapse()
        return manager

    def __del__(self) -> None:
        if not self._reservation.closed:
            self._reservation.abandon()


def _settle_and_note(reservation: Reservation, error: BaseException) -> None:
    settle_error(reservation, error)
    note_refusal(reservation, error)


def _lapse_if_cancelled(reservation: Reservation, task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        reservation.reply = None
        reservation.lapse()
