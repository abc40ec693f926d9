"""Whatever comes in: a grammar, or a GrammarError."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import choice, json_schema, lark, regex
from caravan.grammars.errors import GrammarError
from caravan.grammars.keywords import ANNOTATIONS, FORMATS, TYPES, UNSUPPORTED
from caravan.grammars.tools import ToolRule, automatic, required
from grammars.vocabularies import byte_words

KEYWORDS = [
    *("type", "enum", "const", "properties", "patternProperties", "additionalProperties"),
    *("required", "minProperties", "maxProperties", "items", "prefixItems", "additionalItems"),
    *("minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "anyOf", "oneOf", "allOf", "$ref"),
    *("$defs", "if", "then", "else", *sorted(UNSUPPORTED), *sorted(ANNOTATIONS)),
]
SCALARS = [
    *(None, True, False, 0, 1, -1, 2.5, -0.0, 1e-30, 1e300, 2**53, 2**63, -(2**63), 10**400),
    *(float("nan"), float("inf"), "", "a", "#", "#/", "#/$defs/a", "#/~2", "\x00", "\ud800", "("),
    *TYPES,
    *sorted(FORMATS),
]
LARK = [
    *("start", ":", "|", '"a"', '"', "/a/", "/", "(", ")", "[", "]", "{", "}", "*", "~", "&", "1"),
    *(
        "..",
        "\n",
        " ",
        "<|eot|>",
        "<[1]>",
        "@a",
        "%json",
        "%ignore",
        "%import common.INT",
        "A",
        "a",
    ),
    *("->", "=", "::", "_", "!", "?", "\\", "\x00", "é", "{}", '{"type": "null"}', "#", "//", "$"),
]
REGEX = [
    *"ab()[]{}^$.*+?|\\,-&~:=!<>19PpxuUdwsb#\n\x00é",
    "(?",
    "\\x{",
    "[^",
    "{2,",
    "(?P<n>",
    "[[",
]


def garbage(draw: random.Random, depth: int) -> Any:
    kind = draw.randrange(5) if depth else 4
    if kind < 2:
        keys = draw.choices([*KEYWORDS, "a", "", "x"], k=draw.randrange(5))
        return {key: garbage(draw, depth - 1) for key in keys}
    if kind == 2:
        return [garbage(draw, depth - 1) for _ in range(draw.randrange(4))]
    return draw.choice(SCALARS)


def keyed_garbage(draw: random.Random) -> dict[str, Any]:
    schema = {keyword: garbage(draw, 3) for keyword in draw.choices(KEYWORDS, k=4)}
    return {"type": "object", **schema}


def text(draw: random.Random, pieces: list[str]) -> str:
    return "".join(draw.choices(pieces, k=draw.randrange(12)))


def tool(draw: random.Random) -> ToolRule:
    if draw.random() < 0.5:
        schema = garbage(draw, 3)
        return ToolRule("f", schema=schema if isinstance(schema, dict) else None, strict=True)
    syntax, pieces = draw.choice([("regex", REGEX), ("lark", LARK)])
    definition = text(draw, pieces)
    return ToolRule("f", kind="custom", syntax=syntax, definition=definition)  # type: ignore[arg-type]  # one of the two


BUILDERS: dict[str, Callable[[random.Random], str]] = {
    "schema": lambda draw: json_schema(garbage(draw, 4)),
    "object schema": lambda draw: json_schema(keyed_garbage(draw)),
    "regex": lambda draw: regex(text(draw, REGEX)),
    "pattern": lambda draw: json_schema({"type": "string", "pattern": text(draw, REGEX)}),
    "lark": lambda draw: lark("start: " * draw.randrange(2) + text(draw, LARK)),
    "choice": lambda draw: choice([text(draw, [*REGEX, "\ud800"]) for _ in range(3)]),
    "required": lambda draw: required([tool(draw), tool(draw)], parallel=True),
    "automatic": lambda draw: automatic([tool(draw), tool(draw)], parallel=False),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_garbage(name: str) -> None:
    checker = Checker(byte_words().tokenizer)
    num_allowed = num_refused = 0
    for seed in range(400):
        try:
            checker.check(BUILDERS[name](random.Random(seed)))
            num_allowed += 1
        except GrammarError:
            num_refused += 1
    assert num_allowed > 5
    assert num_refused > 5
