"""JSON that is held to schemas: white space, ends, strings, numbers."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from caravan.grammars.constraints import json_object, json_schema
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import accepts, allowed, compiled, refuses, write

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "ages": {"type": "array", "items": {"type": "integer"}},
        "more": {"type": "object"},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}
WHITE = b" \t\n\r"
LONGEST = 41  # a line break and 40 spaces or tabs

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"name":"x","ages":[1,2]}', True),
        ('{ "name" : "x" , "ages" : [ 1 , 2 ] }', True),
        ('{\n  "name": "x",\n  "ages": [\n    1\n  ]\n}', True),
        ('{\n\t"name": "x",\n\t"ages": []\n}', True),
        ("{\n" + " " * 40 + '"name":"x","ages":[]}', True),
        ("{\n" + " " * 41 + '"name":"x","ages":[]}', False),
        ('{"name":  "x","ages":[]}', False),
        ('{"name":\n\n"x","ages":[]}', False),
        ('{"name": \n"x","ages":[]}', False),
        ('{\t"name":"x","ages":[]}', False),
        (' {"name":"x","ages":[]}', False),
        ('{"name":"x","ages":[]} ', False),
        ('{"name":"x","ages":[ ]}', True),
        ('{"name":"x","ages":[1 2]}', False),
    ],
)
def test_white_space_between_tokens(text: str, valid: bool) -> None:
    assert accepts(byte_words(), json_schema(PERSON), text) is valid


def longest_white_space(words: Words, grammar: str, text: str) -> int:
    """Behind the text: how many bytes of white space can follow, whichever tokens are taken."""
    matcher = compiled(words, grammar)
    write(words, matcher, text)
    longest = 0
    while True:
        options = [words.texts[token] for token in allowed(words, matcher)]
        white = [text for text in options if text and not text.strip(WHITE)]
        if not white:
            return longest
        token = max(white, key=lambda text: (b"\n" in text, len(text)))
        longest += len(token)
        assert longest <= LONGEST
        assert matcher.accept(words.texts.index(token))


@both
def test_white_space_is_bounded_everywhere(words: Words) -> None:
    """In every place of an output; beside white space it may always go on."""
    grammar = json_schema(PERSON)
    text = '{"name":"x","ages":[1,22],"more":{"a":{"b":[null,{}]},"c":"d"}}'
    starts = [text[:end] for end in range(len(text)) if text[:end].count('"') % 2 == 0]
    longest = {start: longest_white_space(words, grammar, start) for start in starts}
    assert set(longest.values()) == {0, LONGEST}
    assert sum(size == LONGEST for size in longest.values()) > 25
    assert longest[""] == 0


@both
@pytest.mark.parametrize("grammar", [json_schema(PERSON), json_object()], ids=["schema", "object"])
def test_only_an_end_token_follows_the_last_brace(words: Words, grammar: str) -> None:
    matcher = compiled(words, grammar)
    write(words, matcher, '{"name": "x", "ages": [1], "more": {"a": {}}}')
    assert set(allowed(words, matcher)) == words.stops


@both
def test_no_end_token_before_the_json_is_complete(words: Words) -> None:
    matcher = compiled(words, json_schema(PERSON))
    for token in words.encode(b'{"name": "x", "ages": [1], "more": {"a": {}}}'):
        assert not words.stops & set(allowed(words, matcher))
        assert matcher.accept(token)


def test_a_number_may_end_or_go_on() -> None:
    words = byte_words()
    matcher = compiled(words, json_schema({"type": "integer"}))
    write(words, matcher, "12")
    options = set(allowed(words, matcher))
    assert words.stops < options
    assert options - words.stops == set(b"0123456789")


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "object"}, ["{}", '{"a": [1, {"b": null}]}'], ["[]", '"a"', "null"]),
        ({}, ["{}", "[]", '"a"', "1.5e3", "true", "null"], ["a", "'a'", "{a: 1}", "01", "1."]),
        (True, ["{}", "0"], ["a"]),
        (
            {"type": "string"},
            [r'"\n\t\"\\\b\f\r/é😀"'],
            ['"\n"', r'"\u0041"', r'"\/"', r'"\x"', '"\x7f"'],
        ),
        ({"const": 'a"\\/\n'}, [r'"a\"\\/\n"'], ['"a"', r'"a\"\\\/\n"']),
    ],
)
def test_values(schema: dict[str, Any] | bool, valid: list[str], invalid: list[str]) -> None:
    grammar = json_schema(schema)
    assert [text for text in valid if not accepts(byte_words(), grammar, text)] == []
    assert [text for text in invalid if accepts(byte_words(), grammar, text)] == []


def test_a_name_cannot_come_twice_in_another_spelling() -> None:
    """llguidance would let it: the second one counts, and may have any value."""
    grammar = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert accepts(byte_words(), grammar, '{"a": 1, "b": "x"}')
    for name in ("a", r"\u0061"):
        assert not accepts(byte_words(), grammar, f'{{"a": 1, "{name}": "x"}}')


def test_whole_integers_end() -> None:
    words = byte_words()
    grammar = json_schema({"type": "integer"})
    assert accepts(words, grammar, "9" * 18)
    assert refuses(words, compiled(words, grammar), "9" * 20)
    assert refuses(words, compiled(words, grammar), "-" + "9" * 20)


def decimal(tenths: int) -> str:
    return f"{'-' * (tenths < 0)}{abs(tenths) // 10}.{abs(tenths) % 10}"


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_bounds_hold(kind: str) -> None:
    """Against arithmetic, on a grid around small bounds."""
    words = byte_words()
    draw = random.Random(0)
    for _ in range(40):
        low, high = sorted([draw.randint(-35, 35), draw.randint(-35, 35)])
        if low == high:
            continue
        lower = draw.choice(["minimum", "exclusiveMinimum"])
        upper = draw.choice(["maximum", "exclusiveMaximum"])
        schema = {"type": kind, lower: low / 10, upper: high / 10}
        inside = [
            tenths
            for tenths in range(-40, 41)
            if low - (lower == "minimum") < tenths < high + (upper == "maximum")
        ]
        if kind == "integer":
            inside = [tenths for tenths in inside if tenths % 10 == 0]
        if not inside:
            continue
        grammar = json_schema(schema)
        for tenths in range(-40, 41):
            spelled = [decimal(tenths)] if kind == "number" else []
            spelled += [str(tenths // 10)] if tenths % 10 == 0 else []
            found = any(accepts(words, grammar, text) for text in spelled)
            assert found == (tenths in inside), (schema, tenths)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"exclusiveMinimum": 8, "maximum": 8.5}, "8"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 0.01}, "0"),
        ({"exclusiveMaximum": -8, "minimum": -8.5}, "-8"),
        ({"exclusiveMaximum": 0, "minimum": -0.5}, "-0"),
    ],
)
def test_an_excluded_integer_next_to_the_other_bound(bounds: dict[str, float], text: str) -> None:
    """llguidance would allow it."""
    grammar = json_schema({"type": "number", **bounds})
    for spelled in (text, text + ".0"):
        assert not accepts(byte_words(), grammar, spelled)
    middle = sum(bounds.values()) / 2
    assert accepts(byte_words(), grammar, json.dumps(middle))
