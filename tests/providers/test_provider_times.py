"""Every form of time, and hostile ones."""

import time

import pytest

from adaptive_rate_limiter.providers import parse_response
from adaptive_rate_limiter.providers.times import Clock, duration, seconds_until

DATE = "Tue, 18 Mar 2025 10:39:14 GMT"
NOW = 1_742_294_354

DURATIONS = {
    "0s": 0, "2ms": 0.002, "8.64s": 8.64, "1s": 1, "1m0s": 60, "6m0s": 360, "1m26.4s": 86.4, "14m24s": 864,
    "21m36.001s": 1296.001, "1h8m25.745s": 4105.745, "2h47m48.417s": 10068.417, "5h15m21.417999999s": 18921.417999999,
    "106.666666ms": 0.106666666, "172.799999ms": 0.172799999, "1h2m3s4ms": 3723.004, "1.5h": 5400, "1.5m": 90,
    "2m.5s": 120.5, "1m1ms": 60.001, "300us": 0.0003, "300\u00b5s": 0.0003, "300\u03bcs": 0.0003, "7ns": 7e-9, "1d2h": 93600,
    "48 seconds": 48, "1 minute 30 seconds": 90, "1 hour, 2 minutes and 3 seconds": 3723, "5 分钟": 300,
}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items(), ids=DURATIONS)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds, rel=1e-12, abs=0)
    assert seconds_until(text, Clock()) == pytest.approx(seconds, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1m5",
        "-5s",
        "5 apples",
        "1x",
        "m1",
        "1h2m3.4.5s",
        "10000000h",
        "1mss",
        ".s",
        "1.2.3s",
        "99999999s",
    ],
)
def test_what_is_no_duration(text):
    assert duration(text) is None
    assert seconds_until(text, Clock()) is None


def test_a_number_without_a_unit_is_no_duration():
    assert duration("5") is None


def test_a_unit_in_utf8_is_read_from_bytes():
    headers = [(b"x-ratelimit-limit-tokens", b"9"), (b"x-ratelimit-reset-tokens", "900\u00b5s".encode())]
    assert parse_response(headers, None, 200).quotas[0].reset_after == pytest.approx(0.0009)


FORMS = {
    "30": 30,
    "58.83249258995056": 58.83249258995056,
    str(NOW + 41): 41,
    str((NOW + 41) * 1000): 41,
    str((NOW + 41) * 10**9): 41,
    "2025-03-18T10:39:55Z": 41,
    "2025-03-18T10:39:55.250Z": 41.25,
    "2025-03-18T12:39:55+02:00": 41,
    "2025-03-18T05:09:55-0530": 41,
    "2025-03-18 10:39:55": 41,
    "Tue, 18 Mar 2025 10:39:55 GMT": 41,
    "Tue, 18 Mar 2025 10:39:55 -0000": 41,
    "Tue, 18 Mar 2025 12:39:55 +0200": 41,
    "Tuesday, 18-Mar-25 10:39:55 GMT": 41,
    "Tue Mar 18 10:39:55 2025": 41,
    "2025-03-18T10:38:00Z": 0,
    "Tue, 18 Mar 2025 10:38:00 GMT": 0,
    str(NOW - 5): 0,
}


@pytest.mark.parametrize(("text", "seconds"), FORMS.items(), ids=FORMS)
def test_every_form_counts_from_the_reply(text, seconds):
    assert seconds_until(text, Clock(DATE.encode())) == pytest.approx(seconds, abs=1e-6)


def test_a_date_without_a_zone_is_not_in_this_machine_s_zone(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert seconds_until("Tue, 18 Mar 2025 10:39:55 -0000", Clock(DATE.encode())) == 41
        assert seconds_until("2025-03-18 10:39:55", Clock(b"Tue, 18 Mar 2025 10:39:14 -0000")) == 41
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_a_date_the_clock_is_this_machine(monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    for date in (None, b"", b"yesterday", b"Tue, 99 Mar 2025", b"\xff", b"Tue, 1x Mar 2025 10:39:14 GMT"):
        assert seconds_until("2025-03-18T10:39:55Z", Clock(date)) == 41


RETRY_AFTER = {
    "7": 7, "7.5": 7.5, " 7 ": 7, "7, 7": 7, "junk, 7": 7, "1e1": 10, "12s": 12, "1m": 60, "73192": 73192,
    "Tue, 18 Mar 2025 10:39:55 GMT": 41,
    "Tue, 18 Mar 2025 10:39:00 GMT": 0,
    "Fri, 31 Dec 9999 23:59:59 GMT": None,
    "Mon, 01 Jan 0001 00:00:00 GMT": 0,
    "Tue, 18 Mar 2025": None,
    "9999-12-31T23:59:59Z": None, "2025-02-30T00:00:00Z": None, "2025-03-18T25:00:00Z": None,
    "": None, " ": None, "-1": None, "-1e400": None, "1e400": None, "inf": None, "Infinity": None, "nan": None, "-inf": None,
    "99999999": None, "9" * 5000: None, "1" * 400: None, "0x10": None, "1;2": None, "soon": None, "\x00": None, "-0": 0,
    "1d" * 600: None, "Tue, " * 300: None, ":" * 900: None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER.items(), ids=lambda value: str(value)[:32])
def test_retry_after_is_read_in_every_form_and_hostile_ones_are_ignored(text, seconds):
    told = parse_response({"date": DATE, "retry-after": text}, None, 429).retry_after
    assert told == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["250", "250.0", "250,250", "250, junk"])
def test_retry_after_ms_is_milliseconds(text):
    assert parse_response({"retry-after-ms": text}, None, 429).retry_after == pytest.approx(0.25)


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "nonsense", "-1", "\x00" * 50])
def test_a_hostile_date_harms_nothing(date):
    info = parse_response({"date": date, "retry-after": "Tue, 18 Mar 2025 10:39:55 GMT"}, None, 429)
    assert info.retry_after == 0
