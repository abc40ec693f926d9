"""What the answer must look like: JSON, one of some texts, a pattern, a grammar."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from caravan.api.schema.base import Body, Items, Typed, only, refuse

MAX_CHOICES = 4096

Schema = dict[str, Any] | bool


def _is_schema(value: object) -> object:
    if not isinstance(value, (dict, bool)):
        refuse("invalid_type", "must be an object or a boolean")
    return value


class JsonSchemaFormat(Body):
    """A schema with its name."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: Annotated[Schema, Field(alias="schema"), BeforeValidator(_is_schema)] = True
    strict: bool = False  # the grammar holds in any case


class ResponseFormat(Typed):
    """OpenAI's `response_format`."""

    choices = ("json_schema",)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


def _parsed_schema(value: object) -> object:
    """A schema may be given as its text, too."""
    if not isinstance(value, str):
        return _is_schema(value)
    try:
        return _is_schema(json.loads(value))
    except (ValueError, RecursionError):
        refuse("invalid_value", "is a string, but not the text of a JSON schema")


def _true(value: bool) -> bool:
    if not value:
        refuse("invalid_value", "is false; send true, or leave it out")
    return value


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`: exactly one of its fields."""

    refused = dict.fromkeys(
        (
            "disable_additional_properties",
            "disable_any_whitespace",
            "structural_tag",
            "whitespace_pattern",
        ),
        "is not supported; white space in JSON is bounded in any case",
    )

    json_: Annotated[
        Schema | None,
        Field(alias="json"),
        BeforeValidator(_parsed_schema, json_schema_input_type=Schema | str),
    ] = None
    json_object: Annotated[bool, AfterValidator(_true), only(True)] | None = None
    regex: str | None = Field(None, min_length=1)
    choice: Annotated[
        Items[str], Field(max_length=MAX_CHOICES, json_schema_extra={"minItems": 1})
    ] = []
    grammar: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) not in (None, [])]
        if len(given) != 1:
            refuse(
                "invalid_value",
                f"has {len(given)} of `json`, `json_object`, `regex`, `choice` and `grammar`; it "
                "must have exactly one",
            )
        return self
