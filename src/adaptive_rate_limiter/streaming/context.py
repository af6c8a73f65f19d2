"""One stream's reservation, and what its chunks have told so far."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.answers import answer_of_error, usage_of_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from adaptive_rate_limiter.reservation import Reservation

__all__ = ["StreamingReservationContext"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class StreamingReservationContext:
    """A stream's reservation until the stream ends: with the usage that its chunks told, else as it was reserved.

    Of a stream that breaks off, the usage counts if it was told once, as most providers do at the end. One that
    is told again and again says what was used so far: less than was reserved is not given back then.

    `metrics_callback` gets (reserved, used, whether the usage was told, bucket, seconds) when the stream was
    read to its end, `error_metrics_callback` the bucket when it was not. What they raise is logged.
    Times are seconds of the monotonic clock.
    """

    reservation_id: str
    bucket_id: str
    request_id: str
    reserved_tokens: int
    reservation: Reservation | None = None
    created_at: float = field(default_factory=time.monotonic)
    final_tokens: int | None = None
    chunk_count: int = 0
    last_chunk_at: float | None = None
    metrics_callback: Callable[[int, int, bool, str, float | None], object] | None = None
    error_metrics_callback: Callable[[str | None], object] | None = None
    on_end: Callable[[], object] | None = None
    ended: bool = field(default=False, init=False)
    _usage: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _told: int = field(default=0, init=False, repr=False)

    def record_chunk(self, chunk: Any = None) -> None:
        """Note that a chunk came, and the usage that it tells. The chunk is not kept."""
        self.chunk_count += 1
        self.last_chunk_at = time.monotonic()
        usage = usage_of_result(chunk)
        if usage:
            self._usage.update(usage)
            self._told += "output_tokens" in usage or "tokens" in usage
            self.set_final_tokens(_total(self._usage))

    def set_final_tokens(self, tokens: float | None) -> None:
        """What the stream has used; what is no number of at least 0 changes nothing."""
        if isinstance(tokens, (int, float)) and not isinstance(tokens, bool) and 0 <= tokens < math.inf:
            self.final_tokens = int(tokens)

    @property
    def actual_tokens_for_release(self) -> int:
        """What it used, or what was reserved if that is not known."""
        return self.reserved_tokens if self.final_tokens is None else self.final_tokens

    @property
    def duration_seconds(self) -> float | None:
        """From its creation to the last chunk; None before the first."""
        return None if self.last_chunk_at is None else self.last_chunk_at - self.created_at

    # Its ends; the first one counts

    def complete(self) -> None:
        """It was read to its end."""
        if self._end(self._usage or self._stated()):
            self._report(
                self.metrics_callback, self.reserved_tokens, self.actual_tokens_for_release,
                self.final_tokens is not None, self.bucket_id, self.duration_seconds,
            )  # fmt: skip

    def fail(self, error: BaseException | None = None) -> None:
        """It broke off: by `error`, or because nobody reads on."""
        if self.ended:
            return
        answer = answer_of_error(error) if isinstance(error, Exception) else None
        if answer is not None and self.reservation is not None:
            self.reservation.observe(*answer)
        self._end(self._usage_so_far())
        self._report(self.error_metrics_callback, self.bucket_id)

    def abandon(self) -> None:
        """`fail` for a garbage collector's callback: takes no lock."""
        if self.ended:
            return
        self.ended = True
        if self.reservation is not None:
            self.reservation.abandon(self._usage_so_far())
        self._tell_end()
        self._report(self.error_metrics_callback, self.bucket_id)

    def _end(self, usage: dict[str, float]) -> bool:
        if self.ended:
            return False
        self.ended = True
        if self.reservation is not None:
            self.reservation.settle(**usage)
        self._tell_end()
        return True

    def _tell_end(self) -> None:
        if self.on_end is not None:
            self.on_end()

    def _stated(self) -> dict[str, float]:
        return {} if self.final_tokens is None else {"tokens": self.final_tokens}

    def _usage_so_far(self) -> dict[str, float]:
        usage = self._usage or self._stated()
        total = _total(usage)
        if self._told <= 1 or (total is not None and total > self.reserved_tokens):
            return usage
        return {}

    def _report(self, callback: Callable[..., object] | None, *given: object) -> None:
        if callback is None:
            return
        try:
            callback(*given)
        except Exception:
            logger.exception("a callback of stream %s failed", self.reservation_id)


def _total(usage: dict[str, float]) -> float | None:
    if "tokens" in usage:
        return usage["tokens"]
    if "output_tokens" in usage:
        return usage.get("input_tokens", 0.0) + usage["output_tokens"]
    return None
