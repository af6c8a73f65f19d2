"""The right to make one call, from admission to settlement."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.ledger import HoldState
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.types import RateLimitInfo, Refusal

if TYPE_CHECKING:
    from types import TracebackType

    from adaptive_rate_limiter.backends.locked import LockedBucket
    from adaptive_rate_limiter.limiter import Limiter

__all__ = ["Reservation", "current_reservation"]

current_reservation: ContextVar[Reservation | None] = ContextVar(
    "adaptive_rate_limiter_current", default=None
)
"""The reservation that a request sent in this context belongs to."""


class Reservation:
    """One admitted call. Settle it with the real usage; it ends exactly once, on every way out.

    As a context manager (sync or async) it carries itself to the HTTP layer, and ends with the block: with
    the usage that a response told there. What is unknown stays charged.

    `waited` is the time in line in seconds, `wait_reason` the limit that it waited for (None: it did not).
    """

    __slots__ = (
        "_limiter", "_token", "bucket", "call", "closed", "model", "refusal", "reply", "sends",
        "wait_reason", "waited",
    )  # fmt: skip

    def __init__(self, limiter: Limiter, bucket: LockedBucket, call: Call, model: str | None) -> None:
        self._limiter = limiter
        self.bucket = bucket
        self.call = call
        self.model = model
        self.waited = 0.0
        self.wait_reason: str | None = None
        self.refusal: Refusal | None = None
        self.sends = 0
        self.reply: Any = None  # the HTTP layer's last response, with `usage()`
        self.closed = False
        self._token: Any = None

    @property
    def bucket_id(self) -> str:
        return self.bucket.bucket.bucket_id

    # What the provider says

    def observe(
        self, status_code: int, headers: Any = None, body: Any = None, *, url: str | None = None
    ) -> RateLimitInfo:
        """Learn from a response: its limits, and its refusal if it is one. Never raises for what it contains."""
        info = parse_response(headers, body, status_code, url=url, model=self.model)
        if not self.closed:
            self.refusal = info.refusal
            self.bucket.step(lambda bucket, now: bucket.observe(self.call, info, now))
        return info

    # The two ends

    def settle(
        self,
        *,
        tokens: float | None = None,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        cached_tokens: float = 0.0,
    ) -> bool:
        """Replace what was reserved by what was used. Only the first end counts; False if this was not it."""
        if self.closed:
            return False
        self.closed = True
        usage = Usage(input_tokens, output_tokens, tokens, cached_tokens)
        return self.bucket.step(lambda bucket, now: bucket.settle(self.call, usage, now))

    def cancel(self) -> bool:
        """Give everything back: the request was never sent."""
        if self.closed:
            return False
        self.closed = True
        return self.bucket.step(lambda bucket, now: bucket.cancel(self.call, now))

    def lapse(self) -> bool:
        """End it as unknown: it was sent, and what was reserved stays charged."""
        if self.closed:
            return False
        self.closed = True
        return self.bucket.step(lambda bucket, _now: bucket.lapse(self.call))

    # The way to the HTTP layer

    def attach(self) -> None:
        """Requests sent in this context belong to this reservation."""
        current_reservation.set(self)

    def begin_send(self, url: str, credential: str | None) -> bool:
        """Announce one attempt on the wire, and say whether it has to be admitted first (`readmit`)."""
        self.sends += 1
        moved = self._limiter.rehome(self, url, credential)
        hold = self.call.hold
        if moved or self.sends > 1 or hold is None or hold.state is not HoldState.RESERVED:
            return True
        hold.sent_at = self._limiter.clock.now()  # admitted some time ago, perhaps, in a busy process
        return False

    def never_sent(self) -> None:
        """An attempt failed before it left: it is given back, and another may follow."""
        self.bucket.step(lambda bucket, now: bucket.cancel(self.call, now))

    @property
    def max_pause(self) -> float:
        return self._limiter.max_pause

    def readmit(self) -> None:
        """Wait for admission again: a retry is an attempt like any other."""
        self._limiter.readmit(self)

    async def areadmit(self) -> None:
        await self._limiter.areadmit(self)

    def __enter__(self) -> Reservation:
        self._token = current_reservation.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # an async generator may be closed in another context
            current_reservation.reset(self._token)
        usage = self.reply.usage() if self.reply is not None and not self.closed else None
        if usage is None:
            self.lapse()
        else:
            self.settle(**usage)

    async def __aenter__(self) -> Reservation:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def abandon(self) -> None:
        """`lapse` for a garbage collector's callback: takes no lock."""
        if not self.closed and self.call.hold is not None:
            self.closed = True
            self.bucket.abandon(self.call)

    def __del__(self) -> None:
        self.abandon()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Reservation of {self.bucket_id}, {state}, waited {self.waited:.3f} s>"
