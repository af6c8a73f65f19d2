"""What goes between a worker and the pool: a renewal of its lease, and the grant that answers it."""

from __future__ import annotations

from dataclasses import dataclass, field

NO_HEADER = -2e12  # `sent` of what is left at the most, as far as a worker remembers it


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker did with its lease on one limit since its last renewal, and how much of it it keeps.

    `flying`: sent, and not counted in any header yet. `pace`: what it spends in one lease time. `late`: what a busy
    process sent long after it was admitted, which was `admitted` seconds ago for the first of it, and `sent` seconds ago
    for the last.
    """

    key: str
    spent: float = 0.0
    kept: float = 0.0
    flying: float = 0.0
    pace: float = 0.0
    late: float = 0.0
    admitted: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class Fact:
    """What a worker knows of one limit: `key` names it, `evidence` is the number of readings behind it.

    `algorithms` holds one letter for each plausible way of counting: "b" token bucket, "f" fixed window, "s"
    sliding window. `remaining` is what a header told, if it told anything; `sent` and `refilled` are those of the
    last grant before its request was sent, `age` seconds ago. `ends_in` is when the told reset of a window is
    due, below zero if it has passed; 0 if none was told.
    """

    key: str
    unit: str
    limit: float
    window: float = 60.0
    burst: float = 0.0
    algorithms: str = "b"
    evidence: float = 0.0
    remaining: float = -1.0  # below zero: not told
    sent: float = 0.0
    refilled: float = 0.0
    age: float = 0.0
    ends_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """A quantile as one worker has it: its `value` now, and its `base` when the pool last told it, 0 if never.

    `seen`: how many numbers it has learned from since then.
    """

    name: str
    value: float
    base: float
    seen: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """One step of one worker. Units are those of calls: a limit's own unit stands in its facts.

    `number` counts the worker's renewals, and fences: a renewal with the number of the last one is answered
    again and changes nothing. `need` is what the next call takes, granted whole or not at all; `due` what all
    that wait will take, and spend at once; `want` what else would be of use. `refused`: the provider's refusals
    since the last renewal, for reports. Where nobody tells a limit, `sent` is how many requests were sent since then,
    and `limited` how many of them were refused for a limit; of each unit `flying` was sent and is not answered. `pool` is the one that answered last, 0 if none did, and
    `workers` how many it had. `away`: for how many seconds each of them has been sending without a pool; what this one
    sent meanwhile, its next renewal tells.
    """

    worker: str
    number: int
    need: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    want: dict[str, float] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    facts: tuple[Fact, ...] = ()
    weight: float = 1.0
    pause: float = 0.0
    reason: str = ""
    refused: int = 0
    lessons: tuple[Lesson, ...] = ()
    sent: float = 0.0
    limited: int = 0
    flying: dict[str, float] = field(default_factory=dict)
    pool: float = 0.0
    workers: int = 1
    away: float = 0.0


@dataclass(frozen=True, slots=True)
class Granted:
    """One limit, and what the worker was granted of it; the part `due` of that counts as spent already.

    `left` is what remains in the pool, `rate` the worker's share per second. `sent` and `refilled` go back with the
    facts that headers tell.
    """

    key: str
    unit: str
    limit: float
    window: float
    burst: float
    algorithms: str
    evidence: float
    amount: float
    due: float
    left: float
    rate: float
    sent: float
    refilled: float


@dataclass(frozen=True, slots=True)
class Learned:
    """A quantile as all workers have it, from `count` numbers."""

    name: str
    value: float
    count: int


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a renewal.

    `expires_in`: seconds from the renewal until the lease ends. `retry_in`: when to ask for what is missing, 0 if
    nothing is. `hungry`: others wait. `workers`: how many renew. `pause`: seconds in which nobody sends, and `reason`.
    `pool`: which one it is; what the marks of another say is void.
    """

    number: int
    expires_in: float
    retry_in: float
    hungry: bool
    workers: int
    pause: float
    reason: str
    limits: tuple[Granted, ...]
    learned: tuple[Learned, ...] = ()
    pool: float = 0.0
