"""Calls of tools: required, and free ones in the midst of text."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.errors import GrammarError
from caravan.grammars.matchers import Matcher
from caravan.grammars.tools import FUNCTION_HEAD, ToolRule, automatic, required
from grammars.validation import problems
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import Walk, allowed, compiled, refuses, write

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NONE = {"type": "object", "properties": {}, "additionalProperties": False}

WEATHER = ToolRule("get_weather", schema=CITY, strict=True)
LOOSE = ToolRule("get_weather_x", schema=CITY)
EMPTY = ToolRule('pi"ng', schema=NONE, strict=True)
FREE = ToolRule("free")
SHELL = ToolRule("run", kind="custom")
NUMBER = ToolRule("number", kind="custom", syntax="regex", definition="[0-9]+(/[0-9]+)?")
SUM = ToolRule(
    "sum", kind="custom", syntax="lark", definition='start: NAME ("+" start)?\nNAME: /[a-z]{1,3}/'
)
OTHER = ToolRule("other", kind="custom", syntax="lark", definition='start: "(" start? ")"')
TOOLS = [WEATHER, LOOSE, EMPTY, FREE, SHELL, NUMBER, SUM, OTHER]
START, END = "<|python_start|>", "<|python_end|>"

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])
either = pytest.mark.parametrize("parallel", [False, True])


@dataclass
class Call:
    tool: ToolRule
    arguments: str


def shown(words: Words, tokens: list[int]) -> str:
    """Text with the names of special tokens."""
    names = {token_id: name.encode() for name, token_id in words.ids.items()}
    return b"".join(names.get(token, words.texts[token]) for token in tokens).decode()


def take_call(text: str, tools: list[ToolRule]) -> tuple[Call, str]:
    """The call that the text begins with, and what follows it."""
    for tool in tools:
        if tool.kind == "custom" and text.startswith(f"{START}{tool.name}\n"):
            body, rest = text.removeprefix(f"{START}{tool.name}\n").split(END, 1)
            return Call(tool, body), rest
        head = f'{FUNCTION_HEAD}{json.dumps(tool.name)[1:]}, "parameters": '
        if tool.kind == "function" and text.startswith(head):
            _, end = json.JSONDecoder().raw_decode(text, len(head))
            assert text[end] == "}", text
            return Call(tool, text[len(head) : end]), text[end + 1 :]
    raise AssertionError(text)


def check_call(call: Call, *, is_required: bool) -> None:
    tool = call.tool
    if tool.kind == "function":
        is_held = tool.schema is not None and (tool.strict or is_required)
        assert isinstance(json.loads(call.arguments), dict)
        assert problems(tool.schema if is_held else {}, call.arguments) == []
    elif tool is NUMBER:
        assert re.fullmatch("[0-9]+(/[0-9]+)?", call.arguments)
    elif tool is SUM:
        assert re.fullmatch(r"[a-z]{1,3}(\+[a-z]{1,3})*", call.arguments)
    elif tool is OTHER:
        half = len(call.arguments) // 2
        assert call.arguments == "(" * half + ")" * half
        assert half


@both
@either
def test_required_gives_calls_and_nothing_else(words: Words, parallel: bool) -> None:
    grammar = required(TOOLS, parallel=parallel)
    Checker(words.tokenizer).check(grammar)
    called, most = set(), 0
    for seed in range(40):
        text = shown(words, Walk(words, seed).tokens(compiled(words, grammar)))
        number = 0
        while text or not number:
            call, text = take_call(text, TOOLS)
            check_call(call, is_required=True)
            called.add(call.tool.name)
            number += 1
            if text.startswith("\n"):
                text = text[1:]
                assert text
        most = max(most, number)
    assert len(called) >= len(TOOLS) - 2
    assert most > 1 if parallel else most == 1


@both
@either
def test_automatic_mixes_text_and_calls(words: Words, parallel: bool) -> None:
    grammar = automatic(TOOLS, parallel=parallel)
    Checker(words.tokenizer).check(grammar)
    numbers = []
    for seed in range(40):
        matcher = compiled(words, grammar)
        draw = random.Random(seed)
        beginning: list[int] = []
        for _ in range(draw.randrange(3 if parallel else 2)):
            if draw.random() < 0.5:
                beginning += begin(words, matcher, "é: {\n" * draw.randrange(2) + FUNCTION_HEAD)
                beginning += finish_call(words, matcher, draw)
            else:
                beginning += begin(words, matcher, "x" * draw.randrange(2), START)
                beginning += finish_call(words, matcher, draw)
        text = shown(words, [*beginning, *Walk(words, seed).tokens(matcher)])
        numbers.append(0)
        while START in text or FUNCTION_HEAD in text:
            text = text[min(at for at in (text.find(START), text.find(FUNCTION_HEAD)) if at >= 0) :]
            call, text = take_call(text, TOOLS)
            check_call(call, is_required=False)
            numbers[-1] += 1
            assert parallel or not text
    assert {0, 1} <= set(numbers)
    assert (max(numbers) > 1) == parallel


def begin(words: Words, matcher: Matcher, text: str, special: str = "") -> list[int]:
    """Writes text that calls for a call."""
    write(words, matcher, text)
    tokens = words.encode(text.encode())
    if special:
        assert matcher.accept(words.ids[special])
        tokens.append(words.ids[special])
    return tokens


def finish_call(words: Words, matcher: Matcher, draw: random.Random) -> list[int]:
    """Draws until the end of a call is written."""
    walk = Walk(words, draw.randrange(10**6))
    tokens: list[int] = []
    while True:
        options = allowed(words, matcher)
        # Only behind a call may text follow, which nothing confines.
        if tokens and words.stops & set(options):
            return tokens
        token = walk.choose(options, len(tokens))
        assert matcher.accept(token)
        tokens.append(token)


@both
@pytest.mark.parametrize(
    "lead", ["", "Hello {", 'a "b": {"type', "日\n\n", FUNCTION_HEAD[:-1] + " "]
)
def test_the_beginning_of_a_call_must_become_one(words: Words, lead: str) -> None:
    """Wherever it is cut into tokens: each token may only go on to an offered name."""
    tools = [WEATHER, LOOSE, EMPTY]
    rests = [json.dumps(tool.name)[1:] + ', "parameters": {' for tool in tools]
    grammar = automatic([*tools, SHELL], parallel=True)
    whole = lead + FUNCTION_HEAD
    num_crossing = 0
    for cut in range(len(lead), len(whole) + 1):
        matcher = compiled(words, grammar)
        write(words, matcher, whole[:cut])
        for token in allowed(words, matcher):
            text = whole[:cut].encode() + words.texts[token]
            head = text.find(FUNCTION_HEAD.encode())
            if head < 0:
                continue
            rest = text[head + len(FUNCTION_HEAD) :]
            num_crossing += bool(rest)
            assert any(name.encode().startswith(rest) for name in rests), rest
    matcher = compiled(words, grammar)
    write(words, matcher, whole)
    assert not words.stops & set(allowed(words, matcher))
    assert num_crossing


def test_text_may_almost_begin_a_call() -> None:
    words = byte_words()
    for text in (FUNCTION_HEAD[:-1], '{"type":"function","name":"x"}', "{", START, END):
        matcher = compiled(words, automatic(TOOLS, parallel=True))
        write(words, matcher, text)
        assert words.stops <= set(allowed(words, matcher))


@both
def test_special_tokens_stand_only_around_custom_calls(words: Words) -> None:
    specials = set(words.ids.values())
    start, end = words.ids[START], words.ids[END]
    matcher = compiled(words, automatic(TOOLS, parallel=True))
    assert specials & set(allowed(words, matcher)) == words.stops | {start}
    write(words, matcher, "text")
    assert matcher.accept(start)
    assert specials & set(allowed(words, matcher)) == set()
    write(words, matcher, "run\n")
    assert specials & set(allowed(words, matcher)) == {end}
    write(words, matcher, FUNCTION_HEAD + "anything \x00 é")
    assert specials & set(allowed(words, matcher)) == {end}
    assert matcher.accept(end)
    assert specials & set(allowed(words, matcher)) == words.stops | {start}


@both
def test_without_functions_their_head_is_text(words: Words) -> None:
    matcher = compiled(words, automatic([SHELL], parallel=True))
    write(words, matcher, FUNCTION_HEAD + "nobody")
    assert words.stops <= set(allowed(words, matcher))


def test_after_a_single_call_the_output_ends() -> None:
    words = byte_words()
    matcher = compiled(words, automatic([EMPTY], parallel=False))
    write(words, matcher, "Well. " + FUNCTION_HEAD + 'pi\\"ng", "parameters": {}}')
    assert set(allowed(words, matcher)) == words.stops


def test_calls_are_separated_by_one_line_break_at_most() -> None:
    words = byte_words()
    call = FUNCTION_HEAD + 'pi\\"ng", "parameters": {}}'
    for between, is_allowed in (("", True), ("\n", True), ("\n\n", False), (" ", False)):
        matcher = compiled(words, required([EMPTY], parallel=True))
        assert refuses(words, matcher, call + between + call) is not is_allowed


def test_arguments_stand_close_and_may_be_spaced_inside() -> None:
    words = byte_words()
    head = FUNCTION_HEAD + 'get_weather", "parameters": '
    grammar = required([WEATHER], parallel=False)
    assert not refuses(words, compiled(words, grammar), head + '{\n  "city": "x"\n}}')
    for arguments in (
        ' {"city":"x"}',
        '{"city":"x"} ',
        '{"city":1}',
        "{}",
        "[]",
        '{"city":"123456"}',
    ):
        assert refuses(words, compiled(words, grammar), head + arguments + "}")


def test_who_is_held_to_the_schema() -> None:
    words = byte_words()
    head = FUNCTION_HEAD + 'get_weather_x", "parameters": '
    free, held = automatic([LOOSE], parallel=True), required([LOOSE], parallel=True)
    assert not refuses(words, compiled(words, free), head + '{"any": [1]}}')
    assert refuses(words, compiled(words, free), head + "[]}")
    assert refuses(words, compiled(words, held), head + '{"any": [1]}}')
    strict = FUNCTION_HEAD + 'get_weather", "parameters": {"any": [1]}}'
    assert refuses(words, compiled(words, automatic([WEATHER], parallel=True)), strict)


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({}, "{}"),
        ({"properties": {"a": {"type": "null"}}}, '{"a":null}'),
        ({"type": ["object", "null"], "required": ["a"]}, '{"a":1}'),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}, "{}"),
        ({"anyOf": [{"type": "object"}, {"type": "string"}]}, "{}"),
    ],
)
def test_arguments_are_an_object_whatever_else_the_schema_allows(
    schema: dict[str, Any], arguments: str
) -> None:
    words = byte_words()
    grammar = required([ToolRule("f", schema=schema)], parallel=False)
    Checker(words.tokenizer).check(grammar)
    head = FUNCTION_HEAD + 'f", "parameters": '
    assert not refuses(words, compiled(words, grammar), head + arguments + "}")
    for text in ("null", '"a"', "[]"):
        assert refuses(words, compiled(words, grammar), head + text + "}")


@pytest.mark.parametrize("schema", [{"type": "array"}, {"type": "string"}, {"const": 1}])
def test_a_schema_without_objects_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(GrammarError, match="must describe an object"):
        required([FREE, ToolRule("f", schema=schema)], parallel=False)


def test_the_path_begins_with_the_tool() -> None:
    schema = {"type": "object", "properties": {"a": {"not": {}}}}
    with pytest.raises(GrammarError) as error:
        automatic([FREE, ToolRule("f", schema=schema, strict=True)], parallel=True)
    assert error.value.path == "/1/properties/a/not"
    automatic([FREE, ToolRule("f", schema=schema)], parallel=True)  # it is not held to


def test_a_tools_grammar_knows_nothing_of_the_others() -> None:
    for definition in ("start: @calls", "start: <|python_end|>", "start: TEXT"):
        tool = ToolRule("f", kind="custom", syntax="lark", definition=definition)
        with pytest.raises(GrammarError):
            Checker(byte_words().tokenizer).check(automatic([SHELL, tool], parallel=True))


def test_references_are_a_tools_own() -> None:
    def tool(name: str, constant: int) -> ToolRule:
        reference = {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/a"}},
            "required": ["x"],
        }
        return ToolRule(name, schema={**reference, "$defs": {"a": {"const": constant}}})

    words = byte_words()
    grammar = required([tool("one", 1), tool("two", 2)], parallel=False)
    for name, value, is_allowed in (("one", 1, True), ("one", 2, False), ("two", 2, True)):
        text = f'{FUNCTION_HEAD}{name}", "parameters": {{"x": {value}}}}}'
        assert refuses(words, compiled(words, grammar), text) is not is_allowed
