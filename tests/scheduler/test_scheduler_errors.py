"""Where each error is raised: every one of them can be met, by who submits requests or keeps books."""

import asyncio
import pickle

import pytest

from adaptive_rate_limiter import (
    BackendConnectionError,
    BackendOperationError,
    BaseBackend,
    BucketNotFoundError,
    CapacityExceededError,
    ConfigurationError,
    QueueOverflowError,
    RateLimiterError,
    ReservationCapacityError,
    ReservationTracker,
    TooManyFailedRequestsError,
)

from .conftest import Api, request
from .test_scheduler_failures import FailedError
from .test_scheduler_limits import RefusedError
from .test_scheduler_provider import Told
from .test_scheduler_seed import ERRORS

ONE = {"requests": 1}


class Broken(BaseBackend):
    def __init__(self, error):
        super().__init__(on_outage="closed")
        self.error = error

    def renew(self, bucket_id, renewal):
        raise self.error


async def submit(scheduler, answer="answer", **fields):
    async with scheduler:
        return await scheduler.submit_request(request(**fields), Api(answer).call())


async def not_running(make):
    await make().submit_request(request(), Api().call())


async def too_large(make):
    await submit(make(quotas={"tokens": 100}), estimated_tokens=101)


async def too_late(make):
    scheduler = make(quotas=ONE)
    await submit(scheduler)
    await submit(scheduler, timeout=1)


async def refused_in_the_end(make):
    await submit(make(max_retries=0), RefusedError(7))


async def unknown_model(make):
    await submit(make(provider=Told(bucket=BucketNotFoundError("m"))))


async def full_books(_make):
    tracker = ReservationTracker(max_reservations=1)
    for number in range(2):
        await tracker.store(f"req-{number}", "m", f"res-{number}", 10)


async def unreachable(make):
    backend = Broken(BackendConnectionError("away"))
    try:
        await submit(make(backend=backend, quotas=ONE))
    finally:
        backend.close()


async def failing(make):
    backend = Broken(BackendOperationError("disk full"))
    try:
        await submit(make(backend=backend, quotas=ONE))
    finally:
        backend.close()


async def wrong_mode(make):
    make("fast")


async def wrong_metadata(make):
    await submit(make(), timeout=-1)


async def full_line(make):
    async with make(quotas=ONE, max_queue_size=1) as scheduler:
        await scheduler.submit_request(request(), Api().call())
        waiting = asyncio.create_task(scheduler.submit_request(request(), Api().call()))
        await asyncio.sleep(0)
        try:
            await scheduler.submit_request(request(), Api().call())
        finally:
            waiting.cancel()


async def open_circuit(make):
    async with make(max_failures=1) as scheduler:
        with pytest.raises(FailedError):
            await scheduler.submit_request(request(), Api(FailedError()).call())
        await scheduler.submit_request(request(), Api().call())


RAISED = [
    (not_running, RateLimiterError, {}),
    (too_large, CapacityExceededError, {"bucket_id": "m", "retry_after": None}),
    (too_late, CapacityExceededError, {"bucket_id": "m", "retry_after": 60.0}),
    (refused_in_the_end, CapacityExceededError, {"bucket_id": "m", "retry_after": 7.0}),
    (unknown_model, BucketNotFoundError, {"bucket_id": "m"}),
    (full_books, ReservationCapacityError, {}),
    (unreachable, BackendConnectionError, {}),
    (failing, BackendOperationError, {}),
    (wrong_mode, ConfigurationError, {}),
    (wrong_metadata, ConfigurationError, {}),
    (full_line, QueueOverflowError, {"queue_key": "m"}),
    (open_circuit, TooManyFailedRequestsError, {"failure_count": 1, "window_seconds": 30.0, "threshold": 1}),
]
CAUSES = {
    refused_in_the_end: RefusedError,
    unreachable: BackendConnectionError,
    failing: BackendOperationError,
}


@pytest.mark.parametrize(
    ("happening", "kind", "attributes"), RAISED, ids=lambda value: getattr(value, "__name__", "")
)
async def test_an_error_is_raised_where_it_is_meant_to_be(make, happening, kind, attributes):
    with pytest.raises(RateLimiterError) as caught:
        await happening(make)
    error = caught.value
    assert type(error) is kind
    assert vars(error) == attributes
    assert isinstance(error.__cause__, CAUSES.get(happening, (type(None), Exception)))
    travelled = pickle.loads(pickle.dumps(error))
    assert (type(travelled), str(travelled), vars(travelled)) == (kind, str(error), attributes)


def test_all_are_tried_here():
    assert {kind.__name__ for _, kind, _ in RAISED} == set(ERRORS)
