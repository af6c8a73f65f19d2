"""What the adapters of all frameworks have in common: which Limiter they use, and what they make of a call's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.answers import answer_of_error
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.quota import INPUT_TOKENS
from adaptive_rate_limiter.exceptions import ConfigurationError
from adaptive_rate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from adaptive_rate_limiter.reservation import Reservation

__all__ = ["add_note", "guessed_usage", "in_words", "learn_refusal", "limiter_from", "note_refusal"]


def limiter_from(limiter: Any, options: dict[str, Any]) -> Limiter:
    """`limiter`, or a new one with `options`. Raises ConfigurationError naming the argument and its value."""
    if limiter is None:
        return Limiter(**options)
    if not isinstance(limiter, Limiter):
        raise ConfigurationError(f"limiter must be a Limiter, got {limiter!r}")
    if options:
        name, value = next(iter(options.items()))
        raise ConfigurationError(f"{name}={value!r} belongs to the Limiter that is given as limiter=")
    return limiter


def in_words(given: Any) -> str:
    """For an error: `given` itself, or only its type, since what a model says of itself may hold a key."""
    return (
        repr(given) if given is None or isinstance(given, (str, int, float, type)) else type(given).__name__
    )


# A call's end


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
