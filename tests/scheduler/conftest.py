"""What the scheduler's tests share. Where time matters, it stands still unless a test moves it."""

import asyncio

import pytest

from adaptive_rate_limiter import TEXT, RequestMetadata
from adaptive_rate_limiter.scheduler import RateLimiterConfig, create_scheduler
from adaptive_rate_limiter.testing import FakeClock


class Client:
    """A client by its shape alone."""

    base_url = "https://api.example.com"
    timeout = 30.0

    def get_headers(self):
        return {"Authorization": "Bearer none"}


def request(number=0, **fields):
    fields = {"model_id": "m", "resource_type": TEXT, "estimated_tokens": 10, **fields}
    return RequestMetadata(request_id=f"req-{number}", **fields)


class Api:
    """A function to submit, which notes what was asked of it and answers when told to."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.started = []
        self.gate = None

    def hold(self):
        self.gate = asyncio.Event()
        return self

    def call(self, name=None):
        async def function():
            self.started.append(name)
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answers.pop(0) if self.answers else name
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return function


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(client, clock):
    """A scheduler on the fake clock: `make("basic", quotas=…, max_retries=1)`; fields of the config by name."""

    def make(mode="intelligent", **options):
        fields = RateLimiterConfig.__dataclass_fields__
        config = RateLimiterConfig(
            **{name: options.pop(name) for name in list(options) if name in fields and name != "mode"}
        )
        options = {"clock": clock, "observe_http": False, **options}
        return create_scheduler(client, mode, config, **options)

    return make


@pytest.fixture
def later(clock, turn):
    """Let seconds pass, in steps small enough that whoever is woken acts at its time."""

    async def later(seconds):
        end = clock.now() + seconds
        await turn()
        while (due := clock.next_due()) is not None and due <= end:
            clock.advance(max(0.0, due - clock.now()))
            await turn()
        clock.advance(end - clock.now())
        await turn()

    return later


@pytest.fixture
def settled():
    """Nothing is waiting or in flight in any bucket of a scheduler."""

    def settled(scheduler):
        return all(
            bucket.waiting == 0 and bucket.in_flight == 0 for bucket in scheduler.limiter.snapshot().buckets
        )

    return settled


MODES = ("basic", "intelligent", "account")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param
