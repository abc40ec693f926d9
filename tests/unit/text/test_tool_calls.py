from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.datatypes import BuiltinTool, ToolCall, ToolPromptFormat
from llama_models.llama3.tool_utils import (
    ToolUtils,
    is_valid_python_list,
    parse_python_list_for_function_calls,
)

from caravan.text.tool_calls import CallableTool, CallPart, CallStart, Text, ToolCallParser
from tool_call_cases import (
    CORPUS,
    END,
    ENFORCED,
    FA,
    HEAD,
    NO_CALLS,
    START,
    TOOLS,
    WITH_CODE,
    F,
    Output,
    calls,
    content,
    label,
    merged,
    parse,
    without_markers,
)

PLAIN = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize(("text", "expected"), CORPUS, ids=label)
def test_what_is_a_call(text: str, expected: Output) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "expected"), ENFORCED, ids=label)
def test_what_is_a_call_when_a_grammar_holds_the_output(text: str, expected: Output) -> None:
    assert parse(text, enforced=True) == expected


@pytest.mark.parametrize("text", NO_CALLS, ids=label)
def test_a_block_without_a_call_is_content_or_code(text: str) -> None:
    assert parse(text) == [without_markers(text)]
    code, _, rest = text.removeprefix(START).partition(END if END in text else START)
    call = ("code_interpreter", json.dumps({"code": code}, separators=(",", ":")))
    assert parse(text, tools=WITH_CODE) == ([call, rest] if rest else [call])
    assert parse(f"[f(a=1)]\n{text}", tools=WITH_CODE)[:2] == [FA, call]


def test_the_code_interpreter_is_called_in_the_other_forms_too() -> None:
    code = ("code_interpreter", '{"code":"1"}')
    assert parse(f'{START}[code_interpreter(code="1")]', tools=WITH_CODE) == [code]
    assert parse(f"{START}f(a=1)\nprint(1){END}", tools=WITH_CODE) == [FA, "\nprint(1)"]


def test_code_must_be_certain() -> None:
    assert parse(f"{START} \n{END}{START}{END}", tools=WITH_CODE) == [" \n"]
    begun = ("code_interpreter", '{"code":"print(')
    assert parse(f"{START}print(", tools=WITH_CODE, cut=True) == [begun]
    assert parse(f"{START}patch", tools=WITH_CODE, cut=True) == ["patch"]
    assert parse(f"{START}[f", tools=WITH_CODE, cut=True) == ["[f"]


def test_without_functions_nothing_is_held() -> None:
    parser = ToolCallParser([CallableTool("patch", "custom")])
    for character in '[{"name": f(':
        assert parser.push(character) == [Text(character)]
    assert ToolCallParser([]).push(f"[{START}{{") == [Text("[{")]


def test_what_is_no_call_leaves_at_once() -> None:
    parser = ToolCallParser(TOOLS)
    for character in "It is 3 > 2, (f) or |x|.\n":
        assert parser.push(character) == [Text(character)]


@pytest.mark.parametrize(
    ("held", "character"),
    [
        ("[", "x"),
        ("[ f", "x"),
        ("[f ", "a"),
        ("[f.cal", "m"),
        ("{", "x"),
        ('{ "', "x"),
        ('{"name": "', "h"),
        ('{"name": "f', "o"),
        ('{"name": "f", "parameters": ', "1"),
        ('{"name": "f", "parameters": " ', "x"),
        ('{"name": "f", "parameters": nul', " "),
        ('{"type": "', "o"),
        ('{"parameters": {"a": [1]}, "name": "', "h"),
        ("<|python_", "x"),
        ("<", " "),
    ],
)
def test_what_could_begin_a_call_is_held(held: str, character: str) -> None:
    parser = ToolCallParser(TOOLS)
    parser.push("So: ")
    for piece in held:
        assert parser.push(piece) == []
    assert merged(parser.push(character)) == [held + character]


@pytest.mark.parametrize(
    ("held", "character"), [("{", "x"), (HEAD[:30], "h"), (HEAD, "("), (f"{START}pat", "x")]
)
def test_less_is_held_when_a_grammar_holds_the_output(held: str, character: str) -> None:
    parser = ToolCallParser(TOOLS, enforced=True)
    for piece in held:
        assert parser.push(piece) == []
    assert content(merged(parser.push(character))) == without_markers(held) + character
    assert parser.push("(") == [Text("(")]


@pytest.mark.parametrize(
    ("head", "character", "first_part"),
    [
        ("[f", "(", "{"),
        ("f ", "(", "{"),
        ('{"name": "f", "parameters": ', "{", "{"),
        ('{"function": {"name": "f", "arguments": "', "{", "{"),
        ('{"parameters": {"a": [1, 2]}, "name": "f', '"', '{"a":[1,2]}'),
        ('{"name": "f"', "}", "{}"),
    ],
)
def test_a_call_begins_as_early_as_it_is_certain(
    head: str, character: str, first_part: str
) -> None:
    parser = ToolCallParser(TOOLS)
    assert parser.push(head) == []
    assert parser.push(character) == [CallStart(0, F), CallPart(0, first_part)]


@pytest.mark.parametrize(
    ("head", "enforced"),
    [
        ('[f(a="', False),
        ('[f(a=[{"b": "', False),
        ('{"name": "f", "parameters": {"a": "', False),
        (r'{"name": "f", "parameters": "{\"a\": \"', False),
        (f"{START}patch\n", False),
        (f"{START}print", False),
        (f"{START}patch\n", True),
        (HEAD + '{"a": "', True),
    ],
)
def test_arguments_leave_while_they_are_read(head: str, enforced: bool) -> None:
    parser = ToolCallParser(WITH_CODE, enforced=enforced)
    parser.push(head)
    for word in ["Hello", " world", ", how", " are you?"] * 10:
        assert parser.push(word) == [CallPart(0, word)]


def test_what_follows_a_call_is_held_while_a_call_could_follow() -> None:
    parser = ToolCallParser(TOOLS)
    parser.push("x [f()]")
    for piece in "\n ;[g":
        assert parser.push(piece) == []
    assert parser.push("]") == [Text("\n ;[g]")]


def test_meta_s_own_examples() -> None:
    """What Meta's parser of lists takes for calls in its tests."""
    source = Path(inspect.getfile(ToolUtils)).parent / "tests/api/test_tool_utils.py"
    texts = [
        node.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    compared = 0
    for text in filter(is_valid_python_list, texts):
        expected = parse_python_list_for_function_calls(text)
        tools = [CallableTool(name) for name, _ in expected]
        output = parse(text, tools=tools)
        assert [(name, json.loads(found)) for name, found in calls(output)] == expected
        assert calls(output) == output
        compared += 1
    assert compared > 8


WORDS = st.text("abcé 1.,;:?{}[]()=", max_size=12)
META_SCALARS = WORDS | st.integers() | st.booleans() | st.none() | st.floats(-1e6, 1e6)
META_VALUES = (
    META_SCALARS
    | st.lists(META_SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["k", "l"]), META_SCALARS, max_size=2)
)
META_ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "long_name"]), META_VALUES, max_size=3)


def meta_call(name: Any, arguments: dict[str, Any]) -> Any:
    return ToolCall(
        call_id="", tool_name=name, arguments=arguments, arguments_json=json.dumps(arguments)
    )


@PLAIN
@given(META_ARGUMENTS, st.sampled_from([ToolPromptFormat.json, ToolPromptFormat.python_list]))
def test_what_meta_writes_is_read(arguments: dict[str, Any], form: Any) -> None:
    text = ToolUtils.encode_tool_call(meta_call("f", arguments), form)
    output = parse(text)
    assert [(name, json.loads(found)) for name, found in calls(output)] == [("f", arguments)]
    assert calls(output) == output
    if form is ToolPromptFormat.json:
        assert ToolUtils.maybe_extract_custom_tool_call(text) == ("f", arguments)
        assert parse(text, enforced=True) == [("f", json.dumps(arguments))]


@PLAIN
@given(WORDS)
def test_meta_s_built_in_tools_are_read(query: str) -> None:
    call = meta_call(BuiltinTool.brave_search, {"query": query})
    text = ToolUtils.encode_tool_call(call, ToolPromptFormat.json)
    ((name, found),) = calls(parse(START + text))
    assert (name, json.loads(found)["query"]) == ToolUtils.maybe_extract_builtin_tool_call(text)


PYTHON_VALUES = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
PYTHON_CALLS = st.lists(
    st.tuples(
        st.sampled_from(["f", "g", "brave_search"]),
        st.dictionaries(st.sampled_from(["a", "b", "long_name"]), PYTHON_VALUES, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@PLAIN
@given(PYTHON_CALLS, st.sampled_from(["", "\n", " "]))
def test_lists_of_calls_say_what_they_say_in_python(
    made: list[tuple[str, dict[str, Any]]], space: str
) -> None:
    def call(name: str, arguments: dict[str, Any]) -> str:
        members = [f"{key}{space}={space}{value!r}" for key, value in arguments.items()]
        return f"{name}({space}{f',{space}'.join(members)})"

    text = f"[{', '.join(call(name, arguments) for name, arguments in made)}]"
    assert parse(text) == [
        (name, json.dumps(arguments, ensure_ascii=False, separators=(",", ":")))
        for name, arguments in parse_python_list_for_function_calls(text)
    ]
