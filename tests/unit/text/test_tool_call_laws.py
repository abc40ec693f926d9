"""What holds for every text: how it is cut, where it ends, and how long it takes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from caravan.text.tool_calls import CallableTool, ToolCallParser
from tool_call_cases import (
    END,
    ENFORCED,
    HEAD,
    OBJECT,
    START,
    TEXTS,
    TOOLS,
    WITH_CODE,
    Output,
    WatchedText,
    calls,
    content,
    label,
    parse,
    without_markers,
)

ENFORCED_TEXTS = [text for text, _ in ENFORCED]


def check_pieces(
    text: str, cuts: Iterable[int], tools: Sequence[CallableTool], enforced: bool
) -> None:
    """Any pieces say the same, calls are complete, and nothing is lost."""
    whole = parse(text, tools=tools, enforced=enforced)
    assert parse(text, cuts, tools=tools, enforced=enforced) == whole
    kinds = {tool.name: tool.kind for tool in tools}
    for name, arguments in calls(whole):
        if kinds[name] == "function":
            assert isinstance(json.loads(arguments), dict)
    if not calls(whole):
        assert content(whole) == without_markers(text)
    open_end = parse(text, tools=tools, enforced=enforced, cut=True)
    assert parse(text, cuts, tools=tools, enforced=enforced, cut=True) == open_end


def check_cut(begun: Output, whole: Output) -> None:
    """A call that is cut is the beginning of what it would have been."""
    begun_calls, whole_calls = calls(begun), calls(whole)
    assert len(begun_calls) <= len(whole_calls)
    assert begun_calls[:-1] == whole_calls[: len(begun_calls)][:-1]
    pairs = zip(begun_calls, whole_calls, strict=False)
    for (name, arguments), (whole_name, whole_arguments) in pairs:
        assert name == whole_name
        assert whole_arguments.startswith(arguments)


@pytest.mark.parametrize("enforced", [False, True])
@pytest.mark.parametrize("tools", [TOOLS, WITH_CODE], ids=["tools", "code"])
def test_any_pieces_say_the_same(tools: Sequence[CallableTool], enforced: bool) -> None:
    for text in ENFORCED_TEXTS if enforced else TEXTS:
        check_pieces(text, range(len(text)), tools, enforced)
        if tools is TOOLS or START in text:
            whole = parse(text, tools=tools, enforced=enforced)
            for cut in range(1, len(text)):
                assert parse(text, [cut], tools=tools, enforced=enforced) == whole, cut


@pytest.mark.parametrize("enforced", [False, True])
def test_the_output_can_be_cut_anywhere(enforced: bool) -> None:
    for text in ENFORCED_TEXTS if enforced else TEXTS:
        whole = parse(text, tools=WITH_CODE, enforced=enforced)
        for end in range(len(text)):
            begun = parse(text[:end], tools=WITH_CODE, enforced=enforced, cut=True)
            check_cut(begun, whole)


FRAGMENTS = [
    *"[](){}:=,;\\'\"\n 1fg\x00é\ud83d",
    *("f(", "g()", "a=", '"x"', '"""', "\\u00", "\\ud83d", "\\ude00", "None", "tru", "**{"),
    *('{"name": "f", ', '"parameters": {', '"function": {', '"id": ', ".call("),
    *('"arguments": "{\\"a\\": ', START, END, "<|python_", "patch\n", "patch", "text"),
    *(OBJECT, HEAD, '{"a": 1}', "[f(a=1)]"),
]
ANY_TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.sampled_from(TEXTS), max_size=20).map("".join)
PLACES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(ANY_TEXT, PLACES, st.sampled_from([TOOLS, WITH_CODE]), st.booleans())
@example(f"[f(a=1)]{START}g()<|pytho", [0.9], WITH_CODE, False)
@example(f"{START}patch<|python_", [0.99], WITH_CODE, False)
@example(f"{START}patch", [1.0], WITH_CODE, False)
def test_the_laws_hold_for_any_text(
    text: str, places: list[float], tools: Sequence[CallableTool], enforced: bool
) -> None:
    cuts = [round(place * len(text)) for place in places]
    check_pieces(text, cuts, tools, enforced)
    check_pieces(text, range(len(text)), tools, enforced)
    whole = parse(text, tools=tools, enforced=enforced)
    for end in cuts:
        check_cut(parse(text[:end], tools=tools, enforced=enforced, cut=True), whole)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(max_size=60), st.booleans())
def test_other_text_is_content(text: str, enforced: bool) -> None:
    assert content(parse(text, range(len(text)), enforced=enforced)) == text


# A beginning, and what is repeated.
LONG = [
    ("", "words and words, "),
    *(("", repeated) for repeated in ("[", "{", "[{", "<", "<|python_", '{"id": ', "[f ")),
    *(("", repeated) for repeated in ('{"name": ', "[f(a=1)]\n", OBJECT, "f(a=1);", START)),
    *(("", repeated) for repeated in (f"{START}patc", HEAD)),
    *(("[f()", repeated) for repeated in (" ", ",;", "]", "g(")),
    *(("[f(a=", repeated) for repeated in ("1", "[", "(1,", "-", " ", "{a:", "word")),
    ("[f(a=[", "1, "),
    ("[f(a=((((", "1,"),
    *(('[f(a="', repeated) for repeated in ("x", "\\n", "'", "\\ud83d", "\\u00")),
    *(("[f(a='''", repeated) for repeated in ("''x", '"')),
    ("[f(", "**{a: 1}, "),
    ('{"parameters": {"a": "', "x\\n"),
    ('{"parameters": "{\\"a\\": \\"', "x\\\\n"),
    ('{"name": "f", "parameters": {}, "x": [', "1, "),
    (f"{START}print", "x = [1]\n"),
    (f"{START}patch\n", "+ [1]\n"),
]
LONG_ENFORCED = [
    *(("", repeated) for repeated in ("words, ", "[", "{", HEAD, f"{START}patc")),
    ("", HEAD + "{}}\n"),
    *((HEAD + '{"a": ', repeated) for repeated in (" ", "1", "[", "1 , ")),
    *((HEAD + '{"a": "', repeated) for repeated in ("x", "x\\n", "\\u00e9", START)),
    (HEAD + '{"a": [', "1 , "),
]
LONG_CASES = [
    pytest.param(*case, enforced, id=label("".join(case)))
    for enforced, cases in ((False, LONG), (True, LONG_ENFORCED))
    for case in cases
]


def count_lines(text: str, enforced: bool) -> int:
    """How many lines of ours run for a text that comes in small pieces."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal count
        count += event == "line"
        return trace if "caravan" in frame.f_code.co_filename else None

    parser = ToolCallParser(WITH_CODE, enforced=enforced)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for start in range(0, len(text), 3):
            parser.push(text[start : start + 3])
        parser.finish(cut=False)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(("beginning", "repeated", "enforced"), LONG_CASES)
def test_work_grows_as_the_text_does(beginning: str, repeated: str, enforced: bool) -> None:
    short, long = (
        count_lines(beginning + repeated * (length // len(repeated)), enforced)
        for length in (200, 800)
    )
    assert long < 8 * short + 300  # quadratic would be 16 times


@pytest.mark.parametrize(("beginning", "repeated", "enforced"), LONG_CASES)
def test_no_character_is_looked_at_too_often(beginning: str, repeated: str, enforced: bool) -> None:
    short, long = (
        WatchedText(beginning + repeated * (length // len(repeated))) for length in (1600, 6400)
    )
    for text in (short, long):
        # Behind the markers, where it is still the text that counts.
        ToolCallParser(WITH_CODE, enforced=enforced)._read(text)
    assert long.num_seen < 6 * short.num_seen


@pytest.mark.parametrize(
    ("beginning", "repeated"),
    [
        ("", "words, "),
        ("[f()", " "),
        ("[", " "),
        ("[f(a=", "1"),
        ('[f(a="', "x"),
        ('[f(a=("', "x"),
        ('{"parameters": {"a": "', "x"),
        ('{"id": "', "x"),
        ('{"id": ', "x"),
        (f"{START}print", "x"),
    ],
)
def test_what_is_held_is_not_copied_again_and_again(beginning: str, repeated: str) -> None:
    """Seconds of the processor, compared with each other."""

    def seconds(length: int) -> float:
        text = beginning + repeated * (length // len(repeated))
        parser = ToolCallParser(WITH_CODE)
        start = time.process_time()
        for index in range(0, len(text), 250):
            parser.push(text[index : index + 250])
        parser.finish(cut=False)
        return time.process_time() - start

    def is_linear() -> bool:
        return seconds(1_600_000) < 40 * min(seconds(100_000) for _ in range(3)) + 0.02

    # 16 times the text; a busy machine may disturb one measurement.
    assert any(is_linear() for _ in range(3))
