"""Usage, headers and refusals as LlamaIndex's responses and its providers' errors carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from pydantic import BaseModel

from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, TOKENS
from adaptive_rate_limiter.http.payload import usage_of
from llama_index.llms.adaptive_rate_limiter.calls import messages_prompt

if TYPE_CHECKING:
    from adaptive_rate_limiter import Reservation

USAGE = ("usage", "usage_metadata", "usageMetadata", "meta", "eval_count", "prompt_eval_count")
STATUSES = ("status_code", "status", "http_status", "code")
GRPC = {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}


def settle_answer(reservation: Reservation, answer: Any) -> None:
    """End a call that was answered: with the usage on the wire, else that of the response, else a guess."""
    raw = getattr(answer, "raw", None)
    if not reservation.sends:  # its SDK does not use httpx
        reservation.observe(200, _headers(raw))
    usage = _on_the_wire(reservation) or _usage(raw) or _usage_counts(answer) or _guess(reservation, answer)
    reservation.settle(**usage)


def settle_vectors(reservation: Reservation) -> None:
    """End a batch of texts that was embedded: what was counted is the usage, unless the wire told better."""
    if not reservation.sends:
        reservation.observe(200)
    usage = _on_the_wire(reservation)
    reservation.settle(**usage) if usage else reservation.settle(tokens=reservation.call.cost.get(TOKENS))


def learn_refusal(reservation: Reservation, error: BaseException) -> None:
    """What an error tells of the response behind it, where that was not seen on the wire."""
    if reservation.sends:
        return
    status = _status_of(error)
    if status is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):  # botocore
            headers: Any = (response.get("ResponseMetadata") or {}).get("HTTPHeaders")
            body: Any = dict(response)
        else:
            headers = getattr(response, "headers", None) or getattr(error, "headers", None)
            body = getattr(error, "body", None) or getattr(response, "text", None) or str(error)
        reservation.observe(status, headers, body)


def add_note(error: BaseException, text: str) -> None:
    """What a traceback shows below the error; Python 3.10 only keeps it."""
    add = getattr(error, "add_note", None)
    if add is not None:
        add(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), text]  # type: ignore[attr-defined]


def _on_the_wire(reservation: Reservation) -> dict[str, float] | None:
    return reservation.reply.usage() if reservation.reply is not None else None


def _usage(raw: Any) -> dict[str, float] | None:
    """From the provider's response: an object of its SDK, or a mapping that may hold such objects."""
    if raw is None:
        return None
    found = {name: _plain(value) for name in USAGE if (value := _item(raw, name)) is not None}
    return usage_of(found) if found else None


def _usage_counts(answer: Any) -> dict[str, float] | None:
    return usage_of({"usage": getattr(answer, "additional_kwargs", None)})


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


def _headers(raw: Any) -> Mapping[str, Any] | None:
    """Response headers, where an SDK hands them on (boto3 does)."""
    headers = _item(raw, "headers") or _item(_item(raw, "ResponseMetadata"), "HTTPHeaders")
    return headers if isinstance(headers, Mapping) else None


def _status_of(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        told: list[Any] = [(response.get("ResponseMetadata") or {}).get("HTTPStatusCode")]
    else:
        told = [getattr(error, name, None) for name in STATUSES] + [getattr(response, "status_code", None)]
    for status in told:
        if callable(status):  # grpc: a method
            try:
                status = status()  # noqa: PLW2901 - the same thing, told
            except Exception:  # noqa: BLE001, S112 - somebody else's error; no status then
                continue
        status = GRPC.get(getattr(status, "name", ""), getattr(status, "value", status))  # noqa: PLW2901
        if isinstance(status, int) and 100 <= status < 600:  # noqa: PLR2004 - HTTP statuses
            return status
    return None


def _item(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return value if isinstance(value, Mapping) or not hasattr(value, "__dict__") else vars(value)
