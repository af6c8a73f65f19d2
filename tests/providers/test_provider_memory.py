"""What the reader remembers: names of headers and hosts, so many and no more, and nothing of any value."""

import gc
import sys
import threading

import httpx
import pytest

from adaptive_rate_limiter.providers import parse_response

SECRET = "sk-0123456789"


def remembered():
    """Every text that can be reached from what the modules of the reader hold, apart from their code."""
    todo = [
        held
        for name, module in list(sys.modules.items())
        if name.startswith("adaptive_rate_limiter.providers.")
        for held in vars(module).values()
        if isinstance(held, (dict, list, set, tuple)) or hasattr(held, "cache_info")
    ]
    seen, texts = set(), []
    while todo:
        held = todo.pop()
        if id(held) in seen or isinstance(held, type) or hasattr(held, "__code__"):
            continue
        seen.add(id(held))
        if isinstance(held, (str, bytes)):
            texts.append(held.decode("utf-8", "replace") if isinstance(held, bytes) else held)
        elif not hasattr(held, "__spec__"):  # no module, nor all that it leads to
            todo.extend(gc.get_referents(held))
    return texts


def openai(*more):
    return httpx.Headers([
        ("x-ratelimit-limit-requests", "500"), ("x-ratelimit-remaining-requests", "499"), ("x-ratelimit-reset-requests", "120ms"), *more,
    ])  # fmt: skip


def test_names_and_hosts_are_remembered():
    """Else the test below could not fail."""
    parse_response(openai(("x-of-a-sort", "1")), None, 200, url="https://somewhere.example/v1")
    texts = remembered()
    assert {"x-ratelimit-limit-requests", "x-of-a-sort", "somewhere.example"} <= set(texts)


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@api.openai.com/v1",
        f"https://{SECRET}@api.openai.com/v1",
        f"https://a@{SECRET}@api.openai.com/v1",
        f"https://{SECRET * 40}@api.openai.com/v1",
        f"https://api.openai.com?key={SECRET}",
        f"https://api.openai.com/v1/{SECRET}#{SECRET}",
        f"api.openai.com/{SECRET}",
    ],
)
def test_no_value_and_no_part_of_an_address_but_the_host_is_remembered(url, status):
    headers = openai(
        ("set-cookie", SECRET), ("date", SECRET), ("retry-after", SECRET), ("x-ratelimit-reset-tokens", f"2025-03-18T10:39:35Z {SECRET}"),
        ("x-ratelimit-limit-tokens", SECRET), ("ratelimit", f'"{SECRET}";r=1'), ("x-ratelimit-type", SECRET),
    )  # fmt: skip
    body = {"error": {"message": SECRET, "code": SECRET, "retry_after": SECRET, "resets_at": f"1:1 {SECRET}"}}
    parse_response(headers, body, status, url=url)
    assert not [text for text in remembered() if SECRET in text]


def test_what_is_remembered_is_bounded():
    """Whatever names a peer invents, and however long they are."""
    for i in range(3_000):
        headers = [(f"x-ratelimit-limit-invented-{i}-{k}".encode(), b"1") for k in range(3)]
        headers += [(b"y" * 10_000 + str(i).encode(), b"1")] + [
            (f"{i}-{k}".encode(), b"") for k in range(i % 99)
        ]
        parse_response(headers, None, 200, url=f"https://host-{i}.example")
    texts = remembered()
    assert len(texts) < 40_000
    assert sum(map(len, texts)) < 1_000_000
    assert max(map(len, texts)) < 10_000


def test_threads_share_what_is_remembered():
    """More sets of names than are kept, so that the sets of one thread push out those of another."""
    faults = []

    def read(thread):
        for i in range(2_000):
            limit = 1 + (i * 7 + thread) % 900
            headers = {
                f"x-{limit}": "",
                "x-ratelimit-limit-requests": str(limit),
                f"x-ratelimit-limit-u{limit}": "9",
            }
            told = [(quota.unit, quota.limit) for quota in parse_response(headers, None, 200).quotas]
            if told != [("requests", limit), (f"u{limit}", 9)]:
                faults.append((limit, told))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
