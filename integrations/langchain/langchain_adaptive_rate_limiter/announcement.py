"""What LangChain says of a call before it asks its limiter: the only place where model and prompt are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from adaptive_rate_limiter import Reservation

OUTPUT_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "num_predict", "max_new_tokens")
MODEL_NAMES = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")


@dataclass(slots=True)
class Announcement:
    """One run that is about to ask for admission, and its reservation once it has one."""

    run_id: UUID
    model: str | None
    prompt: Any
    max_tokens: int | None
    route: tuple[str, ...]
    reservation: Reservation | None = None
    ended: bool = False


announced: ContextVar[deque[Announcement] | None] = ContextVar("langchain_adaptive_announced", default=None)
"""The runs of this context that have started and not asked for admission yet, in order."""


def announce(announcement: Announcement) -> None:
    """Queue it for the `acquire` that follows in the same context, and in contexts copied from it."""
    queue = announced.get()
    if queue is None or not any(not waiting.ended for waiting in queue):
        queue = deque()
        announced.set(queue)
    queue.append(announcement)


def next_announced() -> Announcement | None:
    """The run on whose behalf `acquire` is called now; None if LangChain announced nothing."""
    queue = announced.get()
    while queue:
        try:
            announcement = queue.popleft()
        except IndexError:  # another thread of the same batch was faster
            return None
        if not announcement.ended:
            return announcement
    return None


def describe(
    serialized: Mapping[str, Any] | None, prompt: Any, run_id: UUID, options: Mapping[str, Any]
) -> Announcement:
    """Read model, size and destination from what LangChain passes to its start callbacks."""
    params = options.get("invocation_params") or {}
    metadata = options.get("metadata") or {}
    model = next((str(params[name]) for name in MODEL_NAMES if params.get(name)), metadata.get("ls_model_name"))
    bound = next((params[name] for name in OUTPUT_BOUNDS if isinstance(params.get(name), int)), None)
    if bound is None and isinstance(metadata.get("ls_max_tokens"), int):
        bound = metadata["ls_max_tokens"]
    arguments = (serialized or {}).get("kwargs") or {}
    base = [str(value) for name, value in arguments.items() if "base" in name or "endpoint" in name]
    extra = [params[name] for name in ("tools", "functions", "response_format") if params.get(name)]
    return Announcement(
        run_id=run_id,
        model=model,
        prompt=[prompt, *extra],
        max_tokens=bound,
        route=(str(metadata.get("ls_provider", "")), *base),
    )
