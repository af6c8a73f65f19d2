"""What the tests of leases share."""

import pytest
from tests.backends.world import World


@pytest.fixture
def world():
    return World()
