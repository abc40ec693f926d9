"""Calls in a Python list, which `automatic` holds as it holds those in JSON."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from caravan.grammars.tools import ToolRule, automatic
from caravan.text.tool_calls import CallableTool, CallPart, CallStart, Text, ToolCallParser
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import Walk, accepts, compiled, refuses

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"$ref": "#/$defs/name"},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["C", "F"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "maxLength": 5}},
}
EXOTIC: dict[str, Any] = {
    "type": "object",
    "properties": {"a-b": {"type": "integer"}},
    "additionalProperties": False,
}
TOOLS = [
    ToolRule("weather", schema=CITY, strict=True),
    ToolRule("odd", schema=EXOTIC, strict=True),
    ToolRule("ping", schema={"type": "object", "additionalProperties": False}, strict=True),
    ToolRule("free", schema=CITY),
]

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ('[weather(city="Rome", unit="C")]', True),
        ('[weather(city="Rome",days=3,unit="C")]', True),
        ('Sure: [weather(city="Rome", unit="F"), ping()] there', True),
        ('[ weather (city="Rome", unit="C")]', True),
        ("[ping()]", True),
        ('[odd(**{"a-b": 3})]', True),
        ("[odd(**{})]", True),
        ("[free()]", True),
        ('[free(x=[1, {"a": null}], y="z")]', True),
        ('[free()]{"type": "function", "name": "ping", "parameters": {}}', True),
        ("[weather]", True),
        ("[weathers(1)]", True),
        ("a[0](b) [link](there)", True),
        ('[weather(city="Rome")]', False),
        ('[weather(unit="C", city="Rome")]', False),
        ('[weather(city="London", unit="C")]', False),
        ('[weather(city="Rome", days=10, unit="C")]', False),
        ('[weather(city="Rome", unit="C", more=1)]', False),
        ("[weather(city='Rome', unit=\"C\")]", False),
        ('[weather(town="Rome", unit="C")]', False),
        ("[ping(1)]", False),
        ("[ping(a=1)]", False),
        ('[odd(**{"a": 3})]', False),
        ("[odd()]", False),
        ("[ping(), none()]", False),
        ("[ping()", False),
        ("[weather(", False),
    ],
)
def test_what_is_right(text: str, is_right: bool) -> None:
    assert accepts(byte_words(), automatic(TOOLS, parallel=True), text) == is_right


def test_one_call_at_most() -> None:
    grammar = automatic(TOOLS, parallel=False)
    assert accepts(byte_words(), grammar, "Well: [ping()]")
    for text in ("[ping(), ping()]", "[ping()] and", "[ping()][ping()]"):
        assert not accepts(byte_words(), grammar, text)


def test_a_list_cannot_begin_unnoticed() -> None:
    """Wherever the text has `[weather(`, the rest is a right call."""
    for before in ("", "x", "[", "[weather", "[weather[", "\n[ ", "[weather weather"):
        matcher = compiled(byte_words(), automatic(TOOLS, parallel=True))
        assert refuses(byte_words(), matcher, before + "[weather(x")


@both
@pytest.mark.parametrize("seed", range(25))
def test_random_lists_are_read_as_they_are_held(words: Words, seed: int) -> None:
    """What a walk writes behind `[weather(` the parser finds, and the schema allows."""
    matcher = compiled(words, automatic(TOOLS[:3], parallel=True))
    begun = ["[weather(", "[odd(", "[ping("][seed % 3]
    for token in words.encode(begun.encode()):
        assert matcher.accept(token)
    text = begun + Walk(words, seed).text(matcher)
    parser = ToolCallParser(
        [CallableTool(tool.name, "function", tuple(CITY["properties"])) for tool in TOOLS[:3]],
        enforced=True,
    )
    events = [*parser.push(text), *parser.finish(cut=False)]
    assert isinstance(events[0], CallStart)
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, CallStart):
            calls.append((event.tool.name, ""))
        elif isinstance(event, CallPart):
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
    schemas = {tool.name: tool.schema for tool in TOOLS}
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), schemas[name] or {})
    said = "".join(event.text for event in events if isinstance(event, Text))
    assert "weather(" not in said or not said.split("weather(")[0].rstrip().endswith("[")
