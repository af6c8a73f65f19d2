"""`forecast prompts.jsonl`: how long they take, what binds, and what another max_tokens would change."""

import json

import pytest

LIMITS = ("--rpm", "60", "--tpm", "6000")


def lines(*values):
    return "\n".join(json.dumps(value) for value in values) + "\n"


def test_a_file_of_prompts(command, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(lines(*["x" * 400] * 90))  # of 100 tokens each
    status, out, err = command("forecast", str(file), *LIMITS, "--max-tokens", "100")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "90 calls, 9,000 tokens in prompts, 18,000 with answers (max_tokens=100)",
        "about 2 min, bound by tokens",
        "with max_tokens=25: about 52 s, bound by tokens",
        "with max_tokens=50: about 75 s, bound by tokens",
        "with max_tokens=200: about 4 min, bound by tokens",
    ]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Hello, world", 3),
        ({"prompt": "Hello, world"}, 3),
        ({"messages": [{"role": "user", "content": "Hello, world"}]}, 4),
        ({"body": {"input": "Hello, world"}, "custom_id": "a", "method": "POST"}, 3),
        ({"contents": [{"parts": [{"text": "Hello, world"}]}], "model": "m"}, 3),
    ],
)
def test_prompts_as_apis_take_them(command, line, tokens):
    out = command("forecast", "-", *LIMITS, stdin=lines(line)).out
    assert out.startswith(
        f"1 call, {tokens} tokens in prompts, {tokens + 256} with answers (max_tokens=256, as"
    )


def test_calls_with_a_bound_of_their_own(command):
    bounded = {"prompt": "x" * 400, "max_tokens": 50}
    out = command("forecast", "-", *LIMITS, "--max-tokens", "500", stdin=lines(*[bounded] * 10)).out
    assert out.splitlines() == [
        "10 calls, 1,000 tokens in prompts, 1,500 with answers (max_tokens=500)",
        "at once",
    ]


def test_without_limits_nothing_is_known(command):
    out = command("forecast", "-", stdin=lines("Hello")).out
    assert out.splitlines()[1] == "no limit is known yet"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "standard input has no prompt"),
        ("\n \n", "standard input has no prompt"),
        ('"a"\n{', "standard input, line 2 is no JSON"),
        ("[" * 100_000, "standard input, line 1 is no JSON"),
        ('{"question": "a"}', "standard input, line 1 has no prompt"),
        ("7", "standard input, line 1 has no prompt"),
    ],
)
def test_what_is_no_file_of_prompts(command, text, said):
    status, out, err = command("forecast", "-", stdin=text)
    assert (status, out) == (2, "")
    assert err.startswith(f"adaptive-rate-limiter forecast: {said}")
    assert "JSON string" in err


def test_files_that_cannot_be_read(command, tmp_path):
    assert "cannot be read" in command("forecast", str(tmp_path / "none")).err
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in command("forecast", str(tmp_path / "binary")).err


def test_a_file_and_figures_are_one_too_many(command):
    assert "one or the other" in command("forecast", "-", "--tokens", "5", stdin=lines("a")).err
