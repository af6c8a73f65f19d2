"""Stops sending to a bucket where everything fails."""

from __future__ import annotations

from collections import deque

from adaptive_rate_limiter.exceptions import TooManyFailedRequestsError

__all__ = ["Breaker"]


class Breaker:
    """One bucket's circuit: open after `most` failures in a row within `window` seconds, until they are older.

    A success ends the row: the next failure begins with another breaker.
    """

    __slots__ = ("_failures", "_most", "_window")

    def __init__(self, most: int, window: float) -> None:
        self._most = most
        self._window = window
        self._failures: deque[float] = deque(maxlen=most)

    def failed(self, now: float) -> None:
        self._failures.append(now)

    def check(self, bucket_id: str, now: float) -> None:
        """Raises TooManyFailedRequestsError if the circuit is open."""
        failures = self._failures
        while failures and failures[0] <= now - self._window:
            failures.popleft()
        if len(failures) >= self._most:
            raise TooManyFailedRequestsError(
                f"Too many failed requests: {len(failures)} of {bucket_id} in a row within {self._window:g} s",
                len(failures),
                self._window,
                self._most,
            )
