"""The arguments of a call as Python writes them: `city="Lima", days=2`, with values in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from caravan.grammars.constraints import literal

# A schema with no other keyword says everything about its properties one by one.
_PLAIN = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "$defs", "definitions"),
        *("title", "description", "$schema", "$id", "$comment", "examples", "default"),
    }
)
_MAX_PARAMETERS = 64


def keyword_arguments(
    schema: dict[str, Any], name: str, json: Callable[[dict[str, Any]], str]
) -> list[str] | None:
    """Lark rules for an object's members as keyword arguments, in the order of the schema.

    The first rule is `NAME_first_0`; `json` writes the JSON of a schema as a part of a rule. None:
    the object cannot be taken apart, or a member's name is no word of Python. Then `**` and the
    whole object is the way to write it. Raises what `json` raises.
    """
    properties = schema.get("properties", {})
    if not _can_be_taken_apart(schema, properties):
        return None
    shared: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    values = [
        json({**shared, **(member if isinstance(member, dict) else {})})
        for member in properties.values()
    ]
    return list(_rules(name, list(properties), values, set(schema.get("required", ()))))


def _can_be_taken_apart(schema: dict[str, Any], properties: Any) -> bool:  # noqa: ANN401 (JSON)
    if not schema.keys() <= _PLAIN or not isinstance(properties, dict):
        return False
    if not properties and schema.get("additionalProperties") is not False:
        return False
    if len(properties) > _MAX_PARAMETERS or False in properties.values():
        return False
    required = schema.get("required", [])
    words = all(word.isidentifier() and word.isascii() for word in properties)
    return words and isinstance(required, list) and set(required) <= properties.keys()


def _rules(name: str, words: list[str], values: list[str], required: set[str]) -> Iterator[str]:
    """`first`: nothing was written yet; `next`: something was, so a comma comes before the rest."""
    for index, (word, value) in enumerate(zip(words, values, strict=True)):
        yield f"{name}_{index}: {literal(word + '=')} {value}"
        first = f"{name}_{index} {name}_next_{index + 1}"
        following = f"LIST_COMMA {first}"
        if word in required:
            yield f"{name}_first_{index}: {first}"
            yield f"{name}_next_{index}: {following}"
        else:
            yield f"{name}_first_{index}: {first} | {name}_first_{index + 1}"
            yield f"{name}_next_{index}: {following} | {name}_next_{index + 1}"
    yield f'{name}_first_{len(words)}: ""'
    yield f'{name}_next_{len(words)}: ""'
