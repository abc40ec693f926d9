"""The description of the API as tests use it: one schema at a time, and answers are closed."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from caravan.api.openapi import document

DOCUMENT = document(keyed=True)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def closed(schema: Any) -> Any:
    """The same without fields that are not described, in all objects that describe some."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if inner.get("type") == "object" and "properties" in inner:
        inner.setdefault("additionalProperties", False)
    return inner


def validator(name: str) -> Draft202012Validator:
    """Of one of the components, its answers closed."""
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed(SCHEMAS)}}
    )


def complaints(name: str, value: object) -> list[str]:
    """What is wrong with a value, in short."""
    return [
        f"{error.json_path}: {error.message[:200]}" for error in validator(name).iter_errors(value)
    ]


def events(text: str) -> list[Any]:
    """The JSON of a stream's events, which must end with [DONE]."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines, text
    assert lines.pop() == "[DONE]", text
    return [json.loads(line) for line in lines]
