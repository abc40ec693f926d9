"""JSON schemas of request bodies and answers, for the description of the API.

pydantic writes them from the types; what a body's own validators decide is added here. A field that
is `null` counts as absent, so every field that may be absent may be null.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import ModelSchema, NullableSchema, WithDefaultSchema

from caravan.api.schema.base import Body
from caravan.api.schema.chat import ChatBody
from caravan.api.schema.conversation import ContentPart, MessageItem, ToolCallItem
from caravan.api.schema.output import ResponseFormat, StructuredOutputs
from caravan.api.schema.tokens import TokenizeBody
from caravan.api.schema.tools import CustomFormat, ToolChoice, ToolItem, ToolReference

Json = dict[str, Any]

COMPONENTS = "#/components/schemas/"

# Objects whose `type` says which of their fields they have: that of the same name, if there is one.
TYPED: dict[type[Body], tuple[str, ...]] = {
    ContentPart: ("text", "image_url", "refusal"),
    CustomFormat: ("text", "grammar"),
    ResponseFormat: ("text", "json_object", "json_schema"),
    ToolCallItem: ("function", "custom"),
    ToolChoice: ("function", "custom", "allowed_tools"),  # the others are words
    ToolItem: ("function", "custom"),
    ToolReference: ("function", "custom"),
}

# Of messages by role: the parts that the content may have, other fields, and what is needed. An
# assistant's message needs any of its fields.
ROLES = (
    (("system", "developer"), ("text",), (), ("content",)),
    (("user",), ("text", "image_url"), (), ("content",)),
    (("assistant",), ("text", "refusal"), ("refusal", "tool_calls"), ()),
    (("tool",), ("text",), ("tool_call_id",), ("content", "tool_call_id")),
)


def component_schemas(types: Iterable[Any]) -> dict[str, Json]:
    """By name, the schemas of all types, and of those that they refer to."""
    adapters = [(kind, "validation", TypeAdapter(kind)) for kind in types]
    _, document = TypeAdapter.json_schemas(
        adapters,  # type: ignore[arg-type]  # a list of tuples is taken for one of wider tuples
        schema_generator=_Generator,
        ref_template=COMPONENTS + "{model}",
    )
    schemas: dict[str, Json] = document["$defs"]
    for schema in schemas.values():
        del schema["title"]  # it repeats the name
    return schemas


class _Generator(GenerateJsonSchema):
    """pydantic's generator, with what it cannot know of our bodies."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 (pydantic's union)
        """Never: a title would repeat the field's name."""
        return False

    def nullable_schema(self, schema: NullableSchema) -> Json:
        """In OpenAPI 3.1's short form."""
        return _nullable(self.generate_inner(schema["schema"]))

    def default_schema(self, schema: WithDefaultSchema) -> Json:
        """A default that says nothing is left out."""
        inner = _nullable(self.generate_inner(schema["schema"]))
        default = schema.get("default")
        if isinstance(default, Body):
            default = default.model_dump(exclude_none=True)
        return inner if default in (None, [], {}, "") else {**inner, "default": default}

    def model_schema(self, schema: ModelSchema) -> Json:
        """A body has no fields but those named."""
        whole = super().model_schema(schema)
        whole["additionalProperties"] = False
        kind = schema["cls"]
        if kind is ChatBody:
            whole["properties"]["max_tokens"]["minimum"] = 1  # 0 is for completions
        if kind in TYPED:
            options = [_of_type(whole, name) for name in TYPED[kind]]
        elif kind is MessageItem:
            options = [_of_role(whole["properties"], *role) for role in ROLES]
        elif kind is StructuredOutputs:
            options = [
                _object({name: field}, [name]) for name, field in whole["properties"].items()
            ]
        elif kind is TokenizeBody:
            options = [_without(whole["properties"], "messages", "prompt")]
            options.append(_without(whole["properties"], "prompt", "messages"))
        else:
            return whole
        return {"title": whole["title"], "description": whole["description"], "oneOf": options}


def _object(fields: Json, needed: Collection[str]) -> Json:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "properties": fields | {name: _not_null(fields[name]) for name in needed},
        "required": [*needed],
        "additionalProperties": False,
    }


def _of_type(whole: Json, name: str) -> Json:
    """The object when its `type` is `name`."""
    fields = whole["properties"]
    kinds = fields["type"]["enum"]
    kept = {key: field for key, field in fields.items() if key == name or key not in kinds}
    option = _object(kept, [key for key in kept if key == name or key in whole["required"]])
    option["properties"]["type"] = {"const": name}
    return option


def _of_role(
    fields: Json,
    roles: Sequence[str],
    parts: Sequence[str],
    others: Sequence[str],
    needed: Sequence[str],
) -> Json:
    """The message when its role is one of some."""
    text, several, _ = fields["content"]["anyOf"]
    only = {"properties": {"type": {"enum": [*parts]}}}
    content = {"anyOf": [text, {**several, "items": several["items"] | only}, _NULL]}
    kept = {
        "role": {"enum": [*roles]},
        "content": content,
        **{name: fields[name] for name in others},
    }
    option = _object(kept, ("role", *needed))
    if not needed:
        option["anyOf"] = [
            {"required": [name], "properties": {name: {"not": {"enum": [None, []]}}}}
            for name in kept
            if name != "role"
        ]
    return option


def _without(fields: Json, name: str, needed: str) -> Json:
    kept = {key: field for key, field in fields.items() if key != name}
    return _object(kept, [needed])


def _nullable(schema: Json) -> Json:
    if "enum" in schema:
        values = schema["enum"]
        return schema if None in values else {"enum": [*values, None]}
    if "type" in schema:
        kind = schema["type"]
        return {**schema, "type": [kind, "null"]} if isinstance(kind, str) else schema
    options = schema.get("anyOf", [schema])
    return {"anyOf": [*(option for option in options if option != _NULL), _NULL]}


def _not_null(schema: Json) -> Json:
    """The schema without what `_nullable` added."""
    if "enum" in schema:
        return {"enum": [value for value in schema["enum"] if value is not None]}
    if isinstance(schema.get("type"), list):
        [kind] = [kind for kind in schema["type"] if kind != "null"]
        return {**schema, "type": kind}
    if "anyOf" not in schema:
        return schema
    options = [option for option in schema["anyOf"] if option != _NULL]
    return options[0] if len(options) == 1 else {**schema, "anyOf": options}


_NULL = {"type": "null"}
