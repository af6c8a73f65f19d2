"""The books of what is reserved: bounded, found by request and bucket, cleared once, swept when too old."""

import asyncio

import pytest

from adaptive_rate_limiter import (
    ConfigurationError,
    ReservationCapacityError,
    ReservationContext,
    ReservationTracker,
)
from adaptive_rate_limiter import tracker as tracker_module


@pytest.fixture
def now(monkeypatch):
    """The monotonic clock, as a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(tracker_module.time, "monotonic", lambda: now[0])
    return now


async def test_store_get_and_clear():
    tracker = ReservationTracker()
    await tracker.store("req", "a", "res-1", 10)
    await tracker.store("req", "b", "res-2", 20)
    await tracker.store(request_id="other", bucket_id="a", reservation_id="res-3", estimated_tokens=30)
    assert (tracker.reservation_count, tracker.request_count) == (3, 2)
    found = await tracker.get("req", "a")
    assert (found.reservation_id, found.bucket_id, found.estimated_tokens) == ("res-1", "a", 10)
    assert await tracker.get_and_clear("req", "a") is found
    assert await tracker.get_and_clear("req", "a") is None
    assert (await tracker.get_and_clear("req")).reservation_id == "res-2"
    assert await tracker.get_and_clear("req") is None
    assert [context.reservation_id for context in await tracker.clear_all_for_request("other")] == ["res-3"]
    assert await tracker.clear_all_for_request("other") == []
    assert (tracker.reservation_count, tracker.request_count) == (0, 0)


async def test_the_same_request_in_the_same_bucket_is_replaced():
    tracker = ReservationTracker(max_reservations=1)
    await tracker.store("req", "a", "res-1", 10)
    await tracker.store("req", "a", "res-2", 10)
    assert (await tracker.get("req", "a")).reservation_id == "res-2"
    assert tracker.reservation_count == 1


async def test_a_full_tracker_makes_room_by_what_is_too_old(now):
    swept = []
    tracker = ReservationTracker(2, max_reservation_age=240.0, on_stale=swept.append)
    await tracker.store("one", "a", "res-1", 10)
    now[0] += 200
    await tracker.store("two", "a", "res-2", 10)
    with pytest.raises(ReservationCapacityError, match="2 reservations are open"):
        await tracker.store("three", "a", "res-3", 10)
    now[0] += 100
    assert tracker.stale_entry_ratio == 0.5
    await tracker.store("three", "a", "res-3", 10)
    assert [context.reservation_id for context in swept] == ["res-1"]


async def test_what_is_too_old_is_taken_out_on_demand(now):
    tracker = ReservationTracker(max_reservation_age=240.0)
    await tracker.store("one", "a", "res-1", 10)
    now[0] += 100
    await tracker.store("two", "a", "res-2", 10)
    assert await tracker.get_and_clear_stale() == []
    assert [c.reservation_id for c in await tracker.get_and_clear_stale(now[0])] == ["res-1"]
    now[0] += 241
    assert [c.reservation_id for c in await tracker.get_and_clear_stale()] == ["res-2"]
    assert tracker.stale_entry_ratio == 0.0
    tracker.compact_heap()


async def test_between_start_and_stop_it_sweeps_by_itself(caplog):
    swept = asyncio.Event()

    def on_stale(context):
        swept.set()
        raise RuntimeError("broken")

    tracker = ReservationTracker(max_reservation_age=0.01, stale_cleanup_interval=0.001, on_stale=on_stale)
    await tracker.start()
    await tracker.start()
    await asyncio.sleep(0)
    await tracker.store("one", "a", "res-1", 10)
    await asyncio.wait_for(swept.wait(), 5)
    assert tracker.reservation_count == 0
    await tracker.stop()
    await tracker.stop()
    assert "on_stale failed for reservation res-1" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_second_event_loop():
    tracker = ReservationTracker()

    async def use(stop):
        await tracker.start()
        await tracker.store("one", "a", "res-1", 10)
        if stop:
            await tracker.stop()

    for stop in (False, True, True):
        asyncio.run(use(stop))


@pytest.mark.parametrize("name", ["max_reservations", "max_reservation_age", "stale_cleanup_interval"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "10", True])
def test_a_wrong_argument_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        ReservationTracker(**{name: value})


def test_a_context_knows_when_it_was_made(now):
    assert ReservationContext("res", "bucket", 10).created_at == now[0]
