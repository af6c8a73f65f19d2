"""The right to make one call, from admission to settlement."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import Usage
from adaptive_rate_limiter.core.hold import HoldState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from adaptive_rate_limiter.backends.locked import LockedBucket
    from adaptive_rate_limiter.core.queue import Call
    from adaptive_rate_limiter.limiter import Limiter
    from adaptive_rate_limiter.routing import Key, Url
    from adaptive_rate_limiter.types import RateLimitInfo, Refusal

__all__ = ["Reservation", "current_reservation"]

UNANSWERABLE = (HoldState.CANCELLED, HoldState.REFUSED)

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
        "_limiter", "_resend", "_token", "_unsent", "bucket", "call", "closed", "key", "owner", "refusal", "reply", "sends",
        "traced", "wait_reason", "waited",
    )  # fmt: skip

    def __init__(self, limiter: Limiter, bucket: LockedBucket, call: Call, key: Key) -> None:
        self._limiter = limiter
        self.bucket = bucket
        self.call = call
        self.key = key
        self.waited = 0.0
        self.wait_reason: str | None = None
        self.refusal: Refusal | None = None
        self.sends = 0
        self._unsent = True  # it was admitted, and its request is still to come
        self.traced = False
        self._resend = False  # a request was announced that has to be admitted first
        self.reply: Any = None  # the HTTP layer's last response, with `usage()`
        self.closed = False
        self.owner: Any = None  # what a framework knows it by

    @property
    def model(self) -> str | None:
        return self.key[0]

    @property
    def bucket_id(self) -> str:
        return self.bucket.bucket.bucket_id

    # The end of a wait

    def let_in(self) -> None:
        """It need not stand in line any more: it was admitted, or raises why it cannot be."""
        call, now = self.call, self.now()
        call.wake = None
        self.waited += now - call.queued_at
        self.wait_reason = call.reason
        self.bucket.bucket.resume(call, now)
        if call.error is not None:
            self.closed = True
            raise call.error

    def leave(self) -> None:
        """The caller gave up waiting: nothing stays behind."""
        self.closed = True
        self.bucket.leave(self.call)

    # What the provider says

    def observe(
        self, status_code: int, headers: Any = None, body: Any = None, *, url: str | None = None
    ) -> RateLimitInfo:
        """Learn from a response: its limits, and its refusal if it is one. Never raises for what it contains.

        Before or after the end, but not of a call that was cancelled, which has no response, nor twice of one
        that was refused.
        """
        limiter = self._limiter
        info = limiter.parse(headers, body, status_code, url=url, model=self.model)
        call = self.call
        if call.admitted and (call.hold is None or call.hold.state not in UNANSWERABLE):
            self.refusal = info.refusal
            self.bucket.step(limiter.learn, call, info)
        return info

    def pass_unread(self) -> bool:
        """Note a success without reading it, if nothing is near its limit and one was read just now; else False."""
        limiter, call = self._limiter, self.call
        now = limiter.clock.now()
        if now >= self.bucket.bucket.unread_until or not limiter.may_pass_unread:
            return False
        self.refusal = None
        call.replied_at = now
        if call.hold is not None:  # it may just have been posted
            self.bucket.step(Bucket.pass_unread, call)
        return True

    # The two ends

    def settle(
        self,
        *,
        tokens: float | None = None,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        cached_tokens: float = 0.0,
    ) -> bool:
        """Replace what was reserved by what was used. Only the first end counts; False if this was not it.

        What is no finite number of at least 0 counts as not known, and stays charged as it was reserved.
        """
        if self.closed:
            return False
        self._close()
        usage = Usage(input_tokens, output_tokens, tokens, cached_tokens)
        return self.bucket.settle(self.call, usage)

    def cancel(self) -> bool:
        """Give everything back: the request was never sent."""
        if self.closed:
            return False
        self._close()
        return self.bucket.step(Bucket.cancel, self.call)

    def lapse(self) -> bool:
        """End it as unknown: it was sent, and what was reserved stays charged."""
        if self.closed:
            return False
        self._close()
        return self.bucket.lapse(self.call)

    def _close(self) -> None:
        self.closed = True
        if current_reservation.get() is self:  # what is sent next in this context is somebody else's
            current_reservation.set(None)

    # The way to the HTTP layer

    def attach(self) -> None:
        """Requests sent in this context belong to this reservation."""
        current_reservation.set(self)

    def begin_send(self, url: Url, credential: bytes | None, *, traceable: bool = False) -> bool:
        """Announce one attempt on the wire, and say whether it has to be admitted first (`readmit`).

        `traceable`: somebody could tell when it has left, by `begin(written=True)`; `traced` says if that is wanted.
        """
        self.sends += 1
        moved = self._limiter.routes.rehome(self, url, credential)
        call, core, now = self.call, self.bucket.bucket, self._limiter.clock.now()
        self.traced = traceable and now >= core.unread_until and core.times_matter()
        first, self._unsent = self._unsent, False
        if moved or not first or not (call.noted or call.reserved):
            self._resend = True
            return True
        core.begin(call, now, traced=self.traced)
        return False

    def never_sent(self) -> None:
        """An attempt failed before it left: it is given back, and another may follow."""
        self.bucket.step(Bucket.cancel, self.call)

    @property
    def may_try_again(self) -> bool:
        """Whether another attempt can pass: it was not refused for good, and no pause is too long for it."""
        refusal = self.refusal
        if refusal is not None and not refusal.retryable:
            return False
        return self.bucket.bucket.pause.until - self._limiter.clock.now() <= self._limiter.max_pause

    def readmit(self) -> None:
        """Wait for admission again: a retry is an attempt like any other."""
        self._limiter.readmit(self)
        self.begin()

    async def areadmit(self) -> None:
        """`readmit` for coroutines."""
        await self._limiter.areadmit(self)
        self.begin()

    def renew(self, call: Call) -> None:
        """Another attempt, which will be admitted next."""
        self.call = call
        self.closed = False
        self._unsent, self._resend = not self._resend, False

    def begin(self, *, written: bool = False) -> None:
        """It is sent now, which may be some time after it was admitted; or it was just `written` to the wire."""
        self.bucket.bucket.begin(self.call, self._limiter.clock.now(), written=written, traced=self.traced)

    def now(self) -> float:
        return self._limiter.clock.now()

    def __enter__(self) -> Self:
        self._token = current_reservation.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:  # noqa: SIM105 - this runs on every call, and takes a tenth of `suppress`
            current_reservation.reset(self._token)
        except ValueError:  # an async generator may be closed in another context
            pass
        if self.closed:
            return
        usage = None if self.reply is None else self.reply.usage()
        if usage is None:
            self.lapse()
        else:
            self.settle(**usage)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def abandon(self, usage: Mapping[str, float] | None = None) -> None:
        """`lapse`, or `settle(**usage)`, for a garbage collector's callback: takes no lock."""
        if self.closed:
            return
        reserved = self.call.reserved
        if usage and reserved:
            self._limiter.clock.call_at(-inf, partial(self._settle, usage))
        elif reserved or self.call.in_line:
            self.closed = True
            self.bucket.abandon(self.call)

    def _settle(self, usage: Mapping[str, float]) -> None:
        self.settle(**usage)

    def __del__(self) -> None:
        if not self.closed:
            self.abandon()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Reservation of {self.bucket_id}, {state}, waited {self.waited:.3f} s>"
