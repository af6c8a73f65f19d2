"""The pool in Lua does what core/pool.py does, step by step."""

import math
import os
import random
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import redis
from adaptive_rate_limiter.backends.redis.wire import SCRIPT, arguments, decode
from adaptive_rate_limiter.core.pool import Fact, Pool
from adaptive_rate_limiter.core.renewal import NO_HEADER, Lesson, Renewal, Use

OWN = -1.0  # stands for the pool that is asked
TRACES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 150

amounts = st.one_of(st.integers(0, 40).map(float), st.floats(0, 200, allow_nan=False))
units = st.fixed_dictionaries({}, optional={"requests": amounts, "tokens": amounts})
keys = st.sampled_from(["requests", "tokens", "tokens/day"])
ages = st.floats(0, 90)
uses = st.builds(
    Use,
    key=keys,
    spent=st.floats(-5, 60),
    kept=amounts,
    flying=amounts,
    pace=amounts,
    late=st.one_of(st.just(0.0), amounts),
    admitted=ages,
    sent=ages,
)
facts = st.builds(
    Fact,
    key=keys,
    unit=st.just("?"),
    limit=st.floats(1, 300),
    window=st.sampled_from([1.0, 10.0, 60.0, 86_400.0]),
    burst=st.sampled_from([0.0, 0.0, 7.0, 400.0]),
    algorithms=st.sampled_from(["b", "f", "s", "bfs", "bs", "fs"]),
    evidence=st.sampled_from([0.0, 1.0, 2.0, 9.0, 1e9]),
    remaining=st.one_of(st.just(-1.0), st.floats(0, 300)),
    sent=st.one_of(st.just(NO_HEADER), st.floats(-100, 100)),
    refilled=amounts,
    age=st.floats(0, 10),
    ends_in=st.one_of(st.just(0.0), st.floats(-5, 90)),
)
lessons = st.builds(
    Lesson,
    name=st.sampled_from(["input ratio", "output"]),
    value=st.floats(0.1, 5000),
    base=st.one_of(st.just(0.0), st.floats(0.1, 5000)),
    seen=st.integers(1, 50),
)
steps = st.tuples(
    st.sampled_from("abc"),
    st.floats(0, 8),  # seconds since the last step
    st.booleans(),  # sent again, as after a reply that was lost
    st.builds(
        Renewal,
        worker=st.just(""),
        number=st.just(0),
        need=units,
        due=units,
        want=units,
        uses=st.lists(uses, max_size=3).map(tuple),
        facts=st.lists(facts, max_size=2).map(tuple),
        weight=st.sampled_from([1.0, 1.0, 2.5]),
        pause=st.sampled_from([0.0, 0.0, 3.0]),
        reason=st.sampled_from(["", "retry-after of 3 s", "ümlaut"]),
        refused=st.integers(0, 3),
        sent=st.one_of(st.just(0.0), st.floats(-3, 90)),
        limited=st.sampled_from([0, 0, 1, 4]),
        flying=units,
        lessons=st.lists(lessons, max_size=2).map(tuple),
        pool=st.sampled_from([0.0, OWN, OWN, 7.0]),  # none, this one, or one that was lost
        workers=st.integers(1, 4),
        away=st.sampled_from([0.0, 0.0, 1e-6, 0.5, 9.0]),
    ),
)


@pytest.fixture(scope="module")
def run(redis_server):
    client = redis.Redis(port=redis_server.port)
    script = client.script_load(SCRIPT)

    def step(renewal, now):
        return decode(client.execute_command("EVALSHA", script, *arguments("test", "bucket", renewal, now)))

    step.client = client
    yield step
    client.close()


def flat(value):
    if isinstance(value, dict):
        return [item for key in value for item in flat(value[key])]
    return [item for part in value for item in flat(part)] if isinstance(value, (list, tuple)) else [value]


@settings(max_examples=TRACES, deadline=None, suppress_health_check=list(HealthCheck))
@given(trace=st.lists(steps, min_size=1, max_size=12))
def test_the_same_grants_in_lua_and_in_python(run, trace):
    run.client.flushall()
    pool, now, numbers = Pool(), 1_000.0, {}
    for name, passed, again, template in trace:
        now += passed
        number = numbers.get(name, 0) + (not again)
        numbers[name] = number
        renewal = Renewal(
            **{
                **{field: getattr(template, field) for field in template.__dataclass_fields__},
                "worker": name,
                "number": number,
                "pool": pool.born if template.pool == OWN else template.pool,
                "facts": tuple(
                    Fact(**{**asdict(fact), "unit": fact.key.partition("/")[0]}) for fact in template.facts
                ),
            }
        )
        assert_same(run, pool, renewal, now)


def assert_same(run, pool, renewal, now):
    here = pool.renew(renewal, now)
    mine, theirs = flat(asdict(here)), flat(asdict(run(renewal, now)))
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9), (mine, theirs)
    return here


@pytest.mark.parametrize("seed", range(TRACES // 50))
@pytest.mark.parametrize("algorithms", ["b", "f", "s"])
def test_the_same_with_a_long_line_and_many_deaths(run, algorithms, seed):
    """Forty workers that all wait, some of which fall silent, for a while or for good; others come in their places."""
    run.client.flushall()
    rng, pool, now = random.Random(seed), Pool(), 1_000.0
    fact = Fact("requests", "requests", 60.0, 60.0, algorithms=algorithms, evidence=1e9)
    due, numbers, longest = {f"w{worker:02}": now for worker in range(40)}, {}, 0
    for _ in range(250):
        name = min(due, key=due.__getitem__)
        now = max(now, due[name])
        numbers[name] = numbers.get(name, 0) + 1
        spent = Use(
            "requests", spent=rng.choice([0.0, 0.0, 1.5]), kept=rng.choice([0.0, 2.0]), pace=rng.random()
        )
        need = {"requests": rng.choice([1.0, 1.0, 1.0, 20.0])}
        due_now = {"requests": rng.choice([1.0, 3.0, 20.0])}
        grant = assert_same(
            run, pool, Renewal(name, numbers[name], need, due_now, need, (spent,), (fact,), rng.choice([1.0, 2.5])), now
        )  # fmt: skip
        longest = max(longest, grant.workers)
        due[name] = now + grant.retry_in * rng.choice([0.5, 1.0, 1.0, 1.1, 3.0]) + rng.random()
        if rng.random() < 0.1:
            del due[name]
            due[f"x{len(numbers)}"] = now + rng.choice([0.0, 0.5, 90.0])
    assert longest >= 30
