"""How a call ends in what LlamaIndex's responses, and its providers' errors, tell of usage and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from pydantic import BaseModel

from adaptive_rate_limiter.answers import answer_of, answer_of_error, usage_of_result
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, TOKENS
from llama_index.llms.adaptive_rate_limiter.calls import messages_prompt

if TYPE_CHECKING:
    from adaptive_rate_limiter import Reservation


def settle_answer(reservation: Reservation, answer: Any) -> None:
    """End a call that was answered: with the usage on the wire, else that of the response, else a guess."""
    raw = getattr(answer, "raw", None)
    if not reservation.sends:  # its SDK does not use httpx
        reservation.observe(*(answer_of(raw) or (200,)))
    usage = (
        _on_the_wire(reservation) or usage_of_result(raw) or _counted(answer) or _guess(reservation, answer)
    )
    reservation.settle(**usage)


def settle_vectors(reservation: Reservation) -> None:
    """End a batch of texts that was embedded: what was counted is the usage, unless the wire told better."""
    if not reservation.sends:
        reservation.observe(200)
    usage = _on_the_wire(reservation)
    reservation.settle(**usage) if usage else reservation.settle(tokens=reservation.call.cost.get(TOKENS))


def learn_refusal(reservation: Reservation, error: BaseException) -> None:
    """What an error tells of the response behind it, where that was not seen on the wire."""
    answer = None if reservation.sends else answer_of_error(error)
    if answer is not None:
        reservation.observe(*answer)


def add_note(error: BaseException, text: str) -> None:
    """What a traceback shows below the error; Python 3.10 only keeps it."""
    add = getattr(error, "add_note", None)
    if add is not None:
        add(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), text]  # type: ignore[attr-defined]


def _on_the_wire(reservation: Reservation) -> dict[str, float] | None:
    return reservation.reply.usage() if reservation.reply is not None else None


def _counted(answer: Any) -> dict[str, float] | None:
    """What several of LlamaIndex's LLMs put beside the response."""
    return usage_of_result({"usage": getattr(answer, "additional_kwargs", None)})


def _guess(reservation: Reservation, answer: Any) -> dict[str, float]:
    """No usage was told, but the answer is there: the prompt as reserved, and the tokens of the answer."""
    if isinstance(answer, ChatResponse):
        said: Any = messages_prompt([answer.message])
    elif isinstance(answer, CompletionResponse):
        said = answer.text
    else:
        said = answer.model_dump_json() if isinstance(answer, BaseModel) else str(answer)
    answered = guess_tokens(said, reservation.model)
    return {"output_tokens": answered, "tokens": reservation.call.cost.get(INPUT_TOKENS, 0.0) + answered}
