"""`AdaptiveLLM(llm=OpenAI())` is the whole set-up: it is an LLM, and every call of it is paced."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from llama_index.core.bridge.pydantic import Field, SerializeAsAny, WithJsonSchema
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.loading import RECOGNIZED_LLMS, load_llm

from adaptive_rate_limiter import ConfigurationError, Limiter
from adaptive_rate_limiter.adapters import in_words, limiter_from
from adaptive_rate_limiter.http import observe_http
from llama_index.llms.adaptive_rate_limiter.attempts import Attempts
from llama_index.llms.adaptive_rate_limiter.calls import describe_llm, messages_prompt, tools_prompt
from llama_index.llms.adaptive_rate_limiter.events import span_where_heard
from llama_index.llms.adaptive_rate_limiter.limiter import AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter.responses import settle_answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from llama_index.core.base.llms.types import (
        ChatMessage,
        ChatResponse,
        ChatResponseAsyncGen,
        ChatResponseGen,
        CompletionResponse,
        CompletionResponseAsyncGen,
        CompletionResponseGen,
        LLMMetadata,
    )
    from llama_index.core.llms.llm import ToolSelection
    from typing_extensions import Self

__all__ = ["AdaptiveLLM"]

# Fields that LlamaIndex reads from, and sets on, whatever LLM it is given: the wrapped one has the same.
MIRRORED = tuple(name for name in LLM.model_fields if name != "rate_limiter")


class AdaptiveLLM(LLM):
    """Wraps any LLM, and paces its calls under the provider's limits, which it learns from the responses.

    `llm`: what really answers. `limiter`: shared with other models and frameworks, if they share a key; instead
    of it, any argument of `Limiter`. It calls functions if `llm` does: then it is a FunctionCallingLLM.

    A refusal that a wait cures is waited out and sent again, within the limiter's `max_wait`; any other is raised
    unchanged, with the limiter's reason as a note. A call that waited dispatches a RateLimiterWaitEvent.

    Raises ConfigurationError naming the argument and its value.
    """

    llm: SerializeAsAny[LLM] = Field(description="The LLM that really answers.")
    limiter: Annotated[Limiter, WithJsonSchema({"type": "object"})] = Field(
        description="Paces the calls.", exclude=True, repr=False
    )

    def __new__(cls, llm: Any = None, *_: Any, **__: Any) -> Self:
        if cls is AdaptiveLLM and isinstance(llm, FunctionCallingLLM):
            return super().__new__(AdaptiveFunctionCallingLLM)  # type: ignore[return-value]
        return super().__new__(cls)

    def __init__(self, llm: LLM, limiter: Limiter | None = None, **options: Any) -> None:
        _check_llm(llm)
        own = {name: options.pop(name) for name in MIRRORED if name in options}
        _check_rate_limiter(options.pop("rate_limiter", None))
        chosen = limiter_from(limiter, options)
        mirrored = {name: getattr(llm, name) for name in MIRRORED if name not in own}
        super().__init__(llm=llm, limiter=chosen, **mirrored, **own)  # type: ignore[call-arg]
        for name in own:
            setattr(llm, name, getattr(self, name))
        observe_http()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rate_limiter":
            _check_rate_limiter(value)
        if name not in type(self).model_fields and name in type(self.llm).model_fields:
            setattr(self.llm, name, value)
            return
        super().__setattr__(name, value)
        if name in MIRRORED:
            setattr(self.llm, name, value)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What only the wrapped LLM has, such as its `model`."""
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name.startswith("_") or "llm" not in self.__dict__:
                    raise
                return getattr(self.llm, name)

    @classmethod
    def class_name(cls) -> str:
        return "AdaptiveLLM"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        data = {**data, **kwargs}
        if isinstance(data.get("llm"), dict):
            data["llm"] = _load(data["llm"])
        return super().from_dict(data)

    @property
    def metadata(self) -> LLMMetadata:
        return self.llm.metadata

    def to_payload(self) -> dict[str, Any]:
        return self.llm.to_payload()

    def convert_chat_messages(self, messages: Sequence[ChatMessage]) -> list[Any]:
        return self.llm.convert_chat_messages(messages)

    # Chat and completion

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        send = partial(self.llm.chat, messages, **kwargs)
        return self._attempts(messages_prompt(messages), kwargs).call(send, settle_answer)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        send = partial(self.llm.achat, messages, **kwargs)
        return await self._attempts(messages_prompt(messages), kwargs).acall(send, settle_answer)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        send = partial(self.llm.stream_chat, messages, **kwargs)
        return self._attempts(messages_prompt(messages), kwargs).stream(send, settle_answer)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        send = partial(self.llm.astream_chat, messages, **kwargs)
        return self._attempts(messages_prompt(messages), kwargs).astream(send, settle_answer)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        send = partial(self.llm.complete, prompt, formatted=formatted, **kwargs)
        return self._attempts([prompt], kwargs).call(send, settle_answer)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        send = partial(self.llm.acomplete, prompt, formatted=formatted, **kwargs)
        return await self._attempts([prompt], kwargs).acall(send, settle_answer)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        send = partial(self.llm.stream_complete, prompt, formatted=formatted, **kwargs)
        return self._attempts([prompt], kwargs).stream(send, settle_answer)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        send = partial(self.llm.astream_complete, prompt, formatted=formatted, **kwargs)
        return self._attempts([prompt], kwargs).astream(send, settle_answer)

    # Structured output: the wrapped LLM's own way to it

    def structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        return self._predict(output_cls, prompt, llm_kwargs, prompt_args).call(
            lambda: self.llm.structured_predict(output_cls, prompt, copy(llm_kwargs), **prompt_args),
            settle_answer,
        )

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        return await self._predict(output_cls, prompt, llm_kwargs, prompt_args).acall(
            lambda: self.llm.astructured_predict(output_cls, prompt, copy(llm_kwargs), **prompt_args),
            settle_answer,
        )

    def stream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[Any, None, None]:
        return self._predict(output_cls, prompt, llm_kwargs, prompt_args).stream(
            lambda: self.llm.stream_structured_predict(output_cls, prompt, copy(llm_kwargs), **prompt_args),
            settle_answer,
        )

    async def astream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[Any, None]:
        return self._predict(output_cls, prompt, llm_kwargs, prompt_args).astream(
            lambda: self.llm.astream_structured_predict(output_cls, prompt, copy(llm_kwargs), **prompt_args),
            settle_answer,
        )

    # Sizes

    def _attempts(self, prompt: list[Any], options: dict[str, Any]) -> Attempts:
        return Attempts(self.limiter, describe_llm(self.llm, prompt, options))

    def _predict(
        self, output_cls: Any, prompt: Any, options: dict[str, Any] | None, prompt_args: dict[str, Any]
    ) -> Attempts:
        try:
            said = messages_prompt(prompt.format_messages(**prompt_args))
        except Exception:  # noqa: BLE001 - the wrapped LLM will say what is wrong with it
            said = [*prompt_args.values()]
        return self._attempts([*said, output_cls.model_json_schema()], options or {})


class AdaptiveFunctionCallingLLM(AdaptiveLLM, FunctionCallingLLM):
    """What `AdaptiveLLM(llm=...)` makes of an LLM that calls functions."""

    llm: SerializeAsAny[FunctionCallingLLM] = Field(description="The LLM that really answers.")

    def chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        send = self.llm.chat_with_tools
        return self._tools(args, kwargs).call(lambda: send(*_fresh(args), **_fresh(kwargs)), settle_answer)

    async def achat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        send = self.llm.achat_with_tools
        attempts = self._tools(args, kwargs)
        return await attempts.acall(lambda: send(*_fresh(args), **_fresh(kwargs)), settle_answer)

    def stream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseGen:
        send = self.llm.stream_chat_with_tools
        return self._tools(args, kwargs).stream(lambda: send(*_fresh(args), **_fresh(kwargs)), settle_answer)

    async def astream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseAsyncGen:
        send = self.llm.astream_chat_with_tools
        return self._tools(args, kwargs).astream(lambda: send(*_fresh(args), **_fresh(kwargs)), settle_answer)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        return self.llm.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.llm._prepare_chat_with_tools(*args, **kwargs)  # noqa: SLF001 - what every such LLM must define

    def _tools(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempts:
        given = {**dict(zip(("tools", "user_msg", "chat_history"), args, strict=False)), **kwargs}
        tools, said, history = (given.pop(name, None) for name in ("tools", "user_msg", "chat_history"))
        prompt = tools_prompt(tools or ()) + messages_prompt([*(history or ()), *([said] if said else ())])
        return self._attempts(prompt, given)


def _fresh(given: Any) -> Any:
    """LLMs add to the lists and mappings that they are given: a second attempt must not see it."""
    if isinstance(given, tuple):
        return [copy(value) if isinstance(value, (list, dict)) else value for value in given]
    return {name: copy(value) if isinstance(value, (list, dict)) else value for name, value in given.items()}


def _check_llm(llm: Any) -> None:
    if not isinstance(llm, LLM):
        raise ConfigurationError(f"llm must be a LlamaIndex LLM, got {in_words(llm)}")
    if isinstance(llm.rate_limiter, AdaptiveLimiter):
        raise ConfigurationError(f"llm is limited already, by rate_limiter={llm.rate_limiter!r}")
    if isinstance(llm, AdaptiveLLM):
        raise ConfigurationError(f"llm is limited already, by its own AdaptiveLLM: {in_words(llm)}")
    for name, inner in llm.__dict__.items():
        if isinstance(inner, AdaptiveLLM):
            raise ConfigurationError(
                f"llm is limited already, by the AdaptiveLLM that is its {name}: {in_words(llm)}"
            )


def _check_rate_limiter(rate_limiter: Any) -> None:
    if rate_limiter is not None:
        raise ConfigurationError(
            f"AdaptiveLLM is limited by its limiter=, not by rate_limiter={rate_limiter!r}"
        )


def _load(data: dict[str, Any]) -> LLM:
    """An LLM from its dictionary: one that LlamaIndex recognizes, or one of any class that is imported."""
    name = data.get("class_name")
    if name not in RECOGNIZED_LLMS:
        known = [LLM]
        for kind in known:
            known += kind.__subclasses__()
        for kind in known:
            if kind.class_name() == name:
                return kind.from_dict(data)
    return load_llm(data)


for _kind in (AdaptiveLLM, AdaptiveFunctionCallingLLM):
    span_where_heard(_kind)

RECOGNIZED_LLMS[AdaptiveLLM.class_name()] = AdaptiveLLM
