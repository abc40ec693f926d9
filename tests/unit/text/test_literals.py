from __future__ import annotations

import ast
import itertools
import json
import math
import string
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caravan.text.literals import MAX_DEPTH, LiteralReader
from caravan.text.tool_call_json import json_number, json_word
from caravan.text.tool_call_strings import find_any
from tool_call_cases import WatchedText

PLAIN = settings(derandomize=True, deadline=None, max_examples=100)


def read(
    reader: LiteralReader, source: str, cuts: Sequence[int] = (), *, close: bool = True
) -> tuple[str, str]:
    """The JSON text, and what of the source is left."""
    bounds = [0, *sorted(cuts), len(source)]
    written = []
    rest = ""
    for start, end in itertools.pairwise(bounds):
        piece = source[start:end]
        used = reader.read(piece, 0)
        written.append(reader.take())
        if used < len(piece) or reader.broken:
            rest = reader.unread + source[start + used :]
            break
    if close:
        reader.close()
        rest = rest or reader.unread
        written.append(reader.take())
    return "".join(written), rest


def as_json(source: str, cuts: Sequence[int] = ()) -> str:
    return read(LiteralReader(), source, cuts)[0]


def whole(source: str) -> Any:
    reader = LiteralReader()
    written, rest = read(reader, source + " ")
    assert reader.complete
    assert not reader.broken
    assert rest in ("", " ")
    return json.loads(written)


def plain(value: Any) -> Any:
    """A Python value as JSON has it."""
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else json.dumps(key): plain(member)
            for key, member in value.items()
        }
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = TEXT | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    TEXT | NUMBERS | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@PLAIN
@given(VALUES)
def test_what_python_writes_is_read(value: Any) -> None:
    assert whole(repr(value)) == plain(ast.literal_eval(repr(value)))


@PLAIN
@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_what_json_writes_is_read(value: Any, indent: int | None, ascii_only: bool) -> None:
    source = json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only)
    assert whole(source) == json.loads(source)


@PLAIN
@given(VALUES)
def test_it_is_written_compactly(value: Any) -> None:
    expected = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)
    spaced = json.dumps(plain(value), indent=1)
    assert as_json(spaced + " ") == expected


ESCAPES = [
    *(rf"\{letter}" for letter in 'ntrbfav"\\'),
    "\\'",
    "\\\n",
    *(r"\0", r"\7", r"\101", r"\12", r"\377", r"\x41", r"\xe9"),
    *(r"\u00e9", r"\u4e2d", r"\U0001f600", r"\ud83d", r"\ude00", r"\ud83d\ude00"),
    *(r"\q", r"\8", r"\ "),
]
STRING_PIECES = st.lists(
    st.sampled_from([*ESCAPES, "a", "7", " ", "é", "\U0001f600", "'", '"', "''", '""', "\n", "[,"]),
    max_size=12,
).map("".join)


def python_string(source: str) -> str | None:
    """What Python reads, and the halves of surrogate pairs joined; None: it is no string."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown escapes
            value = ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return None
    if not isinstance(value, str):
        return None
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@settings(PLAIN, max_examples=300)
@given(STRING_PIECES, st.sampled_from(['"', "'", '"""', "'''"]))
def test_strings_say_what_they_say_in_python(inside: str, quote: str) -> None:
    if len(quote) == 1:  # raw newlines are read, but Python would not
        inside = inside.replace("\\\n", "\0").replace("\n", "").replace("\0", "\\\n")
    expected = python_string(quote + inside + quote)
    if expected is not None:
        written, rest = read(LiteralReader(), quote + inside + quote + ",")
        if rest == ",":
            assert json.loads(written) == expected
        else:  # Python joins neighbouring strings
            assert rest.lstrip(" ")[0] in "\"'"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"a\nb\tc"', "a\nb\tc"),
        (r'"\/"', "/"),
        (r'"\d+\.\w"', r"\d+\.\w"),
        (r'"\x4"', r"\x4"),
        (r'"\u12 "', r"\u12 "),
        (r'"\U00110000"', r"\U00110000"),
        (r'"\N{DASH}"', r"\N{DASH}"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud83dx"', "\ud83dx"),
        ('"\\ud83d\\ud83d\\ude00"', "\ud83d\U0001f600"),
        ('"\\ude00\\ud83d"', "\ude00\ud83d"),
        ("''", ""),
        ('""""a" ""b"""', '"a" ""b'),
        ("'''a''", "a''"),
        ("'it\\'s \"x\"'", 'it\'s "x"'),
        ('"\x00\x7f\u2028"', "\x00\x7f\u2028"),
    ],
)
def test_strings(source: str, expected: str) -> None:
    assert json.loads(as_json(source)) == expected


@pytest.mark.parametrize("repeated", ["\\", '"', "x", "xxxxxxxx\\"])
def test_searches_do_not_look_far_ahead(repeated: str) -> None:
    searched = []
    for length in (9_000, 36_000):
        text = WatchedText(repeated * (length // len(repeated)))
        start = 0
        while start < len(text):
            start = max(start + 1, find_any(text, start, '"\\'))
        searched.append(text.num_seen)
    assert searched[1] < 6 * searched[0]


def test_only_control_characters_and_lone_surrogates_are_escaped() -> None:
    assert as_json('"é\u2028\U0001f600\x7f\x1b\ud83d/"') == '"é\u2028\U0001f600\x7f\\u001b\\ud83d/"'


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0", "0"),
        ("-0", "-0"),
        ("+5", "5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5.0"),
        ("5.e3", "5.0e3"),
        ("1_000", "1000"),
        ("1_0.2_5e1_0", "10.25e10"),
        ("1E+5", "1E+5"),
        ("1e-05", "1e-05"),
        ("9" * 5000, "9" * 5000),
        ("1e999", "1e999"),
        *((word, None) for word in ("007", "1__0", "_1", "1_", "1e", "e5", ".", "-", "+-5", "--5")),
        *((word, None) for word in ("0x1F", "1j", "²", "١", "1e5e5", "1e2.5", "1.2.3", "12px", "")),
    ],
)
def test_numbers(word: str, expected: str | None) -> None:
    assert json_number(word) == expected
    if expected and len(word) < 1000 and math.isfinite(float(word)):
        assert float(word) == json.loads(expected)


@PLAIN
@given(st.text("0123456789_.eE+-", min_size=1, max_size=7))
def test_a_number_is_python_s(word: str) -> None:
    try:
        value = float(word)
    except ValueError:
        assert json_number(word) is None
        return
    number = json_number(word)
    if number is None:  # Python has floats with a leading zero
        assert word.lstrip("+-").startswith(("0", "_"))
    else:
        assert json.loads(number) == value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("True", "true"), "true"),
        (("False", "false"), "false"),
        (("None", "null", "NaN", "nan", "inf", "-inf", "Infinity", "-Infinity"), "null"),
        (("TRUE",), '"TRUE"'),
        (("2024-01-31",), '"2024-01-31"'),
        (("new_york",), '"new_york"'),
        (("a\\b",), '"a\\\\b"'),
    ],
)
def test_words(words: tuple[str, ...], expected: str) -> None:
    for word in words:
        assert json_word(word) == expected
        assert as_json(f"[{word}]") == f"[{expected}]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[1, 2,]", "[1,2]"),
        ("[ ]", "[]"),
        ("()", "[]"),
        ("(1)", "1"),
        ("(1,)", "[1]"),
        ("((1), [(2, 3)])", "[1,[[2,3]]]"),
        ("{\"a\": 1, 'b': [2], c: None, 4: x, 5.0: 1, True: 2, None: 3,}", None),
        ('{"a" : {"b":{}}}', '{"a":{"b":{}}}'),
        ("{'a'='x', b=1}", '{"a":"x","b":1}'),
        ('{"a": 1, "a": 2}', '{"a":1,"a":2}'),
        ("\t[\n1\r\n,\f2\v]", "[1,2]"),
    ],
)
def test_containers(source: str, expected: str | None) -> None:
    keys = '{"a":1,"b":[2],"c":null,"4":"x","5.0":1,"true":2,"null":3}'
    assert as_json(source) == (expected or keys)


@pytest.mark.parametrize(
    ("source", "expected", "rest"),
    [
        ("[1 2]", "[1]", "2]"),
        ("[,]", "[]", ",]"),
        ("[1,,2]", "[1]", ",2]"),
        ("[1}", "[1]", "}"),
        ("{1, 2}", '{"1":null}', ", 2}"),
        ('{"a" "b"}', '{"a":null}', '"b"}'),
        ('{"a":}', '{"a":null}', "}"),
        ('{"a":1:', '{"a":1}', ":"),
        ("{[1]: 2}", "{}", "[1]: 2}"),
        ('["a" "b"]', '["a"]', '"b"]'),
        ("[f(1)]", '["f"]', "(1)]"),
        ("(1;", "1", ";"),
        ("(1,;", "[1]", ";"),
        ("([1;", "[1]", ";"),
    ],
)
def test_what_is_broken_is_closed_before_the_offending_character(
    source: str, expected: str, rest: str
) -> None:
    assert read(LiteralReader(), source) == (expected, rest)


@pytest.mark.parametrize("opener", ["[", "(", "{a:"])
def test_depth_is_bounded(opener: str) -> None:
    closer = {"[": "]", "(": ",)", "{a:": "}"}[opener]
    assert whole(opener * MAX_DEPTH + "1" + closer * MAX_DEPTH)
    written, rest = read(LiteralReader(), opener * (MAX_DEPTH + 1))
    assert rest == opener
    json.loads(written)


def test_merged_members_may_be_as_deep_as_others() -> None:
    reader = LiteralReader.of_arguments(())
    written, rest = read(
        reader, "a=" + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + ", **{b: 1})"
    )
    assert (written[-7:], rest) == (',"b":1}', "")


@pytest.mark.parametrize(
    ("source", "expected", "rest"),
    [
        (")", "{}", ""),
        ("a=1, b='x',)", '{"a":1,"b":"x"}', ""),
        ("a = 1 , user-id=2)x", '{"a":1,"user-id":2}', "x"),
        ("1, [2], c=3)", '{"p":1,"q":[2],"c":3}', ""),
        ('"x", word )', '{"p":"x","q":"word"}', ""),
        ("(1, 2))", '{"p":[1,2]}', ""),
        ('**{"a": 1}, b=2, **{}, **{c: 3, "d": 4,})', '{"a":1,"b":2,"c":3,"d":4}', ""),
        ("** {a: 1})", '{"a":1}', ""),
        ("a=1, a=2)", '{"a":1,"a":2}', ""),
        ("1, 2, 3)", '{"p":1,"q":2}', "3)"),
        ('1, 2, "x")', '{"p":1,"q":2}', '"x")'),
        ("1, 2, x y)", '{"p":1,"q":2}', "x y)"),
        ("1, 2, x  )", '{"p":1,"q":2}', "x  )"),
        ("a==1)", '{"a":null}', "=1)"),
        ("a=)", '{"a":null}', ")"),
        ('"a"=1)', '{"p":"a"}', "=1)"),
        ("=1)", "{}", "=1)"),
        ("a b)", '{"p":"a"}', "b)"),
        ("**[1])", '{"p":"**"}', "[1])"),
        ("a=1", '{"a":1}', ""),
        ("a", '{"p":"a"}', ""),
        ("1, 2, a ", '{"p":1,"q":2}', "a "),
        ("**{a", '{"a":null}', ""),
        ("**{a: 1", '{"a":1}', ""),
    ],
)
def test_arguments(source: str, expected: str, rest: str) -> None:
    for cuts in ((), range(len(source))):
        assert read(LiteralReader.of_arguments(("p", "q")), source, cuts) == (expected, rest)


SOURCES = [
    '{"a": [1, -2.5e3, "x\\u00e9\\ud83d\\ude00\\q\\x41"], \'b\': (1, (2), ()), c: None, "": {}}',
    "[True, nan, 'it\\'s', \"\", '''a''b''', (\"\"), word, 1_000, [[(1,)], ((2))]]",
]


@pytest.mark.parametrize("source", SOURCES)
def test_any_cuts_give_the_same(source: str) -> None:
    expected = as_json(source)
    json.loads(expected)
    for cut, other in itertools.combinations(range(0, len(source) + 1, 2), 2):
        assert as_json(source, (cut, other)) == expected
    assert as_json(source, range(len(source))) == expected


@pytest.mark.parametrize("source", SOURCES)
def test_the_text_can_end_anywhere(source: str) -> None:
    expected = as_json(source)
    for end in range(1, len(source)):
        open_end, _ = read(LiteralReader(), source[:end], close=False)
        assert expected.startswith(open_end)
        closed = as_json(source[:end])
        assert closed.startswith(open_end)
        json.loads(closed)


def test_remaining_members_are_read_up_to_the_last_brace() -> None:
    reader = LiteralReader.of_remaining_members(2)
    _, rest = read(reader, ', "a": [1], b: {}}, "c": "}"} tail')
    assert reader.complete
    assert rest == " tail"


@settings(PLAIN, max_examples=300)
@given(
    st.lists(
        st.sampled_from([*string.punctuation, "a", "1", " ", "\\u", '"""', "**{"]), max_size=20
    )
)
def test_any_text_becomes_json(pieces: list[str]) -> None:
    source = "".join(pieces)
    for cuts in ((), range(len(source))):
        written, _ = read(LiteralReader.of_arguments(("p",)), source, cuts)
        assert isinstance(json.loads(written), dict)
