"""Every recording has its form, its origin and its place in a table of expectations."""

import re
from collections import Counter

import httpx
import pytest
from tests.recorded import expected
from tests.recorded.cassettes import CASES, HERE, recording, replay, request_of

REFUSED = 400


@pytest.mark.parametrize("case", CASES)
def test_vcrpy_plays_the_status_and_the_headers_as_they_are_written(case):
    response = recording(case)["interactions"][0]["response"]
    request = request_of(case)
    with replay(case) as cassette, httpx.Client() as client:
        got = client.request(request["method"], request["uri"], content=request["body"])
    assert cassette.play_count == len(cassette) == 1
    assert got.status_code == response["status"]["code"]
    assert got.headers == httpx.Headers(
        [(name, value) for name, values in response["headers"].items() for value in values]
    )
    assert got.text == response["body"]["string"]


@pytest.mark.parametrize("case", CASES)
def test_each_says_what_it_shows_and_where_it_was_recorded_and_holds_no_credential(case):
    text = (HERE / f"{case}.yaml").read_text(encoding="utf-8")
    origin = recording(case)["recorded_from"]
    assert text.startswith("# ")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", origin["repo"])
    if "interaction" in origin:
        assert re.fullmatch(r"[0-9a-f]{40}", origin["commit"])
    else:
        assert re.fullmatch(r"(?:issues|pull)/\d+|docs/.*", origin["path"])
    assert not re.search(r"authorization|api-key|set-cookie|bearer |sk-|org-[0-9a-z]{8}", text.lower())


def test_each_has_its_place_in_the_tables():
    refused = {
        case for case in CASES if recording(case)["interactions"][0]["response"]["status"]["code"] >= REFUSED
    }
    assert Counter(expected.REFUSALS) == Counter(refused)
    assert {*expected.LIMITS, *expected.SILENT} | refused == set(CASES)
    assert not {*expected.SILENT} & {*expected.LIMITS, *refused}
