"""What a scheduler is given, and what it asks of the objects of its user."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timezone
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from adaptive_rate_limiter.types import RateLimitInfo

__all__ = [
    "AUDIO",
    "EMBEDDING",
    "GENERIC",
    "IMAGE",
    "RESOURCE_TYPES",
    "TEXT",
    "ClassifierProtocol",
    "ClientProtocol",
    "DiscoveredBucket",
    "ProviderInterface",
    "RequestMetadata",
    "ResourceType",
    "StreamingResponseProtocol",
]

ResourceType = str
"""What a request asks for: one of RESOURCE_TYPES, or any other word."""

TEXT: ResourceType = "text"
IMAGE: ResourceType = "image"
AUDIO: ResourceType = "audio"
EMBEDDING: ResourceType = "embedding"
GENERIC: ResourceType = "generic"
RESOURCE_TYPES = frozenset({TEXT, IMAGE, AUDIO, EMBEDDING, GENERIC})


@dataclass
class RequestMetadata:
    """One request, as its caller announces it.

    `request_id`: any name; several requests may share one. `model_id` and `resource_type` lead to its bucket;
    `requires_model=False` says that the model does not matter.
    `estimated_tokens`: its size, input and output together; None for what requests like it have used so far.
    `priority`: higher goes first. `client_id`: the tenant that the request is for.
    `timeout`: seconds from submission until it must have been answered; None, the default, has no bound.
    `submitted_at` and `endpoint` are the caller's own notes.

    Raises ConfigurationError naming the field and its value.
    """

    request_id: str
    model_id: str
    resource_type: ResourceType
    estimated_tokens: int | None = None
    priority: int = 0
    submitted_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    timeout: float | None = None
    client_id: str | None = None
    endpoint: str | None = None
    requires_model: bool = True

    def __post_init__(self) -> None:
        for name in ("request_id", "model_id", "resource_type"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ConfigurationError(f"{name} must be a name, got {value!r}")
        tokens = self.estimated_tokens
        if tokens is not None and not (_is_number(tokens) and 0 <= tokens < math.inf):
            raise ConfigurationError(f"estimated_tokens must be at least 0, got {tokens!r}")
        if not (_is_number(self.priority) and abs(self.priority) < math.inf):
            raise ConfigurationError(f"priority must be a finite number, got {self.priority!r}")
        if self.timeout is not None and not (_is_number(self.timeout) and self.timeout > 0):
            raise ConfigurationError(f"timeout must be seconds above 0, or None, got {self.timeout!r}")
        if self.client_id is not None and not isinstance(self.client_id, str):
            raise ConfigurationError(f"client_id must be a name, got {self.client_id!r}")


@dataclass
class DiscoveredBucket:
    """What a provider knows of one bucket: limits per minute, and what is left of them; None is not known."""

    bucket_id: str
    rpm_limit: int | None = None
    tpm_limit: int | None = None
    rpm_remaining: int | None = None
    tpm_remaining: int | None = None


@runtime_checkable
class ClientProtocol(Protocol):
    """The API that requests go to. `base_url` tells how its provider writes and charges limits."""

    @property
    def base_url(self) -> str: ...

    @property
    def timeout(self) -> float: ...

    def get_headers(self) -> dict[str, str]: ...


@runtime_checkable
class ClassifierProtocol(Protocol):
    """Turns a request, as the application has it, into its metadata."""

    async def classify(self, request: dict[str, Any]) -> RequestMetadata: ...


@runtime_checkable
class StreamingResponseProtocol(Protocol):
    """A response that holds its stream inside: the stream is replaced there, and the response stays itself."""

    def get_iterator(self) -> AsyncIterator[Any]: ...

    def set_iterator(self, iterator: AsyncIterator[Any]) -> None: ...


class ProviderInterface(ABC):
    """One's own knowledge of a provider: where its limits are found, and which bucket a model belongs to.

    Whatever fails in here is logged, and the scheduler goes on without it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The provider, in logs."""

    @abstractmethod
    async def discover_limits(
        self, force_refresh: bool = False, timeout: float = 30.0
    ) -> dict[str, DiscoveredBucket]:
        """Buckets by id, asked for once when a scheduler starts; ``{}`` where nothing can be found out."""

    @abstractmethod
    def parse_rate_limit_response(
        self, headers: dict[str, str], body: dict[str, Any] | None = None, status_code: int | None = None
    ) -> RateLimitInfo:
        """Limits that a response tells, with the names of headers in lower case.

        What the response does not tell is None; 0 of a limit of 0 counts as not told, too.
        """

    @abstractmethod
    async def get_bucket_for_model(self, model_id: str, resource_type: str | None = None) -> str:
        """The bucket of a model. Asked for once per model and resource type.

        Raises BucketNotFoundError, which reaches the caller, for a model that must not be used.
        """


def _is_number(value: object) -> bool:
    return type(value) in {int, float} or (isinstance(value, Real) and not isinstance(value, bool))
