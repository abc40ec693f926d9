"""Every keyword of JSON Schema's drafts 7 and 2020-12: obeyed, refused, or without a say."""

from __future__ import annotations

from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import json_schema
from caravan.grammars.errors import GrammarError
from caravan.grammars.keywords import FORMATS
from grammars.validation import problems
from grammars.vocabularies import byte_words
from grammars.walking import Walk, accepts, compiled

OBJECT = {"type": "object"}
TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/tree"}, "x": {"type": "null"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/tree",
}

# keyword: schema, what it lets pass, what it does not
OBEYED: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("type", {"type": "integer"}, ["1", "-0"], ["1.0", "1e2", '"1"', "null"]),
    ("type", {"type": ["null", "string"]}, ["null", '"a"'], ["1", "[]"]),
    ("enum", {"enum": ["a", 1, None]}, ['"a"', "1", "null"], ['"b"', "2", "true"]),
    ("const", {"const": {"a": [1]}}, ['{"a":[1]}'], ['{"a":[2]}', '{"a":[1],"b":1}']),
    ("minimum", {"type": "number", "minimum": 2}, ["2", "2.5"], ["1", "1.9"]),
    ("maximum", {"type": "integer", "maximum": 2}, ["2", "-5"], ["3"]),
    ("exclusiveMinimum", {"type": "integer", "exclusiveMinimum": 2}, ["3"], ["2"]),
    ("exclusiveMaximum", {"type": "number", "exclusiveMaximum": 2}, ["1.9"], ["2", "2.0"]),
    ("multipleOf", {"type": "integer", "multipleOf": 7}, ["14", "-7", "0"], ["15"]),
    ("multipleOf", {"type": "number", "multipleOf": 0.25}, ["1.75"], ["1.76"]),
    ("minLength", {"type": "string", "minLength": 2}, ['"ab"', '"é😀"'], ['"a"', '"😀"']),
    ("maxLength", {"type": "string", "maxLength": 2.0}, ['"ab"', r'"\n\n"'], ['"abc"']),
    ("pattern", {"type": "string", "pattern": "b$"}, ['"ab"'], ['"ba"']),
    ("format", {"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-29"', '"a"']),
    ("format", {"type": "integer", "format": "int64"}, ["1"], ['"1"']),
    ("properties", {**OBJECT, "properties": {"a": {"type": "null"}}}, ['{"a":null}'], ['{"a":1}']),
    ("required", {**OBJECT, "required": ["a"]}, ['{"a":1}'], ["{}", '{"b":1}']),
    ("additionalProperties", {**OBJECT, "additionalProperties": False}, ["{}"], ['{"a":1}']),
    (
        "patternProperties",
        {**OBJECT, "patternProperties": {"^x": {"type": "null"}}},
        ['{"x1":null,"y":1}'],
        ['{"x1":1}'],
    ),
    ("minProperties", {**OBJECT, "minProperties": 1}, ['{"a":1}'], ["{}"]),
    ("maxProperties", {**OBJECT, "maxProperties": 1}, ["{}", '{"a":1}'], ['{"a":1,"b":1}']),
    ("items", {"type": "array", "items": {"type": "null"}}, ["[]", "[null,null]"], ["[1]"]),
    ("items", {"type": "array", "items": [{"type": "null"}]}, ["[null,1]"], ["[1]"]),
    (
        "additionalItems",
        {"type": "array", "items": [{}], "additionalItems": False},
        ["[1]"],
        ["[1,2]"],
    ),
    ("prefixItems", {"type": "array", "prefixItems": [{"const": 1}]}, ["[1,2]"], ["[2]"]),
    (
        "prefixItems",
        {"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"const": 1}]},
        ["[1,2]"],
        ["[2]"],
    ),
    ("minItems", {"type": "array", "minItems": 1}, ["[1]"], ["[]"]),
    ("maxItems", {"type": "array", "maxItems": 1}, ["[1]"], ["[1,2]"]),
    ("anyOf", {"anyOf": [{"const": 1}, {"type": "null"}]}, ["1", "null"], ["2"]),
    ("allOf", {"allOf": [{"type": "integer"}, {"minimum": 3}]}, ["3"], ["2", "3.5"]),
    ("oneOf", {"oneOf": [{"type": "null"}, {"type": "integer"}]}, ["null", "1"], ["true"]),
    ("$ref", TREE, ['{"left":{"x":null},"x":null}'], ['{"left":{},"x":null}', '{"left":null}']),
    ("$ref", {"$ref": "#/a~1b/c%20d", "a/b": {"c d": {"const": 1}}}, ["1"], ["2"]),
    ("$ref", {"$ref": "#/definitions/a", "definitions": {"a": {"const": 1}}}, ["1"], ["2"]),
    ("$ref", {"$ref": "#/d", "minimum": 3, "d": {"type": "integer"}}, ["3"], ["2"]),
    ("$ref", {"items": {"$ref": "#"}, "type": "array"}, ["[]", "[[],[[]]]"], ["[1]"]),
    ("$ref", {"items": [{"type": "null"}, {"$ref": "#/items/0"}]}, ["[null,null]"], ["[null,1]"]),
    ("then", {"type": "null", "then": False}, ["null"], ["1"]),
]  # fmt: skip

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("not", {"not": {"type": "string"}}),
    ("if", {"if": {"type": "string"}, "then": {"minLength": 1}}),
    ("contains", {"type": "array", "contains": {"type": "null"}}),
    ("uniqueItems", {"type": "array", "uniqueItems": True}),
    ("propertyNames", {**OBJECT, "propertyNames": {"maxLength": 3}}),
    ("dependentRequired", {**OBJECT, "dependentRequired": {"a": ["b"]}}),
    ("dependentSchemas", {**OBJECT, "dependentSchemas": {"a": OBJECT}}),
    ("dependencies", {**OBJECT, "dependencies": {"a": ["b"]}}),
    ("unevaluatedProperties", {**OBJECT, "unevaluatedProperties": False}),
    ("unevaluatedItems", {"type": "array", "unevaluatedItems": False}),
    ("$dynamicRef", {"$dynamicRef": "#node"}),
    ("$recursiveRef", {"$recursiveRef": "#"}),
    ("oneOf", {"oneOf": [{"type": "integer"}, {"minimum": 2}]}),
    ("minProperties", {**OBJECT, "minProperties": 2}),
    ("minProperties", {**OBJECT, "properties": {"a": {}}, "minProperties": 2}),
    ("format", {"type": "string", "format": "regex"}),
    ("patternProperties", {**OBJECT, "patternProperties": {"^a": {}, "b$": {}}}),
    ("$ref", {"$ref": "https://json-schema.org/draft/2020-12/schema"}),
    ("$ref", {"$ref": "other.json#/a"}),
    ("$ref", {"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}),
    ("$ref", {"$ref": "#/$defs/none"}),
    ("$ref", {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, OBJECT]}}, "$ref": "#/$defs/a"}),
    ("$id", {"items": {"$id": "https://example.com/", "type": "array"}}),
]

ANNOTATIONS: dict[str, Any] = {
    "$schema": "https://example.com/own-dialect",
    "$id": "not a URI",
    "$comment": "c",
    "$anchor": "a",
    "$dynamicAnchor": "a",
    "$vocabulary": {},
    "$defs": {"unused": {"not": {}}},
    "definitions": {"unused": {"contains": 3}},
    "title": "t",
    "description": "d",
    "default": None,
    "examples": [1],
    "deprecated": True,
    "readOnly": True,
    "writeOnly": True,
    "contentEncoding": "base64",
    "contentMediaType": "image/png",
    "contentSchema": {"not": {}},
    "discriminator": {"propertyName": "kind"},
    "nullable": True,
    "x-anything": {"type": "array"},
    "x-guidance": {"lenient": True, "whitespace_flexible": False},
    # They say nothing alone, or with these values.
    "uniqueItems": False,
    "propertyNames": {"type": "string"},
    "dependentRequired": {},
    "unevaluatedProperties": True,
    "unevaluatedItems": {},
    "if": {"type": "null"},
    "else": False,
    "minContains": 3,
    "maxContains": 0,
    "not": False,
}

# Of the vocabularies of 2020-12, and what draft 7 has besides.
ALL_KEYWORDS = [
    "$schema",
    "$vocabulary",
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$ref",
    "$dynamicRef",
    "$defs",
    "$comment",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "prefixItems",
    "items",
    "contains",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "type",
    "const",
    "enum",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "definitions",
    "additionalItems",
    "dependencies",
]


def check(schema: dict[str, Any] | bool) -> str:
    grammar = json_schema(schema)
    Checker(byte_words().tokenizer).check(grammar)
    return grammar


def test_every_keyword_is_in_a_table() -> None:
    tested = {row[0] for row in OBEYED} | {row[0] for row in REFUSED} | ANNOTATIONS.keys()
    assert set(ALL_KEYWORDS) <= tested


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [row[1:] for row in OBEYED],
    ids=[f"{row[0]}-{index}" for index, row in enumerate(OBEYED)],
)
def test_obeyed(schema: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    grammar = check(schema)
    assert [text for text in valid if not accepts(byte_words(), grammar, text)] == []
    assert [text for text in invalid if accepts(byte_words(), grammar, text)] == []


@pytest.mark.parametrize(
    ("keyword", "schema"), REFUSED, ids=[f"{row[0]}-{i}" for i, row in enumerate(REFUSED)]
)
@pytest.mark.parametrize("wrap", [False, True])
def test_refused_by_name(keyword: str, schema: dict[str, Any], wrap: bool) -> None:
    """At the root and inside, where the path says where."""
    definitions = {name: schema[name] for name in ("$defs",) if name in schema}
    whole = {"properties": {"secret": schema}, **definitions} if wrap else schema
    with pytest.raises(GrammarError) as error:
        check(whole)
    assert f"`{keyword}`" in error.value.reason
    assert "secret" not in error.value.reason
    if wrap and keyword in error.value.path:
        assert error.value.path.startswith("/properties/secret")


@pytest.mark.parametrize("keyword", ANNOTATIONS)
def test_without_a_say(keyword: str) -> None:
    schema = {"type": "integer", "minimum": 5, keyword: ANNOTATIONS[keyword]}
    grammar = check(schema)
    assert accepts(byte_words(), grammar, "5")
    assert not any(accepts(byte_words(), grammar, text) for text in ("4", '"a"', "null", "[]"))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_are_obeyed(name: str, seed: int) -> None:
    schema = {"type": "string", "format": name}
    text = Walk(byte_words(), seed).text(compiled(byte_words(), check(schema)))
    assert problems(schema, text) == [], text


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        (
            "date",
            ["2000-02-29", "2024-12-31"],
            ["1900-02-29", "2023-04-31", "0000-01-01", "2023-1-1"],
        ),
        (
            "date-time",
            ["2024-01-01T23:59:59.5+01:00"],
            ["2024-01-01 00:00:00Z", "2024-01-01T24:00:00Z"],
        ),
        ("time", ["00:00:00Z"], ["00:00:60Z", "00:00:00"]),
        ("hostname", ["a.b-c.example", "x"], ["-a", "a-", "xn--a", "a..b", "a" * 64]),
        ("ipv4", ["255.0.10.1"], ["256.0.0.1", "01.0.0.1"]),
        ("ipv6", ["::", "1:2:3:4:5:6:7:8", "fe80::1"], ["1:2:3:4:5:6:7:8:9", ":::", "::1::"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
        ("email", ["a.b@example.com"], ["a@", "@b", "a b@c"]),
    ],
)
def test_formats_by_example(name: str, valid: list[str], invalid: list[str]) -> None:
    grammar = check({"type": "string", "format": name})
    assert [text for text in valid if not accepts(byte_words(), grammar, f'"{text}"')] == []
    assert [text for text in invalid if accepts(byte_words(), grammar, f'"{text}"')] == []


def test_a_format_and_a_pattern_hold_together() -> None:
    grammar = check({"type": "string", "format": "date", "pattern": "^2"})
    assert accepts(byte_words(), grammar, '"2024-02-29"')
    assert not accepts(byte_words(), grammar, '"1924-02-29"')
    assert not accepts(byte_words(), grammar, '"2"')


@pytest.mark.parametrize(
    ("options", "is_apart"),
    [
        ([{"const": 1}, {"const": "1"}, {"enum": [True, None]}], True),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{"type": "string", "enum": ["a", "b"]}, {"const": "c"}], True),
        ([{"enum": ["a", "b"]}, {"const": "b"}], False),
        ([{"const": 1}, {"enum": [2, 3.5]}], True),
        ([{"const": 1}, {"enum": [2, 1.0]}], False),
        ([{"enum": ["a", []]}, {"const": "b"}], True),
        ([{"enum": ["a", []]}, {"enum": ["b", []]}], False),
        ([{"type": "object"}, {"type": "array"}, {"type": "null"}], True),
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], True),
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}], True),
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/cat"}], False),
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/free"}], False),
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/optional"}], True),
        ([{"$ref": "#/$defs/optional"}, {"$ref": "#/$defs/optional2"}], False),
        ([{"$ref": "#/$defs/untyped"}, {"$ref": "#/$defs/cat"}], True),
        ([{"$ref": "#/$defs/untyped"}, {"properties": {"kind": {"const": "ox"}}}], False),
        ([True, {"type": "null"}], False),
        ([False, {"type": "null"}], True),
    ],
)
def test_one_of_is_obeyed_where_options_are_apart(options: list[Any], is_apart: bool) -> None:
    def kind(name: str, *required: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"const": name}}, "required": [*required]}

    definitions = {
        "cat": kind("cat", "kind"),
        "dog": kind("dog", "kind"),
        "free": {"type": "object", "required": ["kind"]},
        "optional": kind("eel"),
        "optional2": kind("ant"),
        "untyped": {"properties": {"kind": {"const": "owl"}}, "required": ["kind"]},
    }
    schema = {"oneOf": options, "$defs": definitions}
    if not is_apart:
        with pytest.raises(GrammarError, match="`oneOf`"):
            check(schema)
        return
    grammar = check(schema)
    for seed in range(3):
        text = Walk(byte_words(), seed).text(compiled(byte_words(), grammar))
        assert problems(schema, text) == [], text


def test_one_of_beside_any_of() -> None:
    schema = {
        "type": "object",
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": name}}, "required": ["k"]}
            for name in ("x", "y")
        ],
    }
    grammar = check(schema)
    assert accepts(byte_words(), grammar, '{"k":"x","a":1}')
    for text in ('{"k":"x"}', '{"a":1}', '{"k":"z","a":1}'):
        assert not accepts(byte_words(), grammar, text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "float"},
        {"type": []},
        {"type": 3},
        {"enum": []},
        {"enum": "a"},
        {"minimum": "1"},
        {"minimum": True},
        {"minLength": -1},
        {"minLength": 1.5},
        {"maxItems": "2"},
        {"multipleOf": 0},
        {"multipleOf": -2},
        {"pattern": 1},
        {"pattern": "("},
        {"pattern": "a\\"},
        {"patternProperties": {"(": {}}},
        {"properties": []},
        {"properties": {"a": 3}},
        {"required": "a"},
        {"required": [1]},
        {"anyOf": []},
        {"anyOf": {}},
        {"allOf": [None]},
        {"items": "a"},
        {"$ref": 1},
        {"format": 1},
        {"additionalProperties": "no"},
        {"const": 2**53 + 1},
        {"const": -(2**63)},  # llguidance would overflow its stack
        {"const": 10**400},
        {"minimum": -(2**63)},
        {"maximum": 1e300},
        {"minimum": 1e-300},
        {"maximum": float("nan")},
        {"maximum": float("inf")},
        {"const": "\x01"},
        {"const": {"a": ["\x7f"]}},
        {"pattern": "\\x01"},
        {"const": "\ud800"},
        {"multipleOf": 0.07},
        False,
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "string", "minLength": 2, "maxLength": 1},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"$ref": "#"},
        {"allOf": [{"type": "integer", "multipleOf": 65536}, {"multipleOf": 131072}]},
        {"allOf": [{"type": "integer", "multipleOf": 6}, {"multipleOf": 4}]},
        {"allOf": [{"type": "number", "exclusiveMinimum": 8}, {"maximum": 8.5}]},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_and_unsatisfiable_schemas_are_refused(schema: dict[str, Any] | bool) -> None:
    with pytest.raises(GrammarError) as error:
        check(schema)
    assert error.value.reason


@pytest.mark.parametrize("number", [1e-300, -1e-21, 2**53 + 2, -(2**63), 1e300, 10**400])
@pytest.mark.parametrize("keyword", ["minimum", "exclusiveMaximum", "const", "multipleOf"])
def test_numbers_out_of_range_are_refused_as_such(keyword: str, number: float) -> None:
    with pytest.raises(GrammarError, match="a number that is too large or too small"):
        json_schema({"type": "number", keyword: number})
    json_schema({"type": "number", keyword: 2**53 if keyword != "multipleOf" else 5})


def test_the_path_leads_to_the_keyword() -> None:
    inner: list[Any] = [{}, {"not": {}}]
    schema = {"properties": {"a/b": {"items": {"anyOf": inner}}}}
    with pytest.raises(GrammarError) as error:
        json_schema(schema)
    assert error.value.path == "/properties/a~1b/items/anyOf/1/not"
