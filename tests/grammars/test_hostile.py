"""Input that is made to cost much: it is refused, or it compiles and is followed, in bounds.

No time is asserted, but without the limits some of these run for minutes, take all memory, or
overflow the stack and end the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import choice, json_schema, lark, regex
from caravan.grammars.errors import GrammarError
from caravan.grammars.limits import MAX_GRAMMAR_BYTES
from caravan.grammars.tools import ToolRule, required
from grammars.vocabularies import byte_words
from grammars.walking import Walk, compiled

Schema = dict[str, Any]


def object_of(count: int, schema: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": {f"p{i}": schema for i in range(count)}, **more}


def nested(depth: int, inner: Schema) -> Schema:
    return reduce(lambda schema, _: {"type": "array", "items": schema}, range(depth), inner)


def chain(count: int, link: Callable[[Schema], Schema]) -> Schema:
    """Definitions, each of which leads to the next."""
    links = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(count)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{count}": {"type": "string"}}}


def product(groups: int, options: int, option: Callable[[int, int], Schema]) -> Schema:
    return {"allOf": [{"anyOf": [option(i, j) for j in range(options)]} for i in range(groups)]}


NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}

REFUSED_SCHEMAS: dict[str, Schema] = {
    "deep": nested(70, {}),
    "very deep": nested(5000, {}),
    "deep constant": {"const": json.loads("[" * 100 + "]" * 100)},
    "long chain of references": chain(1900, lambda schema: schema),
    "deep chain of references": chain(100, lambda schema: {"items": schema}),
    "chain of combined references": chain(300, lambda s: {"type": "object", "allOf": [s]}),
    "many subschemas": object_of(90, object_of(90, {"type": "string"})),
    "many properties": object_of(1001, {}),
    "many names": {"type": "object", "required": [f"p{i}" for i in range(1001)]},
    "many options": {"anyOf": [{"const": i} for i in range(1001)]},
    "many constants": {"enum": [f"v{i}" for i in range(8193)]},
    "many composite constants": {"enum": [{"a": i} for i in range(1001)]},
    "many name patterns": {"patternProperties": {f"^{i}$": {} for i in range(21)}},
    "many pattern characters": object_of(9, {"pattern": "a" * 2000}),
    "long pattern": {"pattern": "a" * 9000},
    "nested repetitions": {"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
    "optional items": {"type": "string", "pattern": ".?" * 1501},
    "optional items in all": object_of(4, {"type": "string", "pattern": ".?" * 400}),
    "product of strings": product(8, 4, lambda i, j: {"type": "string", "pattern": f"a{i}{j}"}),
    "product of objects": product(6, 4, lambda i, j: {"properties": {f"a{i}_{j}": {}}}),
    "product through references": {
        "allOf": [{"$ref": "#/$defs/a"}] * 8,
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}] * 4}, "b": object_of(2, {})},
    },
    "product inside": {"allOf": [object_of(1, {"anyOf": [object_of(2, {})] * 6})] * 6},
    "copies": {
        "properties": {"a": {"prefixItems": [{"type": "null"}] * 800}},
        "anyOf": [{"required": [f"x{i}"]} for i in range(500)],
    },
    "large copies": {
        **object_of(1, {"type": "array", "prefixItems": [{"type": "null"}] * 800}),
        "anyOf": [{"type": "object", "required": [f"x{i}"]} for i in range(100)],
    },
    "patterns of one string": {"allOf": [{"pattern": f"(.*a){{{i}}}.*"} for i in range(2, 14)]},
    "large steps": {"type": "integer", "multipleOf": 65521},
    "many steps": {"anyOf": [{"multipleOf": 5001 + i} for i in range(4)]},
    "large count": {"type": "array", "maxItems": 10**9},
    "endless recursion": {
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "$defs": {
            name: {"type": "object", "properties": {"c": {"$ref": f"#/$defs/{name}"}}}
            for name in "ab"
        },
    },
}  # fmt: skip

ALLOWED_SCHEMAS: dict[str, Schema] = {
    "deep": nested(60, {"type": "null"}),
    "chain of references": chain(60, lambda schema: schema),
    "doubling references": {
        "$ref": "#/$defs/a0",
        "$defs": {
            **{
                f"a{i}": {"prefixItems": [{"$ref": f"#/$defs/a{i + 1}"}] * 2, "items": False}
                for i in range(50)
            },
            "a50": {"type": "null"},
        },
    },
    "combined objects": {
        "allOf": [
            {"properties": {f"{name}{i}": NULLABLE for i in range(90)}}
            for name in "ab"
        ]
    },
    "constants": {"type": "string", "enum": [f"v{i}" for i in range(8192)]},
    "required properties": object_of(150, {}, required=[f"p{i}" for i in range(150)]),
    "optional properties": object_of(300, {"type": "null"}, additionalProperties=False),
    "long strings": {"type": "string", "minLength": 200, "maxLength": 10**6},
    "long arrays": {"type": "array", "minItems": 200, "maxItems": 10**6, "items": {"type": "null"}},
    "prefixes": {"type": "array", "prefixItems": [{"type": "null"}] * 1000, "minItems": 200},
    "steps": {"type": "integer", "multipleOf": 9973},
    "recursion": {"type": "object", "additionalProperties": {"$ref": "#"}},
}  # fmt: skip


def check(grammar: str) -> None:
    Checker(byte_words().tokenizer).check(grammar)


@pytest.mark.parametrize("name", REFUSED_SCHEMAS)
def test_schemas_that_are_refused(name: str) -> None:
    """Before llguidance sees them."""
    with pytest.raises(GrammarError):
        json_schema(REFUSED_SCHEMAS[name])


def test_a_circle_of_references_is_refused() -> None:
    links = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
    with pytest.raises(GrammarError, match="satisfied"):
        check(json_schema({"$ref": "#/$defs/a", "$defs": links}))


@pytest.mark.parametrize("name", ALLOWED_SCHEMAS)
def test_large_schemas_that_are_followed(name: str) -> None:
    grammar = json_schema(ALLOWED_SCHEMAS[name])
    check(grammar)
    json.loads(Walk(byte_words(), 1).text(compiled(byte_words(), grammar)))


@pytest.mark.parametrize(
    "pattern",
    [
        "((a{1,1000}){1,1000}){1,1000}",
        "a{100000}",
        "(a|ab){1,200}{1,200}",
        ".?" * 2000,
        "(a*)*" * 1600,
        "(" * 300 + ")" * 300,
        "a" * 8193,
        "a{1,99999999999}",
    ],
    ids=lambda pattern: pattern[:20],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(GrammarError):
        check(regex(pattern))
    with pytest.raises(GrammarError):
        check(lark(f"start: /{pattern}/"))


@pytest.mark.parametrize(
    "pattern",
    [r"(\w+[.-]?)*@x", "(.*a){20}", "a{0,9000}", "(x+x+)+y", "|".join(f"w{i}" for i in range(900))],
    ids=lambda pattern: pattern[:20],
)
def test_patterns_that_are_followed(pattern: str) -> None:
    grammar = regex(pattern)
    check(grammar)
    matcher = compiled(byte_words(), grammar)
    row = byte_words().new_row()
    for byte in b"aaxxw11":
        matcher.mask_into(row)
        if row[byte // 32] >> (byte % 32) & 1:
            assert matcher.accept(byte)
    assert matcher.failed is None


@pytest.mark.parametrize(
    "grammar",
    [
        "start: " + "(" * 5000 + '"a"' + ")" * 5000,
        "start: " + "(" * 40 + '"a"' + ")" * 40,
        "start: " + '("a") ' * 1001,
        "\n".join(f"r{i}: r{i + 1}" for i in range(3000)),
        "\n".join(f"T{i}: T{i + 1} /a/" for i in range(3000)),
        "start: " + " | ".join(f'"{i}"' for i in range(3000)),
        "start: " + " ".join(["x?"] * 1600),
        "start: " + " ".join(["/.?/"] * 1600),
        "start: " + "/" + ".?" * 1000 + "/ /" + ".?" * 1000 + "/",
        'start: %json {"type": "array", "items": ' + json.dumps(nested(100, {})) + "}",
        "start: %json " + "[" * 10_000,
        "start: " + " ".join(["%json " + json.dumps(object_of(200, {}))] * 50),
        "start: " + "A " * MAX_GRAMMAR_BYTES,
    ],
    ids=lambda grammar: grammar[:25],
)
def test_lark_grammars_that_are_refused(grammar: str) -> None:
    with pytest.raises(GrammarError):
        check(lark(grammar))


def test_ambiguity_ends_an_output_and_nothing_else() -> None:
    """A parser's row may grow with each token: it fails in the end, and says so."""
    words = byte_words()
    grammar = lark('start: (((x{1,9999}){1,9999}){1,9999}){1,9999}\nx: "a" | "b"')
    check(grammar)
    matcher = compiled(words, grammar)
    row = words.new_row()
    for _ in range(200):
        matcher.mask_into(row)
        if not matcher.accept(ord("a")):
            break
    assert matcher.failed
    assert "too complex" in matcher.failed
    matcher.mask_into(row)
    assert not row.any()
    assert not matcher.accept(ord("a"))
    fresh = compiled(words, grammar)
    assert fresh.accept(ord("a"))


def test_all_tools_together_are_bounded() -> None:
    one = object_of(80, {"type": "string"})
    required([ToolRule(f"t{i}", schema=one) for i in range(40)], parallel=True)
    with pytest.raises(GrammarError):
        required([ToolRule(f"t{i}", schema=one) for i in range(128)], parallel=True)
    pattern = ToolRule("p", kind="custom", syntax="regex", definition=".?" * 100)
    required([pattern] * 15, parallel=True)
    with pytest.raises(GrammarError):
        required([pattern] * 16, parallel=True)
    grammar = ToolRule("p", kind="custom", syntax="lark", definition="start: " + "A " * 250)
    required([grammar] * 7, parallel=True)
    with pytest.raises(GrammarError):
        required([grammar] * 8, parallel=True)


def test_long_grammars_are_refused() -> None:
    for build in (
        lambda: json_schema({"const": "x" * MAX_GRAMMAR_BYTES}),
        lambda: choice(["x" * MAX_GRAMMAR_BYTES]),
        lambda: required([ToolRule("x" * MAX_GRAMMAR_BYTES)], parallel=True),
        lambda: check("start: " + " " * MAX_GRAMMAR_BYTES),
    ):
        with pytest.raises(GrammarError, match="more than"):
            build()
