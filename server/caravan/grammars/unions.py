"""Whether at most one option of a `oneOf` can hold: then it is an `anyOf`, which can be obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from caravan.grammars.keywords import Json

_KINDS = frozenset({"null", "boolean", "number", "string", "array", "object"})
_MAX_OPTIONS = 64  # each pair is compared

Value = tuple[str, Any]


def kinds(schema: Json) -> frozenset[str]:
    """The types of values that a schema may allow, integers counted as numbers."""
    if not isinstance(schema, dict):
        return frozenset() if schema is False else _KINDS
    types = schema.get("type")
    listed = types if isinstance(types, list) else _KINDS if types is None else [types]
    found = {kind for kind in listed if isinstance(kind, str)}
    if "integer" in found:
        found.add("number")
    values = _values(schema)
    return _KINDS & found & (_KINDS if values is None else {kind for kind, _ in values})


def are_apart(options: Sequence[Json]) -> bool:
    """Whether no value can satisfy two of the schemas, as far as their own keywords tell.

    References with nothing beside them must have been followed.
    """
    return len(options) <= _MAX_OPTIONS and all(_apart(a, b) for a, b in combinations(options, 2))


def _apart(a: Json, b: Json) -> bool:
    shared = kinds(a) & kinds(b)
    if not shared or _differ(a, b):
        return True
    return shared == {"object"} and any(
        _differ(_property(a, name), _property(b, name)) for name in [*_required(a), *_required(b)]
    )


def _differ(a: Json, b: Json) -> bool:
    """Whether both allow certain plain values only, and none of them alike."""
    of_a, of_b = _values(a), _values(b)
    return of_a is not None and of_b is not None and not of_a & of_b


def _values(schema: Json) -> frozenset[Value] | None:
    if not isinstance(schema, dict):
        return None
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list):
        return None
    values = [_plain(value) for value in listed]
    return None if None in values else frozenset(value for value in values if value)


def _plain(value: Json) -> Value | None:
    """A value with its type, as Python takes 1 and True for equal; None if it is a composite."""
    if value is None:
        return "null", value
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, str):
        return "string", value
    return ("number", value) if isinstance(value, int | float) else None


def _required(schema: Json) -> list[str]:
    required = schema.get("required") if isinstance(schema, dict) else None
    return (
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    )


def _property(schema: Json, name: str) -> Json:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties.get(name) if isinstance(properties, dict) else None
