"""Who shares a limit with whom: models, hosts, credentials, namespaces; and who goes first."""

import asyncio
import hashlib
import logging

import httpx
import pytest

from adaptive_rate_limiter import CapacityExceededError, Limiter, MemoryBackend

OPENAI = "https://api.openai.com/v1/chat/completions"
PROXY = "https://proxy.example/v1/chat/completions"
SECRET = "Bearer sk-very-secret-0123456789"
OTHER = "Bearer sk-another-secret-98765"


def send(limiter, url, credential, model="m", **options):
    """One call on the wire; the bucket that it was charged to in the end."""
    reservation = limiter.acquire(model, **options)
    if reservation.begin_send(httpx.URL(url), credential and credential.encode()):
        reservation.readmit()
    reservation.settle()
    return reservation.bucket_id


async def serve(limiter, clock, turn, calls):
    """Put `calls` in line behind a spent limit; the order in which they go."""
    order = []

    async def call(name, options):
        (await limiter.aacquire("m", **options)).settle()
        order.append(name)

    (await limiter.aacquire("m")).settle()
    tasks = []
    for name, options in calls:
        tasks.append(asyncio.ensure_future(call(name, options)))
        await turn()
    while not all(task.done() for task in tasks):
        clock.advance(1.0)
        await turn()
    return order


async def test_tenants_take_turns_however_many_calls_each_has(limiter, clock, turn):
    calls = [("a", {"tenant": "a"})] * 20 + [("b", {"tenant": "b"})] * 5
    order = await serve(limiter, clock, turn, calls)
    assert abs(order[:10].count("a") - 5) <= 1
    assert order[11:] == ["a"] * 14


async def test_weights_are_shares(clock, turn):
    limiter = Limiter(quotas={"unit": "requests", "limit": 60, "burst": 1}, weights={"gold": 3}, clock=clock)
    calls = [("gold", {"tenant": "gold"}), ("plain", {"tenant": "plain"})] * 30
    order = await serve(limiter, clock, turn, calls)
    assert abs(order[:20].count("gold") - 15) <= 1


async def test_priority_goes_first_and_age_outweighs_it(limiter, clock, turn):
    calls = [("low", {}), ("low", {}), ("high", {"priority": 1}), ("background", {"priority": -1})]
    assert await serve(limiter, clock, turn, calls) == ["high", "low", "low", "background"]

    limiter.record("m").settle()
    old = asyncio.ensure_future(limiter.aacquire("m", priority=-1))
    await turn()
    limiter.record("m").settle()
    for _ in range(70):  # every second a new call of normal priority, and room for one
        newcomer = asyncio.ensure_future(limiter.aacquire("m"))
        await turn()
        clock.advance(1.0)
        await turn()
        if old.done():
            break
        newcomer.cancel()
        await turn()
    assert old.done()
    newcomer.cancel()
    await turn()


def test_each_model_has_limits_of_its_own(clock):
    limiter = Limiter(quotas={"small": {"requests": 2}, "large": {"requests": 1}}, clock=clock)
    assert [limiter.try_acquire("small") is not None for _ in range(3)] == [True, True, False]
    assert [limiter.try_acquire("large") is not None for _ in range(2)] == [True, False]
    assert limiter.try_acquire("unknown") is not None
    assert {bucket.bucket_id for bucket in limiter.snapshot().buckets} == {
        "default/small", "default/large", "default/unknown",
    }  # fmt: skip


def test_the_first_request_decides_where_a_bucket_belongs(limiter, clock):
    assert send(limiter, OPENAI, SECRET) == "default/m"
    clock.advance(1)
    assert send(limiter, OPENAI.upper().replace("HTTPS", "https"), SECRET) == "default/m"


def test_hosts_and_credentials_of_one_model_are_separate_buckets(limiter, clock):
    ids = []
    for url, credential in [(OPENAI, SECRET), (PROXY, SECRET), (OPENAI, OTHER), (OPENAI, None)]:
        ids.append(send(limiter, url, credential, route=(url, credential)))
        clock.advance(1)
    assert len(set(ids)) == 4
    again = []
    for url, credential in [(OPENAI, SECRET), (PROXY, SECRET), (OPENAI, OTHER), (OPENAI, None)]:
        again.append(send(limiter, url, credential, route=(url, credential)))
    assert again == ids  # at once, without waiting for each other: the limit is one a second


def test_a_known_route_goes_to_its_bucket_directly(limiter, clock):
    send(limiter, OPENAI, SECRET, route="one")
    clock.advance(1)
    home = send(limiter, PROXY, SECRET, route="two")
    clock.advance(1)
    limiter.record("m", route="one").settle()  # its bucket is spent now
    reservation = limiter.acquire("m", route="two", timeout=0)
    assert reservation.bucket_id == home
    assert reservation.begin_send(httpx.URL(PROXY), SECRET.encode()) is False
    reservation.settle()


def test_moving_gives_back_what_the_first_bucket_was_charged(limiter, clock):
    send(limiter, OPENAI, SECRET)
    clock.advance(1)
    reservation = limiter.acquire("m")
    assert reservation.begin_send(httpx.URL(PROXY), SECRET.encode()) is True
    first, second = limiter.snapshot().buckets
    assert (first.limits[0].remaining, first.in_flight, second.in_flight) == (1, 0, 0)
    reservation.readmit()
    first, second = limiter.snapshot().buckets
    assert (first.in_flight, second.in_flight) == (0, 1)
    reservation.settle()


def test_calls_that_return_to_the_first_host_return_to_the_first_bucket(limiter, clock):
    """There and back again, on one route: no third bucket comes into being."""
    for _ in range(3):
        for url in (OPENAI, PROXY):
            send(limiter, url, SECRET)
            clock.advance(1)
    assert len(limiter.snapshot().buckets) == 2


def test_aws_signatures_that_differ_are_one_credential(limiter, clock):
    signature = "AWS4-HMAC-SHA256 Credential=AKID/2026{day}/us-east-1/bedrock/aws4_request, Signature={day}ab"
    ids = set()
    for day in range(1101, 1105):
        ids.add(send(limiter, PROXY, signature.format(day=day)))
        clock.advance(1)
    assert ids == {"default/m"}


def test_a_credential_appears_nowhere_but_as_a_short_keyed_hash(limiter, clock, caplog):
    caplog.set_level(logging.DEBUG)
    for credential in (SECRET, OTHER):
        reservation = limiter.acquire("m")
        if reservation.begin_send(httpx.URL(OPENAI), credential.encode()):
            reservation.readmit()
        reservation.observe(429, {"retry-after": "100"}, {"error": {"message": "slow down"}})
        with pytest.raises(CapacityExceededError) as caught:
            limiter.acquire("m", timeout=1)
        shown = "\n".join(
            [
                repr(reservation), reservation.bucket_id, repr(limiter), repr(limiter.snapshot()),
                *limiter.explain(), str(caught.value), repr(caught.value.bucket_id), caplog.text,
            ]
        )  # fmt: skip
        assert "secret" not in shown
        assert hashlib.blake2b(credential.encode(), digest_size=4).hexdigest() not in shown  # it is keyed
        clock.advance(200)
    moved = limiter.snapshot().buckets[1].bucket_id
    assert moved.startswith("default/m@api.openai.com#")
    assert len(moved.rpartition("#")[2]) == 8


def test_user_information_in_a_url_is_not_part_of_the_host(limiter, clock):
    send(limiter, OPENAI, None)
    clock.advance(1)
    moved = send(limiter, "https://user:password@PROXY.example:8443/v1/responses", None)
    assert moved == "default/m@proxy.example:8443"


def test_two_limiters_on_one_backend_and_namespace_share(clock):
    backend = MemoryBackend()
    one, two = (Limiter(backend, quotas={"requests": 2}, clock=clock) for _ in range(2))
    assert one.try_acquire("m") is not None
    assert two.try_acquire("m") is not None
    assert one.try_acquire("m") is None
    assert two.snapshot() == one.snapshot()


@pytest.mark.parametrize(("one", "two"), [("a", "b"), ("a", "a/b"), ("a/b", "a%2Fb"), ("", "default")])
def test_namespaces_isolate(clock, one, two):
    """Not even a model named like the rest of another namespace is shared."""
    backend = MemoryBackend()
    limiters = [Limiter(backend, namespace=name, quotas={"requests": 1}, clock=clock) for name in (one, two)]
    for limiter, other in (limiters, limiters[::-1]):
        assert limiter.try_acquire("b/m") is not None
        assert limiter.try_acquire("m") is not None
        assert len(limiter.snapshot().buckets) == 2
        assert {bucket.bucket_id for bucket in limiter.snapshot().buckets}.isdisjoint(
            bucket.bucket_id for bucket in other.snapshot().buckets
        )


def test_models_with_slashes_and_at_signs_are_found_by_name(clock):
    limiter = Limiter(quotas={"requests": 60}, clock=clock)
    for model in ("openai/gpt-4o", "claude@20240620"):
        limiter.acquire(model).observe(429, {"retry-after": "50"}, {"error": {"message": "slow down"}})
        assert limiter.forecast(requests=1, model=model).seconds == pytest.approx(50)
    assert limiter.forecast(requests=1, model="gpt-4o").seconds == 0


def test_more_routes_than_are_kept_at_hand_still_work(monkeypatch, clock):
    monkeypatch.setattr("adaptive_rate_limiter.routing.MOST_ROUTES", 2)
    limiter = Limiter(quotas={"requests": 1}, clock=clock)
    for model in "abcd":
        assert limiter.try_acquire(model) is not None
    for model in "abcd":
        assert limiter.try_acquire(model) is None


def test_threads_that_meet_a_model_at_once_share_one_bucket(clock, in_thread):
    limiter = Limiter(quotas={"requests": 10}, clock=clock)
    admitted = []
    threads = [in_thread(lambda: admitted.append(limiter.try_acquire("m"))) for _ in range(32)]
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in admitted) == 10
