"""The scheduler: `await scheduler.submit_request(metadata, request_func)` returns what `request_func` returned."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.exceptions import ConfigurationError, RateLimiterError
from adaptive_rate_limiter.http import observe_http as start_observation
from adaptive_rate_limiter.limiter import Limiter
from adaptive_rate_limiter.observability import export_if_installed
from adaptive_rate_limiter.protocols import TEXT, RequestMetadata
from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.scheduler.config import RateLimiterConfig, SchedulerMode, StateConfig, mode_of
from adaptive_rate_limiter.scheduler.line import NOT_KNOWN_YET, Place
from adaptive_rate_limiter.scheduler.modes import MODES
from adaptive_rate_limiter.scheduler.provider import Provider
from adaptive_rate_limiter.scheduler.run import STOPPED, Run
from adaptive_rate_limiter.scheduler.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from typing_extensions import Self

    from adaptive_rate_limiter.backends import BaseBackend
    from adaptive_rate_limiter.clock import Clock
    from adaptive_rate_limiter.http import HttpObservation
    from adaptive_rate_limiter.protocols import ClassifierProtocol, ClientProtocol, ProviderInterface

__all__ = ["Scheduler", "create_scheduler"]

logger = logging.getLogger(__name__)

CLIENT = ("base_url", "timeout", "get_headers")
PROVIDER = ("discover_limits", "parse_rate_limit_response", "get_bucket_for_model")
CLASSIFIER = ("classify",)
CLASSIFIER_PATIENCE = 5.0  # seconds; then a request goes by its model alone
HEAD_START = 3  # turns of the event loop: who needs no I/O has told the limits before the first request


class Scheduler:
    """Runs requests under the limits of their provider, which it learns from the responses.

    Only `client` is needed. `config.mode` chooses how it works. `provider`: one's own knowledge of limits and
    buckets, in place of the built-in reading of headers. `classifier`: makes metadata of requests that are
    submitted as mappings. `backend`: where the limits' state lives, memory unless given. `state_config`: its
    namespace and safety. `quotas`, `weights` (of the tenants in account mode) and `clock` are those of `Limiter`.
    `observe_http=False` leaves httpx alone: limits are then learned from results and errors only.

    It works between `start` and `stop`, or within `async with`, in one event loop at a time; what it has
    learned stays from one to the next.

    Raises ConfigurationError naming the argument.
    """

    def __init__(  # noqa: PLR0917 - the names and their order are published
        self,
        client: ClientProtocol,
        config: RateLimiterConfig | None = None,
        provider: ProviderInterface | None = None,
        classifier: ClassifierProtocol | None = None,
        backend: BaseBackend | None = None,
        state_config: StateConfig | None = None,
        *,
        quotas: Any = None,
        weights: Mapping[str, float] | None = None,
        clock: Clock | None = None,
        observe_http: bool = True,
    ) -> None:
        _check("client", client, CLIENT)
        if provider is not None:
            _check("provider", provider, PROVIDER)
        if classifier is not None:
            _check("classifier", classifier, CLASSIFIER)
        self.client = client
        self.config = _of_type("config", config, RateLimiterConfig)
        self.state_config = _of_type("state_config", state_config, StateConfig)
        self.provider = provider
        self.classifier = classifier
        self._provider = None if provider is None else Provider(provider)
        self.limiter = Limiter(
            backend,
            namespace=self.state_config.namespace,
            quotas=quotas,
            weights=weights,
            clock=clock,
            max_concurrency=self.config.max_concurrent_executions,
            headroom=1.0 - self.config.rate_limit_buffer_ratio,
            eager=MODES[self.config.mode].eager,
            parse=parse_response if self._provider is None else self._provider.parse,
        )
        self._observe_http = observe_http
        self._observation: HttpObservation | None = None
        self._run: Run | None = None
        self._entered = 0

    async def submit_request(
        self, metadata: RequestMetadata | Mapping[str, Any], request_func: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Run `request_func()` as soon as the limits allow it, and return what it returned.

        It is called once per attempt. A stream comes back as one that settles its usage by itself; all other
        results come back as they are. `metadata` may be a mapping where there is a classifier.

        Raises what `request_func` raises, and: CapacityExceededError, with `bucket_id` and `retry_after`, if the
        request can never pass, or not within its `timeout`, or was refused in the end; QueueOverflowError if
        too many wait; TooManyFailedRequestsError if the bucket's circuit is open; RequestTimeoutError if it got no
        answer in time; RateLimiterError if the scheduler is not running or stops.
        """
        run = self._run
        if run is None or run.closing or run.loop is not asyncio.get_running_loop():
            raise RateLimiterError(
                "Scheduler is not running in this event loop: enter `async with scheduler`"
            )
        run.begin()
        try:
            if not callable(request_func):
                raise ConfigurationError(f"request_func must be callable, got {request_func!r}")
            if not isinstance(metadata, RequestMetadata):
                metadata = await self._classified(metadata, run)
            timeout = math.inf if metadata.timeout is None else metadata.timeout
            deadline = run.loop.time() + timeout
            bucket_id = run.mode.bucket_for(metadata)
            if self._provider is not None:
                bucket_id = await self._provider.bucket_for(metadata, bucket_id, run, timeout)
            if run.closing:
                raise RateLimiterError(STOPPED)
            return await Submission(run, bucket_id, metadata, request_func, deadline).result()
        finally:
            run.end()

    async def _classified(self, request: Any, run: Run) -> RequestMetadata:
        if self.classifier is None or not isinstance(request, Mapping):
            raise ConfigurationError(
                f"metadata must be RequestMetadata, or a mapping where a classifier is given, got {request!r}"
            )
        try:
            with Place(run.line, NOT_KNOWN_YET):
                classified = self.classifier.classify(dict(request))
                metadata = await asyncio.wait_for(classified, CLASSIFIER_PATIENCE)
            if not isinstance(metadata, RequestMetadata):
                raise TypeError(f"a classifier must return RequestMetadata, got {metadata!r}")  # noqa: TRY301 - reported below
        except Exception:
            if run.closing:
                raise RateLimiterError(STOPPED) from None
            logger.exception("the classifier failed; the request goes by its model alone")
            model = str(request.get("model") or "unknown")
            return RequestMetadata(request_id="unclassified", model_id=model, resource_type=TEXT)
        return metadata

    # Its life

    def is_running(self) -> bool:
        return self._run is not None and not self._run.loop.is_closed()

    async def start(self) -> None:
        """Begin to take requests; another time changes nothing. The provider is asked in the background.

        Raises RateLimiterError if it works in another event loop.
        """
        loop = asyncio.get_running_loop()
        run = self._run
        if run is not None and run.loop is not loop and run.loop.is_running():
            raise RateLimiterError(
                "Scheduler is running in another event loop; one of its own may share a backend"
            )
        if run is not None and run.loop is loop:
            return
        self._run = run = Run(self.limiter, self.config, str(self.client.base_url))
        self._entered = 0  # blocks of a loop that is gone are not left any more
        if self._observe_http and self._observation is None:
            self._observation = start_observation()
        export_if_installed(self.limiter)
        await run.streams.start()
        if self._provider is not None:
            run.keep(asyncio.create_task(self._provider.discover(self.limiter.tell)))
            for _ in range(HEAD_START):
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """Send away who waits, wait for what is under way, and end what is open. May be called again."""
        await self._stop(abort=False)

    async def _stop(self, *, abort: bool) -> None:
        run = self._run
        if run is not None and run.loop is not asyncio.get_running_loop() and run.loop.is_running():
            raise RateLimiterError("Scheduler is running in another event loop, and is to be stopped there")
        self._run, self._entered = None, 0
        if run is not None and run.loop is asyncio.get_running_loop():
            await run.close(abort=abort)
        if self._observation is not None and self._run is None:
            self._observation.stop()
            self._observation = None

    async def __aenter__(self) -> Self:
        await self.start()
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last of several blocks stops it; one that ends by an error does not wait for what is under way."""
        self._entered -= 1
        if self._entered <= 0:
            await self._stop(abort=error is not None)

    # Reports

    def get_metrics(self) -> dict[str, Any]:
        """How much is under way, and the limiter's snapshot of all buckets."""
        run = self._run
        return {
            "scheduler_mode": self.config.mode.value,
            "running": self.is_running(),
            "waiting_requests": 0 if run is None else len(run.line),
            "active_requests": 0 if run is None else len(run.attempts) + len(run.streams),
            "open_streams": 0 if run is None else len(run.streams),
            "buckets": self.limiter.snapshot().buckets,
        }


def create_scheduler(  # noqa: PLR0917 - the names and their order are published
    client: ClientProtocol,
    mode: SchedulerMode | str | None = None,
    config: RateLimiterConfig | None = None,
    provider: ProviderInterface | None = None,
    classifier: ClassifierProtocol | None = None,
    backend: BaseBackend | None = None,
    state_config: StateConfig | None = None,
    **options: Any,
) -> Scheduler:
    """A `Scheduler`; `mode` ("basic", "intelligent", "account") goes before that of `config`.

    Raises ConfigurationError naming the argument; for an unknown mode, with the modes there are.
    """
    config = _of_type("config", config, RateLimiterConfig)
    if mode is not None:
        config = replace(config, mode=mode_of(mode))
    return Scheduler(client, config, provider, classifier, backend, state_config, **options)


def _of_type(name: str, given: Any, kind: type) -> Any:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}, got {given!r}")
    return given


def _check(name: str, given: object, wanted: tuple[str, ...]) -> None:
    """Whether it has what its protocol names; it need not be derived from it."""
    missing = [attribute for attribute in wanted if not hasattr(given, attribute)]
    if missing:
        raise ConfigurationError(
            f"{name} must have {', '.join(wanted)}; {given!r} lacks {', '.join(missing)}"
        )
