"""How a framework's call ends where its frames, not the wire, tell of it: by an error, or by an answer without usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.answers import answer_of_error
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.quota import INPUT_TOKENS

if TYPE_CHECKING:
    from adaptive_rate_limiter.reservation import Reservation

__all__ = ["add_note", "guessed_usage", "learn_refusal", "note_refusal"]


def learn_refusal(reservation: Reservation, error: BaseException) -> None:
    """What an error tells of the response behind it, where that was not seen on the wire."""
    answer = None if reservation.sends else answer_of_error(error)
    if answer is not None:
        reservation.observe(*answer)


def note_refusal(reservation: Reservation, error: BaseException) -> None:
    """If the provider has refused the call, say so in a note on the error that tells it."""
    refusal = reservation.refusal
    if refusal is not None:
        when = "" if refusal.retry_after is None else f"; it may pass in {refusal.retry_after:.0f} s"
        add_note(error, f"{reservation.bucket_id} refused this call: {refusal.kind.value}{when}")


def add_note(error: BaseException, text: str) -> None:
    """Tracebacks show it below the error; Python 3.10 only keeps it."""
    note = f"adaptive-rate-limiter: {text}"
    add = getattr(error, "add_note", None)
    if add is not None:
        add(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


def guessed_usage(reservation: Reservation, answer: Any) -> dict[str, float]:
    """No usage was told, but the answer is there: the prompt as reserved, and the tokens of the answer."""
    answered = guess_tokens(answer, reservation.model)
    return {"output_tokens": answered, "tokens": reservation.call.cost.get(INPUT_TOKENS, 0.0) + answered}
