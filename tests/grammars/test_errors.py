"""What an error says: our own words, never the client's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import choice, json_schema, lark, regex
from caravan.grammars.errors import GrammarError, explain
from caravan.grammars.limits import MAX_GRAMMAR_BYTES
from caravan.grammars.tools import ToolRule, required
from grammars.vocabularies import byte_words

SECRET = "s3cret"
OBJECT: dict[str, Any] = {"type": "object"}

SCHEMAS: list[dict[str, Any]] = [
    {"properties": {SECRET: {"not": {"const": SECRET}}}},
    {"type": SECRET},
    {"type": [SECRET]},
    {"format": SECRET},
    {"minimum": SECRET},
    {"minLength": SECRET},
    {"enum": SECRET},
    {"required": SECRET},
    {"required": [SECRET], "additionalProperties": False, "type": "object"},
    {"properties": SECRET},
    {"properties": {SECRET: SECRET}},
    {"anyOf": SECRET},
    {"items": SECRET},
    {"$ref": SECRET},
    {"$ref": f"#/$defs/{SECRET}"},
    {"$ref": f"https://{SECRET}.example/"},
    {"pattern": f"{SECRET}("},
    {"pattern": f"(?={SECRET})"},
    {"pattern": f"{SECRET}\\"},
    {"type": "string", "pattern": f"^{SECRET}$", "maxLength": 3},
    {"type": "string", "const": SECRET, "maxLength": 3},
    {"patternProperties": {f"{SECRET}(": {}}},
    {"patternProperties": {f"^{SECRET}": {}, SECRET: {}}},
    {"allOf": [{"const": SECRET}, {"type": "null"}]},
    {"const": SECRET + "\x01"},
    {"const": SECRET + "\ud800"},
    {"multipleOf": SECRET},
    {"oneOf": [{"properties": {SECRET: {}}}, {"required": [SECRET]}]},
    {**OBJECT, "properties": {SECRET: {}}, "maxProperties": 1},
    {"$ref": f"#/{SECRET}", SECRET: {"allOf": [{"$ref": f"#/{SECRET}"}, OBJECT]}},
    {"const": SECRET * MAX_GRAMMAR_BYTES},
    {SECRET: {"a": [1]}, "$ref": f"#/{SECRET}/a/0"},
]  # fmt: skip

PATTERNS = [
    *(
        f"{SECRET}(",
        f"[{SECRET}",
        f"(?={SECRET})",
        f"\\b{SECRET}",
        SECRET * 3000,
        f"{SECRET}\ud800",
    ),
]

GRAMMARS = [
    f"start: {SECRET}",
    f"{SECRET}: start",
    f'start: "{SECRET}',
    f"start: <{SECRET}>",
    f"start: @{SECRET}",
    f"start: /{SECRET}(/",
    f"start: /(?={SECRET})/",
    f'start: "a"\n{SECRET}: "b"\n{SECRET}: "c"',
    f"%import common.{SECRET}\nstart: {SECRET}",
    f'start: %json {{"{SECRET}"',
    f'start: %json {{"{SECRET}": 1, "not": {{}}}}',
    f"start: T\nT: {SECRET.upper()}\n{SECRET.upper()}: T",
    f"%{SECRET}",
    f'start: "{SECRET}" $',
]

TOOLS = [
    ToolRule(SECRET, schema={"type": "array", "title": SECRET}),
    ToolRule(SECRET, schema={"not": {"const": SECRET}}),
    ToolRule(SECRET, kind="custom", syntax="regex", definition=f"{SECRET}("),
    ToolRule(SECRET, kind="custom", syntax="lark", definition=f"start: {SECRET}"),
]

BUILDERS: list[Callable[[], str]] = [
    *(partial(regex, pattern) for pattern in PATTERNS),
    *(partial(lark, grammar) for grammar in GRAMMARS),
    *(partial(required, [tool], parallel=True) for tool in TOOLS),
    partial(choice, [SECRET * MAX_GRAMMAR_BYTES]),
    partial(choice, [SECRET + "\ud800"]),
]


def reason(build: Callable[[], str]) -> str:
    with pytest.raises(GrammarError) as error:
        Checker(byte_words().tokenizer).check(build())
    assert error.value.reason == str(error.value)
    assert error.value.__cause__ is None
    return error.value.reason


@pytest.mark.parametrize("index", range(len(SCHEMAS)))
def test_schemas(index: int) -> None:
    said = reason(lambda: json_schema(SCHEMAS[index]))
    assert SECRET not in said
    assert len(said) < 200


@pytest.mark.parametrize("index", range(len(BUILDERS)))
def test_others(index: int) -> None:
    said = reason(BUILDERS[index])
    assert SECRET not in said.lower()
    assert len(said) < 200
    assert "\n" not in said


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", "cannot be compiled"),
        ("something new", "cannot be compiled"),
        ("at 3(4): something new", "is not a valid grammar, line 3, column 4"),
        ("NoExtensionBias\n<non-verbose/>", "cannot be satisfied: no output could be valid"),
        ('Parser Error: token "x" doesn\'t satisfy the grammar', "does not allow the token"),
        ("Parser Error: Current row has 2081 items; max is 2000", "is too complex"),
        ("lexer error: too many expressions constructed", "is too complex"),
        ("panic: assertion failed: grammar.symbols.len() < 9", "is too complex"),
    ],
)
def test_messages_are_recognised(message: str, expected: str) -> None:
    assert expected in explain(message).reason
