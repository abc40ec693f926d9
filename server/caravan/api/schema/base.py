"""What all request bodies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

T = TypeVar("T")
Items = Annotated[list[T], FailFast()]  # one error is enough, however long the list
# The largest one is the model's.
TokenId = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]


def only(*values: object) -> WithJsonSchema:
    """What is obeyed of a field's values, for the description of the API."""
    return WithJsonSchema({"enum": list(values)})


def refuse(code: str, message: str, field: str | None = None) -> NoReturn:
    """Ends validation with an error of the class that has this code (`validation.CLASSES`).

    `message` continues the name of the field: "must be a string". `field` names a field inside the
    value that is being validated.
    """
    raise PydanticCustomError(code, "{message}", {"message": message, "field": field})


def refuse_unless(obeyed: bool, message: str, field: str) -> None:
    """Refuses a value of a field that is known, and obeyed with another value only."""
    if not obeyed:
        refuse("unsupported_parameter", message, field)


class Body(BaseModel):
    """A JSON object; its subclasses' fields are the only ones it may have."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
    refused: ClassVar[Mapping[str, str]] = {}  # by name, how the message goes on

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return value
        present = {name: item for name, item in value.items() if item is not None}
        for name in present.keys() - cls.names():
            if name in cls.refused:
                refuse("unsupported_parameter", cls.refused[name], name)
            refuse("unknown_parameter", "is not a known field", name)
        return present

    @classmethod
    @cache
    def names(cls) -> frozenset[str]:
        """Of the fields, as JSON has them."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())


class Typed(Body):
    """An object whose `type` names which one of some fields it has; it has no other of them."""

    choices: ClassVar[tuple[str, ...]]  # the fields; a type that is none of them has none

    type: str

    @model_validator(mode="after")
    def _is_what_it_says(self) -> Self:
        for name in self.choices:
            given = getattr(self, name) is not None
            if name == self.type and not given:
                refuse("missing_required_parameter", f"is required for type `{name}`", name)
            if name != self.type and given:
                refuse("invalid_value", f"belongs to type `{name}`", name)
        return self
