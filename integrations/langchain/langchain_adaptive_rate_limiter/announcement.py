"""What LangChain says of a call before it asks its limiter: the only place where model and prompt are known."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from uuid import UUID

    from langchain_core.messages import BaseMessage

OUTPUT_BOUNDS = frozenset(
    {"max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens"}
)
MODEL_NAMES = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
EXTRAS = frozenset({"tools", "functions", "response_format"})  # parts of the prompt that are no message
FRAMES = 5  # between LangChain's call and ours, where another limiter has wrapped this one


class Announcement(NamedTuple):
    """One run that is about to ask for admission, in the words of LangChain's start callback."""

    run_id: UUID
    serialized: Mapping[str, Any] | None
    messages: list[list[BaseMessage]]
    options: Mapping[str, Any]

    @property
    def alone(self) -> bool:
        """No other run was started by the same call."""
        return (self.options.get("batch_size") or 1) == 1


announced: ContextVar[dict[UUID, Announcement] | None] = ContextVar(
    "langchain_adaptive_announced", default=None
)
"""The runs of this context that have started, and may ask for admission; shared with contexts copied from it."""


def announce(announcement: Announcement, *, first: bool) -> None:
    """Remember it for the `acquire` that follows. `first`: none that was announced before it still asks."""
    waiting = announced.get()
    if waiting is None or first:
        waiting = {}
        announced.set(waiting)
    waiting[announcement.run_id] = announcement


def withdraw(run_id: UUID) -> None:
    """The run has ended without asking: its model has no limiter, or the answer was in the cache."""
    waiting = announced.get()
    if waiting:
        waiting.pop(run_id, None)


def claim(frame: FrameType | None) -> tuple[Announcement | None, Any]:
    """The run on whose behalf `acquire` is called now, and its manager; None for a call by hand.

    LangChain does not tell its limiter for which run it asks, but its run manager is a variable of the caller.
    Should a later version name it differently, the oldest run of this context that has not asked is taken.
    """
    waiting = announced.get()
    for _ in range(FRAMES):
        if frame is None:
            break
        code = frame.f_code
        if "run_manager" in code.co_varnames or "run_manager" in code.co_freevars:
            manager = frame.f_locals.get("run_manager")
            run_id = getattr(manager, "run_id", None)
            return (waiting.pop(run_id, None) if waiting and run_id else None), manager
        frame = frame.f_back
    return (waiting.pop(next(iter(waiting))) if waiting else None), None


def describe(announcement: Announcement) -> dict[str, Any]:
    """Model, size and destination, as arguments of `Limiter.acquire`."""
    _, serialized, messages, options = announcement
    params = options.get("invocation_params") or {}
    metadata = options.get("metadata") or {}
    arguments = (serialized or {}).get("kwargs") or {}
    base = [str(value) for name, value in arguments.items() if "base" in name or "endpoint" in name]
    prompt: list[Any] = [params[name] for name in EXTRAS.intersection(params)]
    for conversation in messages:
        for message in conversation:
            prompt.append(message.content)
            if isinstance(message, AIMessage) and message.tool_calls:
                prompt.append(message.tool_calls)
    return {
        "model": _model(params, metadata),
        "prompt": prompt,
        "max_tokens": _bound(params, metadata),
        "route": (metadata.get("ls_provider"), *base),
        "estimated": True,
    }


def _model(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    for name in MODEL_NAMES:
        if model := params.get(name):
            return str(model)
    return metadata.get("ls_model_name")


def _bound(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> int | None:
    """The most tokens that all answers together may have."""
    told = [params[name] for name in OUTPUT_BOUNDS.intersection(params)]
    bounds = [
        bound for bound in (*told, metadata.get("ls_max_tokens")) if isinstance(bound, int) and bound >= 0
    ]
    if not bounds:
        return None
    answers = params.get("n")
    return max(bounds) * max(1, answers) if isinstance(answers, int) else max(bounds)
