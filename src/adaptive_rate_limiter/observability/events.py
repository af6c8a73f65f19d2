"""Hands events on: to the log "adaptive_rate_limiter", and to whoever has subscribed."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from adaptive_rate_limiter.core.events import SENTENCES, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Event", "is_wanted", "publish", "subscribe"]

logger = logging.getLogger("adaptive_rate_limiter")


class _Subscription(NamedTuple):
    callback: Callable[[Event], object]


# What the limiter deals with by itself is for those who look closer. A warning is for what somebody has to see to.
LEVELS = dict.fromkeys(SENTENCES, logging.DEBUG) | {
    "limit_learned": logging.INFO,
    "limit_changed": logging.INFO,
    "limit_contradicted": logging.INFO,
    "waiting": logging.INFO,
    "outage": logging.INFO,  # the backend itself warns, once for all of its buckets
    "outage_over": logging.INFO,
}
NOT_CURED_BY_TIME = frozenset({"quota_exhausted", "request_too_large", "not_entitled"})

_subscriptions: tuple[_Subscription, ...] = ()
_subscribing = threading.Lock()


def subscribe(callback: Callable[[Event], object]) -> Callable[[], None]:
    """Call `callback` with every event of every limiter in this process. Returns what ends it.

    It runs wherever the event was noticed, a thread of the limiter's own or one that runs an event loop, and
    holds that up: it has to be short. What it raises is logged and reaches nobody.
    """
    global _subscriptions  # noqa: PLW0603 - one list a process is the point
    mine = _Subscription(callback)
    with _subscribing:
        _subscriptions = (*_subscriptions, mine)

    def unsubscribe() -> None:
        global _subscriptions  # noqa: PLW0603 - as above
        with _subscribing:
            _subscriptions = tuple(other for other in _subscriptions if other is not mine)

    return unsubscribe


def is_wanted(name: str) -> bool:
    """Whether anybody would hear of an event: to be asked where it takes work to make one."""
    return bool(_subscriptions) or logger.isEnabledFor(LEVELS[name])


def publish(events: Iterable[Event]) -> None:
    """Hand on `events`; to be called with no lock held. Never raises."""
    for event in events:
        level = _level(event)
        if logger.isEnabledFor(level):
            fields = {"event": event.name, "bucket_id": event.bucket_id, "count": event.count, **event.fields}
            logger.log(level, "%s", event, extra=fields)
        for subscription in _subscriptions:
            _tell(subscription.callback, event)


def _tell(callback: Callable[[Event], object], event: Event) -> None:
    try:
        callback(event)
    except Exception:
        logger.exception("a subscriber failed on %s", event.name)


def _level(event: Event) -> int:
    return logging.WARNING if event.fields.get("kind") in NOT_CURED_BY_TIME else LEVELS[event.name]
