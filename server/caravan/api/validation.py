"""What pydantic finds in a request body, as one error of ours: the first, named and short.

Values are shown only when they are small; a megabyte in a field never comes back in a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from caravan.errors import (
    InvalidRequest,
    InvalidType,
    InvalidValue,
    MissingParameter,
    UnknownParameter,
    UnsupportedParameter,
)

MAX_SHOWN_CHARACTERS = 64

AnyModel = TypeVar("AnyModel", bound=BaseModel)

CLASSES: dict[str, type[InvalidRequest]] = {
    "missing_required_parameter": MissingParameter,
    "unknown_parameter": UnknownParameter,
    "unsupported_parameter": UnsupportedParameter,
    "invalid_type": InvalidType,
    "invalid_value": InvalidValue,
}

# pydantic's name of a type error: what the field must be
TYPES = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "string_type": "a string",
}

# pydantic's name of a range error: (name of the limit in its context, what the value must be)
RANGES = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def validated(model: type[AnyModel], body: object) -> AnyModel:
    """`body` as a `model`. Raises a subclass of InvalidRequest."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise _request_error(
            found["type"], found["loc"], found.get("ctx", {}), found["input"]
        ) from None


def shown(value: object) -> str:
    """A value for a message: one line, at most 64 characters and valid UTF-8.

    >>> shown("x" * 100)[-5:]
    'xx...'
    """
    if isinstance(value, (list, dict)):
        return json_type(value)
    text = value if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else " " for character in text[:100])
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = text[: MAX_SHOWN_CHARACTERS - 3] + "..."
    return text.encode("utf-8", "replace").decode()


def path(location: Sequence[int | str]) -> str:
    """The name that a client sees.

    >>> path(("messages", 0, "content", 1, "text"))
    'messages[0].content[1].text'
    """
    name = ""
    for step in location:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step.startswith("["):
            name += step
        else:
            name += f".{shown(step)}" if name else shown(step)
    return name


def json_type(value: object) -> str:
    """What JSON calls a value's type, with its article."""
    for kind, name in (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, kind):
            return name
    return "null"


def _request_error(
    kind: str, location: tuple[int | str, ...], context: dict[str, Any], value: object
) -> InvalidRequest:
    if kind in CLASSES:
        field = context["field"]
        param = path(location if field is None else (*location, field))
        return CLASSES[kind](
            f"`{param}` {context['message']}." if param else f"The body {context['message']}.",
            param=param or None,
        )
    param = path(location)
    name = f"`{param}`" if param else "The body"
    if kind == "missing":
        return MissingParameter(f"{name} is required.", param=param)
    if kind in TYPES:
        if kind == "float_type" and type(value) is int:
            return InvalidValue(f"{name} is too large a number.", param=param)
        return InvalidType(
            f"{name} must be {TYPES[kind]}, not {json_type(value)}.", param=param or None
        )
    return InvalidValue(f"{name} {_complaint(kind, context, value)}.", param=param)


def _complaint(kind: str, context: dict[str, Any], value: object) -> str:
    """What is wrong with a value of the right type, after the field's name."""
    if kind in RANGES:
        limit, comparison = RANGES[kind]
        return f"is {shown(value)}; it must be {comparison} {context[limit]}"
    if kind == "literal_error":
        return f"is {shown(value)}; it must be {context['expected'].replace(chr(39), '`')}"
    if kind in ("too_long", "too_short"):
        limit = context["max_length"] if kind == "too_long" else context["min_length"]
        bound = "at most" if kind == "too_long" else "at least"
        return f"has {context['actual_length']} entries; it must have {bound} {limit}"
    if kind in ("string_too_long", "string_too_short"):
        limit = context["max_length"] if kind == "string_too_long" else context["min_length"]
        bound = "at most" if kind == "string_too_long" else "at least"
        assert isinstance(value, str), (kind, type(value))
        return f"has {len(value)} characters; it must have {bound} {limit}"
    return "is not valid"
