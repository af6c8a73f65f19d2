"""How a call ends in what LlamaIndex's responses tell of usage."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from pydantic import BaseModel

from adaptive_rate_limiter.adapters import guessed_usage
from adaptive_rate_limiter.answers import answer_of, usage_of_result
from adaptive_rate_limiter.core.quota import TOKENS
from llama_index.llms.adaptive_rate_limiter.calls import messages_prompt

if TYPE_CHECKING:
    from adaptive_rate_limiter import Reservation


OPENAI_USAGE = itemgetter("prompt_tokens", "completion_tokens", "total_tokens")


def settle_answer(reservation: Reservation, answer: Any) -> None:
    """End a call that was answered: with the usage on the wire, else that of the response, else a guess."""
    reservation.settle(**(_read_already(reservation, answer) or _usage_of(reservation, answer)))


def _usage_of(reservation: Reservation, answer: Any) -> dict[str, float]:
    raw = getattr(answer, "raw", None)
    if not reservation.sends:  # its SDK does not use httpx
        reservation.observe(*(answer_of(raw) or (200,)))
    return (
        _on_the_wire(reservation)
        or usage_of_result(raw)
        or _counted(answer)
        or guessed_usage(reservation, _said(answer))
    )


def settle_vectors(reservation: Reservation, _vectors: Any = None) -> None:
    """End a batch of texts that was embedded: what was counted is the usage, unless the wire told better."""
    reply = reservation.reply
    usage = None if reply is None else reply.usage()
    if usage:
        reservation.settle(**usage)
        return
    if not reservation.sends:
        reservation.observe(200)
    reservation.settle(tokens=reservation.call.cost.get(TOKENS))


def _read_already(reservation: Reservation, answer: Any) -> dict[str, float] | None:
    """What OpenAI's SDK, and those made like it, have read of the last response, if that was no stream.

    It takes a third of the time that reading its body again would.
    """
    reply = reservation.reply
    if reply is None or reply.reader is not None:
        return None
    try:
        read, answered, total = OPENAI_USAGE(answer.raw.__dict__["usage"].__dict__)
    except (AttributeError, KeyError):
        return None
    return {"input_tokens": read, "output_tokens": answered, "tokens": total} if type(total) is int else None


def _on_the_wire(reservation: Reservation) -> dict[str, float] | None:
    return reservation.reply.usage() if reservation.reply is not None else None


def _counted(answer: Any) -> dict[str, float] | None:
    """What several of LlamaIndex's LLMs put beside the response."""
    return usage_of_result({"usage": getattr(answer, "additional_kwargs", None)})


def _said(answer: Any) -> Any:
    if isinstance(answer, ChatResponse):
        return messages_prompt([answer.message])
    if isinstance(answer, CompletionResponse):
        return answer.text
    return answer.model_dump_json() if isinstance(answer, BaseModel) else str(answer)
