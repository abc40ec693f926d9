"""The keywords of JSON Schema, drafts 6 to 2020-12, and the formats of strings."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any] | list[Any] | str | float | bool | None
Schema = dict[str, Any] | bool

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# They say nothing of what is valid. OpenAPI's come along; an unknown keyword is one of these too.
ANNOTATIONS = frozenset(
    {
        "$anchor",
        "$comment",
        "$dynamicAnchor",
        "$id",
        "$recursiveAnchor",
        "$schema",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    }
)

# They can only be obeyed by a validator, which sees the whole instance; each with its neutral
# values, with which it says nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "$dynamicRef": (),
    "$recursiveRef": (),
    "contains": (),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "not": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "uniqueItems": (False,),
}

# Formats of numbers, and one that is only a hint: no string is invalid under them.
OPEN_FORMATS = frozenset({"int32", "int64", "float", "double", "password"})

# llguidance's own.
GUIDANCE_FORMATS = frozenset({"duration", "email", "ipv4", "ipv6", "uri", "uuid"})

_FOURS = r"(?:0[48]|[2468][048]|[13579][26])"  # of two digits but 00, those that 4 divides
_LEAP_YEAR = rf"(?:[0-9]{{2}}{_FOURS}|{_FOURS}00)"
_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    rf"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

# A label of a host's name, of at most 30 characters: eight of them fit into the 253 that a name may
# have. Two hyphens in its third and fourth place would mean that it is encoded.
_LABEL = (
    "[a-zA-Z0-9](?:[a-zA-Z0-9]|[a-zA-Z0-9-][a-zA-Z0-9](?:[a-zA-Z0-9-]{0,26}[a-zA-Z0-9])?"
    "|[a-zA-Z0-9-]-[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,25}[a-zA-Z0-9])?)?"
)

# llguidance's allow 29 February in any year, the year 0, a 61st second, names that are too long.
PATTERN_FORMATS = {
    "hostname": rf"^{_LABEL}(?:\.{_LABEL}){{0,7}}$",
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}

FORMATS = frozenset({*GUIDANCE_FORMATS, *PATTERN_FORMATS})
