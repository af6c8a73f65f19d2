"""`forecast prompts.jsonl`: how long they take, what binds, and what another max_tokens would change."""

import json
import sys

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
        "90 calls, about 9,000 tokens in prompts, 18,000 with answers (max_tokens=100)",
        "about 2 min, bound by tokens",
        "with max_tokens=25: about 52 s, bound by tokens",
        "with max_tokens=50: about 75 s, bound by tokens",
        "with max_tokens=200: about 4 min, bound by tokens",
    ]


MESSAGES = [{"role": "user", "content": "Hello, world"}]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Hello, world", 3),
        ({"prompt": "Hello, world"}, 3),
        ({"messages": MESSAGES}, 4),
        ({"body": {"input": "Hello, world"}, "custom_id": "a", "method": "POST"}, 3),
        ({"contents": [{"parts": [{"text": "Hello, world"}]}], "model": "m"}, 3),
    ],
)
def test_prompts_as_apis_take_them(command, line, tokens):
    out = command("forecast", "-", *LIMITS, stdin=lines(line)).out
    assert out.startswith(
        f"1 call, about {tokens} tokens in prompts, {tokens + 256} with answers (max_tokens=256, as"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {"custom_id": "a", "params": {"messages": MESSAGES, "max_tokens": 50}},
            "54 with answers (max_tokens=50)",
        ),
        (
            {
                "key": "a",
                "request": {"contents": ["Hello, world"], "generation_config": {"maxOutputTokens": 60}},
            },
            "63 with answers (max_tokens=60)",
        ),
        (
            {"recordId": "a", "modelInput": {"messages": MESSAGES, "max_tokens": 70}},
            "74 with answers (max_tokens=70)",
        ),
        ({"url": "/v1/embeddings", "body": {"input": ["Hello, world"]}}, "about 3 tokens in prompts\n"),
        ({"input": ["Hello, world"], "model": "text-embedding-3-small"}, "about 3 tokens in prompts\n"),
    ],
)
def test_lines_of_batches_of_many_providers(command, line, said):
    assert said in command("forecast", "-", *LIMITS, stdin=lines(line)).out


def test_an_array_and_a_byte_order_mark(command, tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(["x" * 400, {"prompt": "x" * 400}], indent=2), encoding="utf-8-sig")
    assert command("forecast", str(file), *LIMITS).out.startswith("2 calls, about 200 tokens in prompts, 712")
    file.write_text('["a", {}]')
    assert "prompts.json, prompt 2 has no prompt" in command("forecast", str(file), *LIMITS).err


def test_calls_with_bounds_of_their_own(command):
    bounded = [{"prompt": "x" * 400, "max_tokens": bound} for bound in (50, 100)] * 30
    out = command("forecast", "-", *LIMITS, "--max-tokens", "500", stdin=lines(*bounded)).out
    assert out.splitlines() == [
        "60 calls, about 6,000 tokens in prompts, 10,500 with answers (max_tokens as in the file)",
        "about 45 s, bound by tokens",
        "with 0.25 times each max_tokens: about 11 s, bound by tokens",
        "with 0.5 times each max_tokens: about 22 s, bound by tokens",
        "with 2 times each max_tokens: about 90 s, bound by tokens",
    ]


def test_input_and_output_may_have_limits_of_their_own(command):
    arguments = ("--input-tokens-per-minute", "10_000", "--otpm", "600", "--max-tokens", "100")
    out = command("forecast", "-", *arguments, stdin=lines(*["x" * 400] * 30)).out
    assert out.splitlines()[1:3] == [
        "about 4 min, bound by output_tokens",
        "with max_tokens=25: about 15 s, bound by output_tokens",
    ]


def test_a_call_that_no_limit_lets_pass_is_named(command):
    said = command("forecast", "-", "--tpm", "1000", "--max-tokens", "2000", stdin=lines("x" * 400)).out
    assert "the largest call may take 2,100 tokens: a limit of 1,000 never lets it pass\n" in said
    said = command("forecast", "-", "--itpm", "50", "--otpm", "2000", stdin=lines("x" * 400)).out
    assert "the largest call may take 100 input tokens: a limit of 50 never lets it pass\n" in said


def test_tokens_are_counted_where_a_tokenizer_is_at_hand(command, monkeypatch):
    """No vocabulary is downloaded: only a file that tiktoken has is used."""
    tiktoken = pytest.importorskip("tiktoken")
    read = []

    class Letters:
        def encode_ordinary(self, text):
            return list(text)

    def load(model):
        read.append(tiktoken.load.read_file)
        if model != "gpt-4o":
            tiktoken.load.read_file("https://provider/vocabulary")
        return tiktoken.registry.ENCODINGS.setdefault("o200k_base", Letters())

    monkeypatch.setattr(tiktoken, "encoding_for_model", load)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {"o200k_base": Letters()})  # LlamaIndex loads another
    own = tiktoken.load.read_file
    assert command("forecast", "-", "--model", "gpt-4o", stdin=lines("Hello")).out.startswith(
        "1 call, 5 tokens in"
    )
    estimated = "1 call, about 2 tokens in"
    assert command("forecast", "-", "--model", "gpt-4", stdin=lines("Hello")).out.startswith(estimated)
    assert (own not in read, tiktoken.load.read_file) == (True, own)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert command("forecast", "-", "--model", "gpt-4", stdin=lines("Hello")).out.startswith(estimated)


def test_without_limits_nothing_is_known(command):
    out = command("forecast", "-", stdin=lines("Hello")).out
    assert out.splitlines()[1:] == ["no limit is known: give --rpm, --tpm, --itpm, --otpm"]


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


@pytest.mark.parametrize("arguments", [("-", "--tokens", "5"), ("--rpm", "5"), ()])
def test_a_file_or_figures_and_not_both(command, arguments):
    said = command("forecast", *arguments, stdin=lines("a"))
    assert (said.status, said.out) == (2, "")
    assert "one or the other" in said.err
