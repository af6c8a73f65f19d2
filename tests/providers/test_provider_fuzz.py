"""Properties of the reader on generated input: a few thousand cases in an ordinary run, 100,000 with `make fuzz`.

The reader inside of the safety net is called, so that an exception is a failure here.
"""

import json
import math
import time
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.providers.inputs import (
    BODIES,
    COUNTS,
    FIELDS,
    HEADERS,
    NAMES,
    NAMES_OF_WORDS,
    REAL,
    STATUSES,
    TEXTS,
    TIMES,
    URLS,
    YEAR,
    examples,
    sane,
)

from adaptive_rate_limiter.providers import parse
from adaptive_rate_limiter.providers.times import Clock, duration, instant, number, seconds_until

MEGABYTE = 1_000_000
PATIENCE = 0.5  # seconds of CPU; the worst takes a tenth of it


@examples(700)
@given(headers=HEADERS, body=BODIES, status=STATUSES, url=URLS)
def test_anything_at_all_is_harmless(headers, body, status, url):
    sane(parse.read(headers, body, status, url))


@examples(500)
@given(
    headers=st.lists(
        st.tuples(st.one_of(NAMES, NAMES_OF_WORDS), st.one_of(COUNTS, TIMES, FIELDS)), max_size=12
    ),
    status=st.sampled_from([200, 429]),
    url=URLS,
)
def test_every_name_that_the_words_make_is_harmless_and_read_alike_from_any_collection(headers, status, url):
    info = parse.read(headers, None, status, url)
    sane(info)
    sent = [(name.encode(), value.encode()) for name, value in headers]
    for same in (sent, SimpleNamespace(raw=sent), SimpleNamespace(items=lambda: iter(headers))):
        again = parse.read(same, None, status, url)
        assert [_without_now(q) for q in again.quotas] == [_without_now(q) for q in info.quotas]


def _without_now(quota):
    """A reset told as an instant is counted from now where no date is told: two readings differ by microseconds."""
    reset = quota.reset_after
    return quota._replace(reset_after=None if reset is None else pytest.approx(reset, abs=1.0))


@examples(300)
@given(
    real=st.sampled_from(REAL),
    at=st.integers(0, 2000),
    junk=st.one_of(
        st.text(max_size=4), st.sampled_from(['"', "}", "9" * 30, "\x00", ";", "e999", "-", ",", "\\u0000"])
    ),
    cut=st.integers(0, 12),
    status=st.sampled_from([200, 429]),
)
def test_a_real_reply_with_a_wound_is_harmless(real, at, junk, cut, status):
    headers, body = real
    text = json.dumps([list(headers.items()), body], ensure_ascii=False)
    at %= len(text)
    wounded = text[:at] + junk + text[at + cut :]
    try:
        pairs, inner = json.loads(wounded)
    except ValueError:
        pairs, inner = list(headers.items()), wounded
    if isinstance(pairs, list):
        sane(parse.read(pairs, inner, status, None))


@examples(300)
@given(text=TEXTS, more=TEXTS, status=STATUSES, url=URLS)
def test_every_sentence_of_a_refusal_is_harmless(text, more, status, url):
    sane(parse.read(None, {"error": {"message": text, "code": more}}, status, url))
    sane(parse.read(None, text + "\n" + more, status, url))


@examples(200)
@given(limits=st.lists(FIELDS, max_size=3), policies=st.lists(FIELDS, max_size=3))
def test_every_spelling_of_the_ietf_fields_is_harmless(limits, policies):
    headers = [("RateLimit", text) for text in limits] + [("RateLimit-Policy", text) for text in policies]
    sane(parse.read([*headers, *(("ratelimit-limit", text) for text in policies)], None, 429, None))


@examples(250)
@given(
    text=st.one_of(TIMES, COUNTS, TEXTS),
    date=st.one_of(st.none(), TIMES),
    zone=st.sampled_from([None, 0.0, 28_800.0]),
)
def test_a_time_is_finite_or_not_told(text, date, zone):
    seconds = seconds_until(text, Clock(None if date is None else date.encode()), zone)
    assert seconds is None or 0 <= seconds <= YEAR
    for told in (number(text), instant(text, zone)):
        assert told is None or math.isfinite(told)


@examples(150)
@given(
    parts=st.tuples(*[st.integers(0, 59)] * 3),
    milliseconds=st.integers(0, 999),
    space=st.sampled_from(["", " "]),
)
def test_a_go_duration_is_the_sum_of_its_parts(parts, milliseconds, space):
    hours, minutes, seconds = parts
    text = space.join([f"{hours}h", f"{minutes}m", f"{seconds}.{milliseconds:03}s"])
    total = 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
    assert duration(text) == seconds_until(text, Clock()) == pytest.approx(total)


HEX = st.text("0123456789abcdef", min_size=1, max_size=8)


@examples(100)
@given(
    fragment=st.one_of(TEXTS, TIMES, COUNTS, FIELDS, st.text(min_size=1, max_size=6), HEX).filter(bool),
    lead=st.one_of(st.just(""), TEXTS),
    name=NAMES,
    status=st.sampled_from([200, 429]),
)
def test_a_megabyte_of_anything_is_read_within_half_a_second(fragment, lead, name, status):
    text = lead + fragment * (MEGABYTE // len(fragment))
    body = {"error": {"message": text, "code": text, "retry_after": text, "details": [{text: text}] * 9}}
    sent = text.encode("utf-8", "replace")
    replies = (
        ({name: text, text: "5", "retry-after": text}, text),
        (SimpleNamespace(raw=[(name.encode(), sent), (sent, b"5"), (b"date", sent)]), sent),
        (None, body),
    )
    for headers, given_body in replies:
        start = time.process_time()
        sane(parse.read(headers, given_body, status, text))
        assert time.process_time() - start < PATIENCE


def test_httpx_is_read_as_every_other_collection():
    """The pairs of bytes above are what `httpx.Headers.raw` is."""
    headers, _ = REAL[0]
    assert httpx.Headers(headers).raw == [(name.encode(), value.encode()) for name, value in headers.items()]
    assert (
        parse.read(httpx.Headers(headers), None, 200, None).quotas
        == parse.read(headers, None, 200, None).quotas
    )
