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
MAX_IGNORED = 32  # fields of one request, where unknown ones are ignored

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
    "string_type": "a string",
}

# pydantic's name of an error: (name of the limit in its context, how the value must compare)
LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
LENGTHS = {
    "too_long": ("max_length", "at most", "entries"),
    "too_short": ("min_length", "at least", "entries"),
    "string_too_long": ("max_length", "at most", "characters"),
    "string_too_short": ("min_length", "at least", "characters"),
}


def validated(model: type[AnyModel], body: object, ignored: list[str] | None = None) -> AnyModel:
    """`body` as a `model`. Raises a subclass of InvalidRequest.

    With a list of what is `ignored`, fields that are unknown or not supported are taken out of the
    body, and their names added to the list, up to MAX_IGNORED.
    """
    while True:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            problem = _request_error(
                found["type"], found["loc"], found.get("ctx", {}), found["input"]
            )
            if not isinstance(problem, (UnknownParameter, UnsupportedParameter)):
                raise problem from None
            if ignored is None or len(ignored) == MAX_IGNORED:
                raise problem from None
            ignored.append(problem.param or "")
            _take_out(body, (*found["loc"], found["ctx"]["field"]))


def _take_out(body: Any, location: Sequence[int | str]) -> None:  # noqa: ANN401 (JSON)
    """Removes a field; pydantic's steps that are not in the JSON name the kinds of unions."""
    *way, last = [step for step in location if step is not None]
    for step in way:
        body = body[step]
    del body[last]


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
    inner = (context["field"],) if kind in CLASSES and context["field"] else ()
    param = path((*location, *inner))
    if kind in CLASSES:
        return CLASSES[kind](f"`{param}` {context['message']}.", param=param)
    if kind == "missing":
        return MissingParameter(f"`{param}` is required.", param=param)
    if kind == "float_type" and type(value) is int:
        return InvalidValue(f"`{param}` is too large a number.", param=param)
    if kind in TYPES:
        return InvalidType(f"`{param}` must be {TYPES[kind]}, not {json_type(value)}.", param=param)
    return InvalidValue(f"`{param}` {_complaint(kind, context, value)}.", param=param)


def _complaint(kind: str, context: dict[str, Any], value: object) -> str:
    """What is wrong with a value of the right type, after the field's name."""
    if kind in LIMITS:
        limit, comparison = LIMITS[kind]
        return f"is {shown(value)}; it must be {comparison} {context[limit]}"
    if kind in LENGTHS:
        limit, comparison, unit = LENGTHS[kind]
        length = context.get("actual_length", len(value) if isinstance(value, str) else None)
        return f"has {length} {unit}; it must have {comparison} {context[limit]}"
    if kind == "literal_error":
        expected = context["expected"].replace("'", "`")
        return f"is {shown(value)}; it must be {expected}"
    return "is not valid"
