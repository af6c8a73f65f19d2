"""The IETF's RateLimit fields, from the second draft to the current one."""

import pytest

from adaptive_rate_limiter.providers import parse_response

REPLIES = {
    "hugging face": (
        {"RateLimit": '"api";r=489;t=112', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
        [(500, 489, 112, 300, "api")],
    ),
    "current form, two policies": (
        {
            "ratelimit-policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
            "ratelimit": '"daily";r=50;t=300, "burst";r=3;t=4',
        },
        [(1000, 50, 300, 86400, "daily"), (100, 3, 4, 60, "burst")],
    ),
    "one policy under another name": (
        {"ratelimit": '"default";r=5;t=9', "ratelimit-policy": '"hourly";q=10;w=3600'},
        [(10, 5, 9, 3600, "default")],
    ),
    "state without policy": ({"ratelimit": '"x";r=5;t=9'}, [(None, 5, 9, None, "x")]),
    "policy without state": ({"ratelimit-policy": '"x";q=5;w=9'}, [(5, None, None, 9, "x")]),
    "tokens for strings": ({"ratelimit": "x;r=5;t=9", "ratelimit-policy": "x;q=7;w=9"}, [(7, 5, 9, 9, "x")]),
    "draft 7": (
        {"ratelimit": "limit=100, remaining=50, reset=30", "ratelimit-policy": "100;w=60"},
        [(100, 50, 30, 60, None)],
    ),
    "draft 7, two policies": (
        {"ratelimit": "limit=1000, remaining=50, reset=30", "ratelimit-policy": "100;w=1, 1000;w=60"},
        [(1000, 50, 30, 60, None), (100, None, None, 1, None)],
    ),
    "draft 3, policy behind the limit": (
        {
            "ratelimit-limit": "100, 100;w=60, 1000;w=3600",
            "ratelimit-remaining": "50",
            "ratelimit-reset": "30",
        },
        [(100, 50, 30, 60, None), (1000, None, None, 3600, None)],
    ),
    "draft 3, policy beside it": (
        {
            "RateLimit-Limit": "300",
            "RateLimit-Remaining": "219",
            "RateLimit-Reset": "2",
            "RateLimit-Policy": '300;w=5;burst=330;comment="token bucket"',
        },
        [(300, 219, 2, 5, None)],
    ),
    "one damaged item of two": ({"ratelimit": '"a";r=1;t=2, "b";r=;;'}, [(None, 1, 2, None, "a")]),
    "negative and huge figures": (
        {"ratelimit": '"a";r=-1;t=99999999999, "b";r=1;t=1'},
        [(None, 1, 1, None, "b")],
    ),
    "booleans and strings for figures": ({"ratelimit": '"a";r;t="5"'}, []),
    "an instant for a figure": ({"ratelimit": '"a";r=@1659578233;t=5'}, [(None, None, 5, None, "a")]),
    "damaged": ({"ratelimit": '";;;"', "ratelimit-policy": "=,=,"}, []),
}


@pytest.mark.parametrize(("headers", "rows"), REPLIES.values(), ids=REPLIES)
def test_ietf_fields(headers, rows):
    quotas = parse_response(headers, None, 200).quotas
    assert [(q.limit, q.remaining, q.reset_after, q.window, q.scope) for q in quotas] == rows
    assert {q.unit for q in quotas} <= {"requests"}


def test_the_unit_of_a_policy_is_told():
    (quota,) = parse_response({"ratelimit-policy": '"x";q=5;qu="concurrent-requests"'}, None, 200).quotas
    assert quota.unit == "concurrent_requests"


def test_a_policy_called_after_its_unit_counts_in_it():
    headers = {
        "RateLimit-Policy": '"requests";q=500;w=60, "tokens";q=30000;w=60',
        "RateLimit": '"requests";r=499;t=1, "tokens";r=29000;t=2',
    }
    told = {quota.unit: (quota.limit, quota.remaining) for quota in parse_response(headers, None, 200).quotas}
    assert told == {"requests": (500, 499), "tokens": (30000, 29000)}
