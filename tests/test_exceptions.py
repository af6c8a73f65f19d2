"""Errors travel between processes whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from adaptive_rate_limiter import exceptions as errors

ERRORS = [
    errors.RateLimiterError("broken"),
    errors.CapacityExceededError("full", "bucket", 1.5),
    errors.BucketNotFoundError("bucket"),
    errors.ReservationCapacityError("10,000 reservations are open"),
    errors.BackendConnectionError("out of reach"),
    errors.BackendOperationError("failed"),
    errors.ConfigurationError("quota.limit must be positive"),
    errors.QueueOverflowError("full", "bucket:text"),
    errors.RequestTimeoutError("Request timed out after 30s"),
    errors.TooManyFailedRequestsError("open", 21, 30.0, 20),
]


def test_all_errors_are_tried_here():
    assert {type(error).__name__ for error in ERRORS} == set(errors.__all__)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"]
)
def test_an_error_keeps_its_attributes(error, travel):
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_a_configuration_error_is_a_value_error():
    assert issubclass(errors.ConfigurationError, ValueError)


def test_a_timeout_is_a_timeout_error():
    assert issubclass(errors.RequestTimeoutError, TimeoutError)
