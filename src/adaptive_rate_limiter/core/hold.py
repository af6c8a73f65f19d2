"""What one call has reserved, from its admission to its end."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptive_rate_limiter.core.gauge import Gauge
    from adaptive_rate_limiter.core.quota import Cost

Mark: TypeAlias = tuple[float, float, float, float]
"""Of one told gauge: all that was ever reserved; what others have in flight; what its sliding window has given back;
what was answered without a header.
"""


class HoldState(Enum):
    """A hold leaves RESERVED once; whatever comes later changes nothing."""

    RESERVED = "reserved"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNKNOWN = "unknown"


# To ask an enum for a member takes as long as a call of a function, and these two are asked for on every call.
RESERVED, SETTLED = HoldState.RESERVED, HoldState.SETTLED


class Hold:
    """What one call has reserved. `marks`: where each told gauge stood by then, this hold included."""

    __slots__ = (
        "answered", "at", "cost", "counted_at", "marks", "on_the_way", "sent", "sent_at", "seq", "state", "told", "written",
    )  # fmt: skip

    def __init__(self, cost: Cost, at: float, seq: int) -> None:
        self.cost = cost
        self.at = at
        self.sent_at = at  # later than `at` where a busy caller took its time
        self.sent = False  # it has left, as far as anybody will say
        self.on_the_way = False  # somebody will say when it is sent, and has not yet
        self.written = False  # `sent_at` is when the request left this machine, not when it was about to
        self.counted_at = at  # by the provider, as far as we know: windows give it back after that
        self.seq = seq
        self.marks: Sequence[Mark] = ()
        self.answered = False
        self.told: Sequence[Gauge] = ()  # those of which its reply told what remains
        self.state = RESERVED
