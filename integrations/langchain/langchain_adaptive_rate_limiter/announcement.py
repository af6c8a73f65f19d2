"""What LangChain says of a call before it asks its limiter: the only place where model and prompt are known."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType
    from uuid import UUID

    from langchain_core.messages import BaseMessage

OUTPUT_BOUNDS = frozenset(
    {"max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens"}
)
MODEL_NAMES = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
EXTRAS = frozenset({"tools", "functions", "response_format"})  # parts of the prompt that are no message
FRAMES = 5  # between LangChain's call and ours, where another limiter has wrapped this one


class Announcement:
    """One run that is about to ask for admission, in the words of LangChain's start callback.

    `alone`: no other run was started by the same call.
    """

    __slots__ = ("alone", "messages", "options", "run_id", "serialized")

    def __init__(
        self,
        run_id: UUID,
        serialized: Mapping[str, Any] | None,
        messages: list[list[BaseMessage]],
        options: Mapping[str, Any],
    ) -> None:
        self.run_id = run_id
        self.serialized = serialized
        self.messages = messages
        self.options = options
        self.alone = (options.get("batch_size") or 1) == 1


announced: ContextVar[dict[UUID, Announcement] | None] = ContextVar(
    "langchain_adaptive_announced", default=None
)
"""The runs of this context that have started, and may ask for admission; shared with contexts copied from it."""


def announce(announcement: Announcement) -> None:
    """Remember it for the `acquire` that follows, which is that of a run alone, if it is one."""
    if announcement.alone:
        announced.set({announcement.run_id: announcement})
    else:
        announce_again(announcement)


def announce_again(announcement: Announcement) -> None:
    """Beside those that were announced before, and may still ask."""
    waiting = announced.get()
    if waiting is None:
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
        variables = frame.f_locals
        if "run_manager" in variables:
            manager = variables["run_manager"]
            run_id = getattr(manager, "run_id", None)
            return (waiting.pop(run_id, None) if waiting and run_id else None), manager
        frame = frame.f_back
    return (waiting.pop(next(iter(waiting))) if waiting else None), None


def describe(announcement: Announcement) -> dict[str, Any]:
    """Model, size and destination, as arguments of `Limiter.acquire`."""
    options = announcement.options
    params = options.get("invocation_params") or {}
    metadata = options.get("metadata") or {}
    prompt: list[Any] = list(map(params.get, EXTRAS.intersection(params)))
    for conversation in announcement.messages:
        for message in conversation:
            prompt.append(message.content)
            if tool_calls := vars(message).get("tool_calls"):  # only an AIMessage has them
                prompt.append(tool_calls)
    return {
        "model": _model(params, metadata),
        "prompt": prompt,
        "max_tokens": _bound(params, metadata),
        "route": (metadata.get("ls_provider"), *_bases(announcement.serialized)),
        "estimated": True,
    }


def _bases(serialized: Mapping[str, Any] | None) -> Iterable[str]:
    """The addresses that the model was given, so that its calls are told apart from those to another host."""
    arguments = (serialized or {}).get("kwargs") or {}
    names = " ".join(arguments)
    if "base" in names or "endpoint" in names:
        return [str(value) for name, value in arguments.items() if "base" in name or "endpoint" in name]
    return ()


def _model(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    for name in MODEL_NAMES:
        if model := params.get(name):
            return str(model)
    return metadata.get("ls_model_name")


def _bound(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> int | None:
    """The most tokens that all answers together may have."""
    names = OUTPUT_BOUNDS.intersection(params)
    if not names and "ls_max_tokens" not in metadata:
        return None
    told = (metadata.get("ls_max_tokens"), *map(params.get, names))
    bounds = [bound for bound in told if isinstance(bound, int) and bound >= 0]
    if not bounds:
        return None
    answers = params.get("n")
    return max(bounds) * max(1, answers) if isinstance(answers, int) else max(bounds)
