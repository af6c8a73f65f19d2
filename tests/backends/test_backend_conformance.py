"""The contract of a backend, on the one in memory and on the smallest that somebody else could write."""

import time

import pytest

from adaptive_rate_limiter.backends import BaseBackend, MemoryBackend
from adaptive_rate_limiter.core.pool import Pool
from adaptive_rate_limiter.testing import BackendConformance


class Smallest(BaseBackend):
    """All that a third party has to write."""

    def __init__(self):
        super().__init__()
        self.pools = {}

    def renew(self, bucket_id, renewal):
        return self.pools.setdefault(bucket_id, Pool()).renew(renewal, time.monotonic())


class Locked(Smallest):
    """`renew` is to be atomic."""

    def __init__(self):
        import threading

        super().__init__()
        self.step = threading.Lock()

    def renew(self, bucket_id, renewal):
        with self.step:
            return super().renew(bucket_id, renewal)


class TestMemoryBackend(BackendConformance):
    @pytest.fixture
    def backend(self):
        backend = MemoryBackend()
        yield backend
        backend.close()


class TestOwnBackend(BackendConformance):
    @pytest.fixture
    def backend(self):
        backend = Locked()
        yield backend
        backend.close()
