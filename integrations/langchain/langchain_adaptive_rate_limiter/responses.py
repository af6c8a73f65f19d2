"""Usage, headers and refusals as LangChain's messages, results and errors carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.outputs import ChatGeneration

from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.quota import INPUT_TOKENS

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from adaptive_rate_limiter import Reservation

GRPC = {8: 429, 14: 503}  # RESOURCE_EXHAUSTED and UNAVAILABLE


def message_of(response: LLMResult) -> BaseMessage | None:
    for generations in response.generations:
        for generation in generations:
            if isinstance(generation, ChatGeneration):
                return generation.message
    return None


def usage_of_message(message: BaseMessage | None) -> dict[str, float] | None:
    """Arguments of `Reservation.settle` from the standard usage of a message."""
    usage = getattr(message, "usage_metadata", None)
    if not usage:
        return None
    details = usage.get("input_token_details") or {}
    return {
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "tokens": usage.get("total_tokens"),
        "cached_tokens": details.get("cache_read") or 0.0,
    }


def usage_of_result(response: LLMResult) -> dict[str, float] | None:
    """The same from `llm_output`, where integrations that set no usage on the message put it."""
    output = response.llm_output or {}
    usage = output.get("token_usage") or output.get("usage")
    if not isinstance(usage, Mapping):
        return None
    told = {
        "input_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "tokens": usage.get("total_tokens"),
    }
    return told if any(value is not None for value in told.values()) else None


def guessed_usage(response: LLMResult, reservation: Reservation) -> dict[str, float]:
    """No usage was told, but the answer is there: the prompt as reserved, and the tokens of the answer."""
    answered = sum(guess_tokens(made.text, reservation.model) for made in response.generations[0])
    reserved = reservation.call.cost.get(INPUT_TOKENS, 0.0)
    return {"output_tokens": answered, "tokens": reserved + answered}


def headers_of_message(message: BaseMessage) -> Mapping[str, Any] | None:
    """Response headers, where an integration was asked to include them (or is boto3)."""
    metadata = message.response_metadata
    headers = metadata.get("headers") or metadata.get("response_headers")
    if headers is None:
        headers = (metadata.get("ResponseMetadata") or {}).get("HTTPHeaders")
    return headers if isinstance(headers, Mapping) else None


def error_response(error: BaseException) -> tuple[int | None, Any, Any]:
    """Status, headers and body of the response behind an error, in the shapes that SDKs give them."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata") or {}
        return metadata.get("HTTPStatusCode"), metadata.get("HTTPHeaders"), dict(response)
    status = _status(
        getattr(error, "status_code", None),
        getattr(error, "status", None),
        getattr(error, "http_status", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    )
    body = getattr(error, "body", None)
    if body is None:
        body = getattr(response, "text", None) or str(error)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    return status, headers, body


def _status(*candidates: Any) -> int | None:
    for candidate in candidates:
        value = candidate
        if callable(value):  # grpc
            try:
                value = value()
            except Exception:  # noqa: BLE001, S112 - an attribute of somebody else's error; not a status
                continue
        value = getattr(value, "value", value)
        if isinstance(value, tuple) and value:  # grpc: (8, "resource exhausted")
            value = GRPC.get(value[0])
        if isinstance(value, int) and 100 <= value < 600:  # noqa: PLR2004 - HTTP statuses
            return value
    return None
