import itertools

import pytest
import redis.asyncio

from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.testing import BackendConformance

namespaces = map("test-{}".format, itertools.count())


class TestRedisByUrl(BackendConformance):
    @pytest.fixture
    def backend(self, redis_server):
        backend = RedisBackend(redis_server.url, namespace=next(namespaces))
        yield backend
        backend.close()


class TestRedisByClient(BackendConformance):
    @pytest.fixture
    def backend(self, redis_server):
        client = redis.asyncio.Redis(host="127.0.0.1", port=redis_server.port)
        backend = RedisBackend(redis_client=client, namespace=next(namespaces))
        yield backend
        backend.close()
