"""What the limiter is judged by: providers, work, and the least time that the limits allow for it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.simulation.simulate import Outcome, Provider, run

from adaptive_rate_limiter.testing.limits import FixedWindow, Limit, SlidingWindow, TokenBucket

Costs = list[dict[str, float]]

LATENCIES: dict[str, Callable[[random.Random], float]] = {
    "0.05 s": lambda rng: 0.05,
    "1 s": lambda rng: 1.0,
    "log-normal": lambda rng: rng.lognormvariate(math.log(3), 0.5),
}
ALIGNED_AT = 25.0  # seconds until the first end of an aligned window


def limit_of(algorithm: str, limit: float, window: float = 60.0, depth: float = 60.0) -> Limit:
    if algorithm == "aligned":
        return FixedWindow(limit, window, aligned=True, epoch=ALIGNED_AT - window)
    if algorithm == "fixed":
        return FixedWindow(limit, window)
    if algorithm == "sliding":
        return SlidingWindow(limit, window)
    return TokenBucket(limit, window, burst=depth)


def least_time(
    algorithm: str, limit: float, demand: float, depth: float = 60.0, window: float = 60.0
) -> float:
    """T*, and no less than one second: a ratio to nothing says nothing."""
    if algorithm == "bucket":
        return max(1.0, (demand - limit * depth / window) / limit * window)
    turns = math.ceil(demand / limit) - 1
    return max(1.0, turns * window - (window - ALIGNED_AT if algorithm == "aligned" and turns else 0))


def requests(count: int) -> Costs:
    return [{"requests": 1.0}] * count


def sized(count: int, sizes: str = "log-normal", seed: int = 1) -> Costs:
    rng = random.Random(seed)
    if sizes == "phased":
        tokens = [100.0] * (count // 2) + [1900.0] * (count // 2)
    else:
        tokens = [float(max(1, round(rng.lognormvariate(math.log(600), 0.8)))) for _ in range(count)]
    return [{"requests": 1.0, "tokens": amount} for amount in tokens]


@dataclass
class Scenario:
    """`least` seconds are needed; `last` is allowed as a multiple of it, `refused` as a share of sends."""

    name: str
    provider: Callable[[], Provider]
    costs: Costs
    least: float
    latency: str = "0.05 s"
    options: dict = field(default_factory=dict)

    def run(self) -> Outcome:
        return run(self.provider(), list(self.costs), latency=LATENCIES[self.latency], **self.options)


def told() -> Iterator[Scenario]:
    for algorithm in ("bucket", "fixed", "aligned", "sliding"):
        for per_minute in (60, 300, 3000):
            for count in (600, 1500):
                for whole in (False, True):
                    for latency in LATENCIES:
                        yield Scenario(
                            f"{algorithm:8}{per_minute:5}/min{count:5}{' whole s' if whole else ''}",
                            lambda a=algorithm, p=per_minute, w=whole: Provider(
                                {"requests": limit_of(a, p)}, whole_seconds=w
                            ),
                            requests(count),
                            least_time(algorithm, per_minute, count),
                            latency,
                        )


def untold() -> Iterator[Scenario]:
    kinds = [
        ("bucket", 60.0),
        ("bucket", 10.0),
        ("bucket", 1.0),
        ("fixed", 60.0),
        ("aligned", 60.0),
        ("sliding", 60.0),
    ]
    for algorithm, depth in kinds:
        for latency in LATENCIES:
            yield Scenario(
                f"{algorithm}{f' {depth:.0f} s' if depth < 60 else ''} 300/min 600",
                lambda a=algorithm, d=depth: Provider({"requests": limit_of(a, 300, depth=d)}, tells=False),
                requests(600),
                least_time(algorithm, 300, 600, depth),
                latency,
            )


def changing() -> Iterator[Scenario]:
    """A limit cut to 40 % after two minutes, and raised fourfold after another four; nothing is told, or all."""
    for tells in (True, False):
        for algorithm, depth in (("bucket", 60.0), ("bucket", 10.0), ("fixed", 60.0), ("sliding", 60.0)):
            changes = [(120.0, "requests", 120.0), (360.0, "requests", 480.0)]
            usable = 600 + 4 * 120 + 4 * 480
            yield Scenario(
                f"{algorithm} {depth:.0f} s cut, raised {'told' if tells else ''}",
                lambda a=algorithm, d=depth, c=changes, t=tells: Provider(
                    {"requests": limit_of(a, 300, depth=d)}, tells=t, changes=list(c)
                ),
                requests(usable),
                600.0,
                "log-normal",
            )


def strangers() -> Iterator[Scenario]:
    """Somebody else takes a part of the rate. `least` is what the rest of the rate needs."""
    for algorithm in ("bucket", "fixed", "sliding"):
        for part in (0.3, 0.6):
            yield Scenario(
                f"{algorithm} strangers {part:.0%}",
                lambda a=algorithm, p=part: Provider({"requests": limit_of(a, 300)}, stranger=p),
                requests(900),
                (900 - 300 * (algorithm == "bucket")) / (5 * (1 - part))
                - (60 if algorithm != "bucket" else 0),
                "log-normal",
            )


def tokens() -> Iterator[Scenario]:
    """Limits on tokens, alone and beside one on requests, told exactly or rounded to thousands."""
    for algorithm in ("bucket", "fixed", "sliding"):
        for rounded in (False, True):
            costs = sized(600)
            yield Scenario(
                f"{algorithm} 200k tokens{' rounded' if rounded else ''}",
                lambda a=algorithm, r=rounded: Provider({"tokens": limit_of(a, 200_000)}, rounds=r),
                costs,
                least_time(algorithm, 200_000, sum(cost["tokens"] for cost in costs)),
                "log-normal",
            )
    for sizes in ("log-normal", "phased"):
        costs = sized(1200, sizes)
        total = sum(cost["tokens"] for cost in costs)
        yield Scenario(
            f"bucket requests and tokens, {sizes}",
            lambda t=total: Provider(
                {"requests": limit_of("bucket", 300), "tokens": limit_of("bucket", t / 4)}
            ),
            costs,
            least_time("bucket", 300, 1200),
        )
    costs = sized(600)
    total = sum(cost["tokens"] for cost in costs)
    yield Scenario(
        "bucket untold tokens",
        lambda t=total: Provider({"tokens": limit_of("bucket", t / 2)}, tells=False),
        costs,
        60.0,
        "1 s",
    )
    yield Scenario(
        "day of requests, minute of tokens",
        lambda t=total: Provider(
            {"requests": limit_of("bucket", 14_400, 86_400.0, 86_400.0), "tokens": limit_of("bucket", t / 3)}
        ),
        costs,
        120.0,
        "log-normal",
    )


def used() -> Iterator[Scenario]:
    """The limit was used before: two thirds are gone at the start."""
    for algorithm in ("bucket", "fixed", "aligned", "sliding"):

        def provider(algorithm: str = algorithm) -> Provider:
            limit = limit_of(algorithm, 300)
            limit.charge(200.0, -5.0)
            return Provider({"requests": limit})

        least = {"bucket": (600 - 300 + 200 - 25) / 5, "fixed": 115.0, "aligned": 85.0, "sliding": 115.0}
        yield Scenario(f"{algorithm} used before", provider, requests(600), least[algorithm], "log-normal")
