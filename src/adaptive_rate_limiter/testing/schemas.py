"""Values that a JSON schema accepts, for structured answers and arguments of tools."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Schema = Mapping[str, Any]

FORMATS = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: Schema) -> Any:
    """The least value that a simple schema accepts. Patterns and combined conditions are beyond it."""
    return _sample(schema, schema)


def _sample(schema: Schema, root: Schema) -> Any:
    if "$ref" in schema:
        return _sample(_resolved(schema["$ref"], root), root)
    fixed = [schema[key] for key in ("const", "default") if key in schema] or schema.get("enum")
    if fixed:
        return fixed[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _sample(schema[key][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    first = kind[0] if isinstance(kind, list) else kind
    return KINDS[first](schema, root) if first in KINDS else None


def _object(schema: Schema, root: Schema) -> dict[str, Any]:
    wanted = schema.get("required", ())  # optional parts may recurse for ever
    return {
        name: _sample(part, root) for name, part in schema.get("properties", {}).items() if name in wanted
    }


def _array(schema: Schema, root: Schema) -> list[Any]:
    count = max(1, schema.get("minItems", 1)) if schema.get("maxItems", 1) else 0
    return [_sample(schema.get("items") or {}, root) for _ in range(count)]


def _string(schema: Schema, _root: Schema) -> str:
    text = FORMATS.get(schema.get("format", ""), "text")
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _number(schema: Schema, _root: Schema, *, usual: float) -> float:
    if "minimum" in schema or "exclusiveMinimum" in schema:
        least: float = (
            schema["minimum"] if "minimum" in schema else math.floor(schema["exclusiveMinimum"]) + 1
        )
        return least
    most = schema.get("maximum", schema.get("exclusiveMaximum", math.inf))
    return usual if usual < most else math.ceil(most) - 1


KINDS: dict[str, Callable[[Schema, Schema], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": partial(_number, usual=1),
    "number": partial(_number, usual=1.5),
    "boolean": lambda _schema, _root: True,
}


def _resolved(reference: str, root: Schema) -> Schema:
    found: Any = root
    for part in reference.lstrip("#/").split("/"):
        found = found.get(part, {})
    return found if isinstance(found, dict) else {}
