import pytest
from tests.redis.server import Server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("redis")) as server:
        yield server
