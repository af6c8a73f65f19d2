"""How a call ends in what LangChain's messages and results tell of usage and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.adapters import guessed_usage, learn_refusal
from adaptive_rate_limiter.answers import answer_of, usage_of_result

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from adaptive_rate_limiter import Reservation


def settle_result(reservation: Reservation, result: LLMResult) -> None:
    """End a call that was answered: with the usage that message or result tell, else a guess."""
    try:
        usage: Any = result.generations[0][0].message.usage_metadata  # type: ignore[union-attr]
    except (AttributeError, IndexError):  # a completion, or a message that tells none
        usage = getattr(_message_of(result), "usage_metadata", None)
    if not reservation.sends:  # its SDK does not use httpx
        _observe_metadata(reservation, _message_of(result))
    if not usage:
        reservation.settle(**(_usage_of_output(result) or guessed_usage(reservation, _said(result))))
        return
    details = usage.get("input_token_details")
    reservation.settle(
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        tokens=usage.get("total_tokens"),
        cached_tokens=details.get("cache_read") if details else 0.0,
    )


def _observe_metadata(reservation: Reservation, message: BaseMessage | None) -> None:
    if message is not None:
        answer = answer_of(message.response_metadata)
        reservation.observe(200, None if answer is None else answer.headers)


def settle_error(reservation: Reservation, error: BaseException) -> None:
    """End a call that failed: it may have been sent, so it stays charged."""
    learn_refusal(reservation, error)
    reservation.lapse()


def _message_of(result: LLMResult) -> Any:
    for generations in result.generations:
        for generation in generations:
            message = getattr(generation, "message", None)  # a completion's has none
            if message is not None:
                return message
    return None


def _usage_of_output(result: LLMResult) -> dict[str, float] | None:
    """Where integrations that set no usage on the message put it."""
    output = result.llm_output or {}
    return usage_of_result({"usage": output.get("token_usage") or output.get("usage")})


def _said(result: LLMResult) -> list[str]:
    return [made.text for made in result.generations[0]]
