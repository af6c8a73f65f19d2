import pytest

from adaptive_rate_limiter.testing.calls import IMAGE_TOKENS, characters
from adaptive_rate_limiter.testing.schemas import sample

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}},
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/Node",
}

SAMPLES = [
    ({"type": "string"}, "text"),
    ({"type": "string", "minLength": 6}, "textxx"),
    ({"type": "string", "maxLength": 2}, "te"),
    ({"type": "string", "format": "date"}, "2025-01-31"),
    ({"enum": ["red", "green"]}, "red"),
    ({"const": 7}, 7),
    ({"type": "integer", "default": 5}, 5),
    ({"type": "integer"}, 1),
    ({"type": "integer", "minimum": 10}, 10),
    ({"type": "integer", "exclusiveMinimum": 10}, 11),
    ({"type": "integer", "maximum": -3}, -4),
    ({"type": "number"}, 1.5),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["integer", "null"]}, 1),
    ({"type": "array", "items": {"type": "integer"}}, [1]),
    ({"type": "array", "minItems": 2}, ["text", "text"]),
    ({"type": "array", "maxItems": 0}, []),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
    (TREE, {"name": "text"}),
    ({"$ref": "#/$defs/Lost"}, "text"),
    ({"$ref": "#/title", "title": "not a schema"}, "text"),
]


@pytest.mark.parametrize(("schema", "expected"), SAMPLES)
def test_a_sample_matches_its_schema(schema, expected):
    assert sample(schema) == expected


PROMPTS = [
    (None, 0),
    (7, 0),
    ("hello", 5),
    (["ab", {"type": "text", "text": "cd"}], 4),
    ([{"role": "user", "content": "abc"}, {"role": "user", "content": [{"type": "text", "text": "d"}]}], 4),
    ({"type": "image_url", "image_url": {"url": "data:" + "x" * 10_000}}, IMAGE_TOKENS * 4),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, 2),
    ({"type": "tool_use", "name": "f", "input": {"a": 1}}, len('{"a":1}')),
    ({"type": "tool_result", "content": "sunny"}, 5),
    ({"type": "function_call_output", "output": "sunny"}, 5),
]


@pytest.mark.parametrize(("prompt", "count"), PROMPTS)
def test_characters_of_a_prompt(prompt, count):
    assert characters(prompt) == count
