"""How far a batch is, as a bar of tqdm: the rate, the time left as the limits have it, what binds and what waits."""

from __future__ import annotations

import io
import sys
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS
from adaptive_rate_limiter.report import AT_ONCE, Forecast, duration
from adaptive_rate_limiter.views.screen import Terminal, in_notebook
from adaptive_rate_limiter.views.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.report import BucketSnapshot, Reports

__all__ = ["Pace", "Progress", "progress_of"]

EVERY = 0.2  # seconds between two looks at the limiter: as often as an eye follows
AT_LEAST_EVERY = 1.0  # seconds between two, where nothing ends
FORMAT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Pace:
    """What the limiter says of the rest of a batch, whose share of the limiter's work is what came since it began."""

    def __init__(self, limiter: Reports) -> None:
        self._limiter = limiter
        self._before = {bucket.tally.serial: _used(bucket) for bucket in limiter.snapshot().buckets}

    def forecast(self, done: int, left: int) -> Forecast:
        """How long `left` more items take, if they take what those that are done took."""
        slowest = Forecast(None, None)
        for bucket in self._limiter.snapshot().buckets:
            before = self._before.get(bucket.tally.serial, {})
            used = {unit: max(0.0, much - before.get(unit, 0.0)) for unit, much in _used(bucket).items()}
            items = done + bucket.in_flight
            if not used[REQUESTS] or not items:
                continue
            rest = max(
                0, left - bucket.in_flight - bucket.waiting
            )  # who is in line is in the forecast anyway
            each = rest / items
            forecast = self._limiter.forecast(
                model=bucket.model,
                requests=each * used[REQUESTS],
                tokens=each * used[TOKENS],
                input_tokens=each * used[INPUT_TOKENS],
                output_tokens=each * used[OUTPUT_TOKENS],
            )
            if forecast.seconds is not None and forecast.seconds >= (slowest.seconds or 0.0):
                slowest = forecast
        return slowest

    def say(self, done: int, left: int, failed: int, rate: float | None) -> str:
        """In a line: what is left, what binds, who waits, what failed. `rate`: items a second so far."""
        waiting = self._limiter.waiting
        parts = []
        if left:
            forecast = self.forecast(done, left)
            if forecast.seconds and forecast.seconds >= AT_ONCE:
                bound = f", bound by {forecast.binds}" if forecast.binds else ""
                parts.append(f"about {duration(forecast.seconds)} left{bound}")
            elif rate:
                parts.append(f"about {duration(left / rate)} left")
        if waiting:
            parts.append(f"{waiting:,} in line")
        if failed:
            parts.append(f"{failed:,} failed")
        return "; ".join(parts)


class Progress:
    """A bar. `add` is cheap, and is called from any thread, one at a time."""

    def __init__(self, limiter: Reports, total: int, known: Sequence[Any]) -> None:
        self._pace = Pace(limiter)
        self._total = total
        self._done = self._earlier = len(known)
        self._failed = sum(not outcome.ok for outcome in known)
        self._began = time.monotonic()
        self._said_at = self._began
        self._screen = Terminal.live
        self._bar = _tqdm()(
            total=total, initial=self._done, bar_format=FORMAT, mininterval=EVERY, **_place(self._screen)
        )
        if self._screen is not None:
            self._screen.begin(self._bar)
        self._ticker = Ticker(limiter.clock, AT_LEAST_EVERY, self._renew)
        self._ticker.start()

    def add(self, *, ok: bool) -> None:
        self._done += 1
        self._failed += not ok
        if time.monotonic() - self._said_at >= EVERY:
            self._say()
        self._bar.update()

    def close(self) -> None:
        self._ticker.stop()
        self._bar.close()
        if self._screen is not None:
            self._screen.end(self._bar)

    def _renew(self) -> None:
        """Also while nothing ends: that is when one wants to know."""
        self._say()
        self._bar.refresh()

    def _say(self) -> None:
        self._said_at = now = time.monotonic()
        done = self._done - self._earlier
        rate = done / (now - self._began) if now > self._began else None
        self._bar.set_postfix_str(
            self._pace.say(done, self._total - self._done, self._failed, rate), refresh=False
        )


def progress_of(
    limiter: Reports, total: int, known: Sequence[Any], *, wanted: bool | None
) -> Progress | None:
    """A bar if it is wanted; where nobody said, if somebody looks and tqdm is installed.

    Raises ImportError if it is wanted, and tqdm is not installed.
    """
    if wanted is None:
        wanted = (sys.stderr.isatty() or in_notebook()) and find_spec("tqdm") is not None
    if not wanted:
        return None
    try:
        return Progress(limiter, total, known)
    except ModuleNotFoundError as error:
        raise ImportError("progress needs tqdm: pip install 'adaptive-rate-limiter[notebook]'") from error


def _place(screen: Terminal | None) -> dict[str, Any]:
    """Where it is drawn. What a notebook gets on stderr looks like an error there, and out of order."""
    if screen is not None:
        return {"file": io.StringIO(), "ncols": screen.width, "ascii": False}
    return {"file": sys.stdout} if in_notebook() else {}


def _tqdm() -> Any:
    """That of a notebook where its widgets are installed, else that of a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "IProgress not found": then it is a bar of text
        return import_module("tqdm.auto").tqdm


def _used(bucket: BucketSnapshot) -> dict[str, float]:
    """Calls and tokens so far; what was estimated too high or too low was the answer."""
    tally = bucket.tally
    used = {unit: tally.reserved.get(unit, 0.0) for unit in (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)}
    for unit in (TOKENS, OUTPUT_TOKENS):
        used[unit] += tally.underestimated - tally.overestimated
    return {REQUESTS: float(bucket.admitted), **used}
