import pytest

from adaptive_rate_limiter.providers import parse


@pytest.fixture(autouse=True)
def no_safety_net(monkeypatch):
    """What `parse_response` would swallow is a fault here."""

    def fall(_status):
        raise  # noqa: PLE0704 - the exception in flight

    monkeypatch.setattr(parse, "_unread", fall)
