"""Calls, or a JSON answer: both are open until what is written decides."""

from __future__ import annotations

import json

import jsonschema
import pytest

from caravan.grammars.tools import ToolRule, either
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import Walk, accepts, compiled, write

ARGUMENTS = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/name"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "maxLength": 4}},
}
ANSWER = {
    "type": "object",
    "properties": {"type": {"enum": ["good", "function"]}, "text": {"type": "string"}},
    "required": ["type"],
    "additionalProperties": False,
}
TOOLS = [
    ToolRule("weather", schema=ARGUMENTS, strict=True),
    ToolRule("free"),
    ToolRule("number", kind="custom", syntax="regex", definition="[0-9]+"),
]
CALL = '{"type":"function","name":"weather","parameters":{"city": "Rome"}}'

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        (CALL, True),
        (CALL + CALL, True),
        (CALL + "\n" + '{"type":"function","name":"free","parameters":{"a": [1]}}', True),
        ('{"type":"good"}', True),
        ('{"type": "function", "text": "x"}', True),
        ('{"type":"function"}', True),
        ('{ "text" : "a", "type": "good" }', False),  # properties stand in the schema's order
        (CALL.replace("weather", "whether"), False),
        (CALL.replace("Rome", "Paris"), False),
        (CALL.replace("city", "town"), False),
        (CALL + '{"type":"good"}', False),
        ('{"type":"bad"}', False),
        ("text", False),
        ("", False),
    ],
)
def test_what_is_right(text: str, is_right: bool) -> None:
    grammar = either(TOOLS, ANSWER, parallel=True)
    assert accepts(byte_words(), grammar, text) == is_right


def test_one_call_at_most() -> None:
    grammar = either(TOOLS, ANSWER, parallel=False)
    assert accepts(byte_words(), grammar, CALL)
    assert not accepts(byte_words(), grammar, CALL + CALL)


@both
def test_a_custom_call(words: Words) -> None:
    matcher = compiled(words, either(TOOLS, ANSWER, parallel=True))
    assert matcher.accept(words.ids["<|python_start|>"])
    write(words, matcher, "number\n123")
    assert matcher.accept(words.ids["<|python_end|>"])
    write(words, matcher, CALL)


@both
@pytest.mark.parametrize("seed", range(12))
def test_random_output_is_one_or_the_other(words: Words, seed: int) -> None:
    answer = True if seed % 3 == 0 else ANSWER
    matcher = compiled(words, either(TOOLS[:2], answer, parallel=False))
    text = Walk(words, seed).text(matcher)
    said = json.loads(text)
    if isinstance(said, dict) and "parameters" in said and "name" in said:
        if said["name"] == "weather":
            jsonschema.validate(said["parameters"], ARGUMENTS)
        assert isinstance(said["parameters"], dict)
    else:
        jsonschema.validate(said, answer)
