"""What LangChain says of a call before it asks its limiter: the only place where model and prompt are known."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from uuid import UUID

    from langchain_core.messages import BaseMessage

OUTPUT_BOUNDS = frozenset(
    {"max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens"}
)
MODEL_NAMES = ("model_name", "model_id", "deployment_name", "azure_deployment")  # instead of "model"
EXTRAS = frozenset({"tools", "functions", "response_format"})  # parts of the prompt that are no message
SELDOM_TOLD = OUTPUT_BOUNDS | EXTRAS
FRAMES = 5  # between LangChain's call and ours, where another limiter has wrapped this one

announced: ContextVar[dict[UUID, dict[str, Any]] | None] = ContextVar(
    "langchain_adaptive_announced", default=None
)
"""What is known of the runs of this context that have started, and may ask for admission, by their ids.

Shared with contexts copied from it.
"""


def announce_again(run_id: UUID, call: dict[str, Any]) -> None:
    """Beside those that were announced before, and may still ask."""
    waiting = announced.get()
    if waiting is None:
        waiting = {}
        announced.set(waiting)
    waiting[run_id] = call


def withdraw(run_id: UUID) -> None:
    """The run has ended without asking: its model has no limiter, or the answer was in the cache."""
    waiting = announced.get()
    if waiting:
        waiting.pop(run_id, None)


def claim() -> tuple[dict[str, Any], UUID | None, Any]:
    """The run on whose behalf our caller's `acquire` is called: what `describe` said of it, its id, its manager.

    LangChain does not tell its limiter for which run it asks, but its run manager is a variable of the caller.
    Should a later version name it differently, the oldest run of this context that has not asked is taken, and
    its manager is None. Id and manager are None, and nothing is said, for a call by hand.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - who called our caller
    try:
        manager = frame.f_locals["run_manager"]
        run_id = manager.run_id
        return announced.get().pop(run_id), run_id, manager  # type: ignore[union-attr]
    except (AttributeError, KeyError):  # no such variable, no run, or none that was announced
        return _claim_from_afar(frame, announced.get() or {})


def _claim_from_afar(
    frame: FrameType | None, waiting: dict[UUID, Any]
) -> tuple[dict[str, Any], UUID | None, Any]:
    run_id, manager = next(iter(waiting), None), None
    for _ in range(FRAMES):
        if frame is None:
            break
        variables = frame.f_locals
        if "run_manager" in variables:
            manager = variables["run_manager"]
            run_id = getattr(manager, "run_id", None)
            break
        frame = frame.f_back
    return (waiting.pop(run_id), run_id, manager) if run_id in waiting else ({}, None, None)


def describe(
    serialized: Mapping[str, Any] | None,
    messages: list[list[BaseMessage]],
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Model, size and destination of a run, as arguments of `Limiter.acquire`.

    `params` and `metadata` are those of LangChain's start callback.
    """
    prompt: list[Any] = []
    for conversation in messages:
        for message in conversation:
            prompt.append(message.content)
            if tool_calls := message.__dict__.get("tool_calls"):  # only an AIMessage has them
                prompt.append(tool_calls)
    model = params.get("model")
    call: dict[str, Any] = {
        "model": str(model) if model else _model(params, metadata),
        "route": (metadata.get("ls_provider"), _bases(serialized)),
        "estimated": True,
    }
    if not SELDOM_TOLD.isdisjoint(params) or "ls_max_tokens" in metadata:
        prompt.extend(map(params.get, EXTRAS.intersection(params)))
        call["max_tokens"] = _bound(params, metadata)
    call["prompt"] = prompt[0] if len(prompt) == 1 else prompt
    return call


_known: tuple[Any, tuple[str, ...]] = (None, ())  # the last model's own description, and its addresses


def _bases(serialized: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The addresses that the model was given, so that its calls are told apart from those to another host."""
    global _known  # noqa: PLW0603 - most runs are of the same model as the last one
    known, bases = _known
    if serialized is not known:
        arguments = (serialized or {}).get("kwargs") or {}
        bases = tuple(str(arguments[name]) for name in arguments if "base" in name or "endpoint" in name)
        _known = serialized, bases
    return bases


def _model(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    for name in MODEL_NAMES:
        if model := params.get(name):
            return str(model)
    return metadata.get("ls_model_name")


def _bound(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> int | None:
    """The most tokens that all answers together may have."""
    told = (metadata.get("ls_max_tokens"), *map(params.get, OUTPUT_BOUNDS))
    bounds = [bound for bound in told if isinstance(bound, int) and bound >= 0]
    if not bounds:
        return None
    answers = params.get("n")
    return max(bounds) * max(1, answers) if isinstance(answers, int) else max(bounds)
