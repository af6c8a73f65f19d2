"""What requests and responses of many providers say of size and usage."""

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_rate_limiter.http.payload import FIELDS, UsageReader, describe, usage_in, usage_of

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("path", "body", "model", "max_tokens"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": 5}, "m", 5),
        (
            "/v1/chat/completions",
            {"model": "m", "messages": MESSAGES, "max_completion_tokens": 7, "max_tokens": 5},
            "m",
            7,
        ),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": 5, "n": 3}, "m", 15),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": True}, "m", None),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": -5}, "m", None),
        ("/v1/responses", {"model": "m", "input": "hello", "max_output_tokens": 9}, "m", 9),
        ("/v1/embeddings", {"model": "m", "input": ["hello"]}, "m", 0),
        ("/v2/embed", {"model": "m", "texts": ["hello"]}, "m", 0),
        ("/v2/rerank", {"model": "m", "query": "hello", "documents": ["a"]}, "m", 0),
        ("/v1/chat", {"model": "m", "message": "hello", "chat_history": []}, "m", None),
        ("/v1/messages", {"model": "m", "messages": MESSAGES, "system": "be kind", "max_tokens": 4}, "m", 4),
        ("/openai/deployments/mine/chat/completions", {"messages": MESSAGES}, "mine", None),
        (
            "/v1beta/models/gemini-pro:generateContent",
            {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 8}},
            "gemini-pro",
            8,
        ),
        (
            "/v1beta/models/gemini-pro:generateContent",
            {"contents": [{"parts": [{"text": "hello"}]}], "generation_config": {"max_output_tokens": 8}},
            "gemini-pro",
            8,
        ),
        ("/v1beta/models/text-embedding:batchEmbedContents", {"contents": [{}]}, "text-embedding", 0),
        (
            "/model/anthropic.claude-v2/converse",
            {"messages": MESSAGES, "inferenceConfig": {"maxTokens": 6}},
            "anthropic.claude-v2",
            6,
        ),
        ("/api/generate", {"model": "m", "prompt": "hello", "options": {"num_predict": 3}}, "m", 3),
    ],
)
def test_requests(path, body, model, max_tokens):
    described = describe(json.dumps(body).encode(), path)
    assert described.get("model") == model
    assert described.get("max_tokens") == max_tokens
    assert described["prompt"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'"text"'])
def test_what_is_no_json_object_says_nothing(body):
    assert describe(body, "/v1/chat/completions") == {}


def test_an_empty_object_says_nothing():
    assert describe(b'{"model": 3, "messages": []}') == {}


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}, (3, 4, 7, None)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, (3, None, 3, None)),
        ({"usage": {"input_tokens": 3, "output_tokens": 4}}, (3, 4, None, None)),
        (
            {
                "usage": {
                    "input_tokens": 3,
                    "output_tokens": 4,
                    "cache_read_input_tokens": 10,
                    "cache_creation_input_tokens": 5,
                }
            },
            (18, 4, None, 10),
        ),
        (
            {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
            (3, None, None, None),
        ),
        ({"type": "message_delta", "usage": {"output_tokens": 9}}, (None, 9, None, None)),
        (
            {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}},
            (3, 4, None, None),
        ),
        (
            {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 9}},
            (3, 4, 9, None),
        ),
        (
            [{"x": 1}, {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}],
            (3, 4, None, None),
        ),
        ({"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}, (3, 4, 7, None)),
        (
            {
                "usage": {
                    "billed_units": {"input_tokens": 3},
                    "tokens": {"input_tokens": 5, "output_tokens": 4},
                }
            },
            (5, 4, None, None),
        ),
        ({"meta": {"billed_units": {"input_tokens": 3, "output_tokens": 4}}}, (3, 4, None, None)),
        (
            {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 5, "output_tokens": 4}}}},
            (5, 4, None, None),
        ),
        ({"prompt_eval_count": 3, "eval_count": 4}, (3, 4, None, None)),
    ],
)
def test_usages(body, usage):
    names = ("input_tokens", "output_tokens", "tokens", "cached_tokens")
    assert usage_of(body) == {
        name: value for name, value in zip(names, usage, strict=True) if value is not None
    }
    assert usage_in(json.dumps(body).encode()) == usage_of(body)


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, "text", 3, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": {"prompt_tokens": "3"}},
        {"usage": {"prompt_tokens": -1}}, {"usage": {"prompt_tokens": 1e300}}, {"usage": {"total_tokens": True}},
        {"message": "text"}, {"usage": {"prompt_tokens": float("nan")}},
    ],
)  # fmt: skip
def test_what_tells_no_usage(body):
    assert usage_of(body) is None


@given(
    usage=st.dictionaries(
        st.sampled_from([*FIELDS, "prompt_tokens_details"]),
        st.one_of(st.integers(-1, 100), st.none(), st.just(10**18), st.booleans(), st.floats(), st.just({})),
    ),
    plain=st.fixed_dictionaries({name: st.integers(0, 9) for name in ("prompt_tokens", "total_tokens")}),
)
def test_usage_in_its_most_common_form_is_read_as_any_other(usage, plain):
    body = {"usage": {**usage, **plain}}
    assert usage_of(body) == usage_of(MappingProxyType(body))  # which is looked through for every form


def _read(chunks, content_type="application/json", encoding=""):
    reader = UsageReader(content_type, encoding)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


@pytest.mark.parametrize("vectors", [1, 10, 300])
def test_the_end_of_a_long_body_tells_its_usage(vectors):
    """What is before it is not read: here it is no JSON."""
    body = b'{"data": [' + b"[0.123456789, oops], " * 1536 * vectors
    body += b'], "model": "m", "usage": {"prompt_tokens": 30, "total_tokens": 30}}'
    told = {"input_tokens": 30, "tokens": 30}
    assert usage_in(body) == told
    assert _read(body[at : at + 65536] for at in range(0, len(body), 65536)) == told


@pytest.mark.parametrize(
    "told", [{"meta": {"tokens": {"input_tokens": 30}}}, {"prompt_eval_count": 30, "eval_count": 0}]
)
def test_a_body_that_calls_it_otherwise_is_read_as_a_whole(told):
    body = json.dumps({"embeddings": [0.123456789] * 1536, **told}).encode()
    assert usage_in(body)["input_tokens"] == 30


def test_the_last_usage_of_a_long_body_counts():
    text = json.dumps(
        {"text": 'say "usage": {"prompt_tokens": 1}' * 20_000, "usage": {"prompt_tokens": 30}}
    ).encode()
    assert usage_in(text) == {"input_tokens": 30}
    assert usage_in(b"x" * 1_000_000) is None
    assert usage_in(b"x" * 1_000_000 + b'"usage": {"prompt_tokens"') is None


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_events_are_read_however_they_are_cut(size):
    stream = (
        b'event: message_start\r\ndata: {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}\r\n\r\n'
        b'data: {"type": "content_block_delta", "delta": {"text": "usage"}}\n\n'
        b'data: {"type": "message_delta", "usage": {"output_tokens": 15}}\n\ndata: [DONE]\n\n'
    )
    chunks = (stream[at : at + size] for at in range(0, len(stream), size))
    assert _read(chunks, "text/event-stream; charset=utf-8") == {"input_tokens": 25, "output_tokens": 15}


def test_a_line_without_end_is_not_kept_for_ever():
    reader = UsageReader("text/event-stream", "")
    for _ in range(400):
        reader.feed(b"x" * 65536)
    assert len(reader._kept) < 2_000_000
    assert reader.finish() is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
def test_what_cannot_be_unpacked_tells_nothing(encoding):
    assert _read([b'{"usage": {"prompt_tokens": 1}}'], encoding=encoding) is None
