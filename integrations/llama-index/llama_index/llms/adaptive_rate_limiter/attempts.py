"""One call of a wrapped model: admitted, sent, settled; and sent again when a wait cures its refusal."""

from __future__ import annotations

from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar

from adaptive_rate_limiter import CapacityExceededError, RefusalKind
from adaptive_rate_limiter.adapters import add_note, learn_refusal
from adaptive_rate_limiter.reservation import current_reservation
from llama_index.llms.adaptive_rate_limiter.events import tell_wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable

    from adaptive_rate_limiter import Limiter, Reservation

    Settle = Callable[[Reservation, Any], None]

T = TypeVar("T")

MOST_SENDS = 10  # of one call that is refused each time, retries inside its SDK included


class Attempts:
    """`size`: arguments of `Limiter.acquire`. Each instance makes one call, in one of its four forms.

    Whatever the model raises reaches the caller unchanged. If that was a refusal, and it is not worth another
    attempt, the limiter's reason is a note on it.
    """

    __slots__ = ("limiter", "reservation", "sends", "size")

    def __init__(self, limiter: Limiter, size: dict[str, Any]) -> None:
        self.limiter = limiter
        self.size = size
        self.reservation: Reservation | None = None
        self.sends = 0

    @property
    def too_large(self) -> bool:
        """It failed since it is larger than the limit allows at all: a smaller call may pass."""
        refusal = self.reservation.refusal if self.reservation is not None else None
        return refusal is not None and refusal.kind is RefusalKind.REQUEST_TOO_LARGE

    def call(self, send: Callable[[], T], settle: Settle) -> T:
        self.reservation = reservation = self.limiter.acquire(**self.size)
        if reservation.waited:
            tell_wait(reservation)
        while True:
            try:
                with reservation:
                    answer = send()
                    settle(reservation, answer)
                    return answer
            except Exception as error:  # noqa: BLE001 - raised on, unless it is a refusal
                refused = self._refused(reservation, error)
            self._readmit(reservation, refused)
            del refused  # it holds this frame

    async def acall(self, send: Callable[[], Awaitable[T]], settle: Settle) -> T:
        self.reservation = reservation = await self.limiter.aacquire(**self.size)
        if reservation.waited:
            tell_wait(reservation)
        while True:
            try:
                async with reservation:
                    answer = await send()
                    settle(reservation, answer)
                    return answer
            except Exception as error:  # noqa: BLE001 - raised on, unless it is a refusal
                refused = self._refused(reservation, error)
            await self._areadmit(reservation, refused)
            del refused

    def stream(self, send: Callable[[], Iterable[T]], settle: Settle) -> Generator[T, None, None]:
        """A stream that is never read is never sent; one that is left early stays charged as it was reserved."""
        self.reservation = reservation = self.limiter.acquire(**self.size)
        tell_wait(reservation)
        last = None
        try:
            while True:
                try:
                    with closing(_steps(reservation, send)) as steps:
                        for last in steps:
                            yield last
                except Exception as error:
                    if last is not None:
                        raise
                    refused = self._refused(reservation, error)
                else:
                    settle(reservation, last)
                    return
                self._readmit(reservation, refused)
                del refused
        finally:
            reservation.lapse()

    async def astream(
        self,
        send: Callable[[], Awaitable[AsyncIterable[T]]],
        settle: Settle,
    ) -> AsyncGenerator[T, None]:
        self.reservation = reservation = await self.limiter.aacquire(**self.size)
        tell_wait(reservation)
        last = None
        try:
            while True:
                try:
                    async with aclosing(_asteps(reservation, send)) as steps:
                        async for last in steps:
                            yield last
                except Exception as error:
                    if last is not None:
                        raise
                    refused = self._refused(reservation, error)
                else:
                    settle(reservation, last)
                    return
                await self._areadmit(reservation, refused)
                del refused
        finally:
            reservation.lapse()

    def _refused(self, reservation: Reservation, error: Exception) -> Exception:
        """`error`, if it is the provider's refusal; anything else is raised on."""
        learn_refusal(reservation, error)
        if reservation.refusal is None:
            raise error
        self.sends += max(1, reservation.sends)
        return error

    def _readmit(self, reservation: Reservation, refused: Exception) -> None:
        why = self._spent(reservation)
        if why is None:
            try:
                self.limiter.readmit(reservation)
            except CapacityExceededError as never:
                why = str(never)
        self._again(reservation, refused, why)

    async def _areadmit(self, reservation: Reservation, refused: Exception) -> None:
        why = self._spent(reservation)
        if why is None:
            try:
                await self.limiter.areadmit(reservation)
            except CapacityExceededError as never:
                why = str(never)
        self._again(reservation, refused, why)

    def _spent(self, reservation: Reservation) -> str | None:
        if self.sends < MOST_SENDS:
            return None
        return f"{reservation.bucket_id} refused this call {self.sends} times"

    def _again(self, reservation: Reservation, refused: Exception, why: str | None) -> None:
        """Ready for the next attempt, or out with the refusal."""
        if why is not None:
            add_note(refused, why)
            raise refused
        tell_wait(reservation)
        reservation.sends, reservation.reply = 0, None


def _steps(reservation: Reservation, send: Callable[[], Iterable[T]]) -> Generator[T, None, None]:
    """The stream's items; the reservation is in force while one is fetched, and not while it is used."""
    stream = None
    try:
        while True:
            token = current_reservation.set(reservation)
            try:
                if stream is None:
                    stream = iter(send())
                item = next(stream)
            except StopIteration:
                return
            finally:
                current_reservation.reset(token)
            yield item
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


async def _asteps(
    reservation: Reservation, send: Callable[[], Awaitable[AsyncIterable[T]]]
) -> AsyncGenerator[T, None]:
    stream = None
    try:
        while True:
            token = current_reservation.set(reservation)
            try:
                if stream is None:
                    stream = aiter(await send())
                item = await anext(stream)
            except StopAsyncIteration:
                return
            finally:
                current_reservation.reset(token)
            yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
