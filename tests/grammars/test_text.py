"""Regular expressions, choices and Lark grammars."""

from __future__ import annotations

import random
import re

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import choice, json_schema, lark, regex
from caravan.grammars.errors import GrammarError
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import Walk, accepts, allowed, compiled

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])


def check(grammar: str) -> str:
    Checker(byte_words().tokenizer).check(grammar)
    return grammar


def refusal(grammar: str) -> str:
    """Why it is refused; nothing, if it is not."""
    try:
        check(grammar)
    except GrammarError as error:
        return error.reason
    return ""


PATTERNS = [
    r"[a-z]+@[a-z]+\.(com|org)",
    r"^\d{3}-\d{4}$",
    "(foo|bar){2,3}",
    "a?b*c+|",
    "[^a-y\\n]{2}",
    "é+|日本",
    "[a-z]+ [^ \\n]+",
    "(?i)abc",
    "(?P<year>[0-9]{4})/[0-9]{2}",
    "x/y\\/z",
    "a\nb",
    "((a|b)c)*",
    ".{3}",
    "(?s:.)",
    r"[\[\]\-&~^]",
    "[]a]",
    "[^]a]",
    "\x01\x7f",
]


@both
@pytest.mark.parametrize("pattern", PATTERNS)
def test_output_matches_the_pattern(words: Words, pattern: str) -> None:
    grammar = check(regex(pattern))
    for seed in range(4):
        text = Walk(words, seed).text(compiled(words, grammar))
        assert re.fullmatch(pattern, text), text


def test_patterns_mean_what_they_mean_in_python() -> None:
    """Random ones, anchors included: as a whole, and searched for in strings of JSON."""
    draw = random.Random(3)

    def pattern(depth: int) -> str:
        kind = draw.randrange(6) if depth else 0
        inner = [pattern(depth - 1) for _ in range(2)] if depth else []
        return [
            lambda: draw.choice(["a", "b", "a", "b", "^", "$", ".", "[ab]", "[^a]"]),
            lambda: "".join(inner),
            lambda: f"({inner[0]}|{inner[1]})",
            lambda: f"(?:{inner[0]}){draw.choice('*+?')}",
            lambda: f"(?:{inner[0]}){{{draw.choice(['2', '1,2', '0,1', '2,'])}}}",
            lambda: "|".join(inner),
        ][kind]()

    texts = ["", "a", "b", "ab", "ba", "aab", "bba", "abab"]
    num_compared = 0
    for _ in range(60):
        written = pattern(3)
        as_whole = regex(written)
        searched = json_schema({"type": "string", "pattern": written})
        for match, grammar, quote in ((re.fullmatch, as_whole, ""), (re.search, searched, '"')):
            expected = {text: bool(match(written, text)) for text in texts}
            reason = refusal(grammar)
            if "satisfied" in reason:
                assert not any(expected.values()), written
            elif reason:
                assert "an anchor" in reason, written
            else:
                found = {t: accepts(byte_words(), grammar, quote + t + quote) for t in texts}
                assert found == expected, written
                num_compared += 1
    assert num_compared > 80


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        ("ab(?=c)", 3),
        (r"(a)\1", 4),
        ("a[b", 2),
        ("(a", 1),
        ("a)", 2),
        ("a{2,1}", 2),
        (r"a\q", 2),
        ("ab\\", 3),
        ("*a", 1),
        ("[b-a]", 2),
        (r"\p{Nope}", 1),
        ("[[a]b]", 2),
        ("[a&&b]", 3),
        ("[a--b]", 3),
        ("[a~~b]", 3),
        ("(?x) a", 2),
        ("a{,3}", 3),
    ],
)
def test_wrong_patterns_are_refused_with_their_place(pattern: str, position: int) -> None:
    with pytest.raises(GrammarError) as error:
        check(regex(pattern))
    assert f"at character {position}:" in error.value.reason


@pytest.mark.parametrize("pattern", [r"\bword", r"(?m)a^b", "(?=", "\ud800", "(?-u:\\xff)"])
def test_other_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(GrammarError):
        check(regex(pattern))


@pytest.mark.parametrize(
    ("pattern", "is_writable"),
    [
        ("a\\x01b", False),
        ("a\\u0001b", False),
        ("a\\x{1}b", False),
        ("a\\vb", False),
        ("a\x01b", False),
        ("a[\\x7f]b", False),
        ("a[\\x00-\\x1f]b", True),
        ("a[^\\x00-\\x1f]b", True),
        ("a[^\\x01]b", True),
        ("a\\tb", True),
        ("a\\x0ab", True),
        ("a\\x41b", True),
        ("a\\u0041b", True),
        ("a\\p{Lu}b", True),
    ],
)
def test_control_characters_in_a_pattern_of_json(pattern: str, is_writable: bool) -> None:
    """llguidance would leave out those that need \\u, and so write what does not match."""
    if not is_writable:
        with pytest.raises(GrammarError, match="control characters"):
            json_schema({"type": "string", "pattern": pattern})
        return
    grammar = check(json_schema({"type": "string", "pattern": f"^{pattern}$"}))
    assert not accepts(byte_words(), grammar, '"ab"')
    check(regex(pattern))


@both
def test_a_choice_is_one_of_the_texts(words: Words) -> None:
    options = ["a", "ab", "", 'q"\\\n', "é日", "\x00\x7f", "{", "<|eot|>", "//"]
    grammar = check(choice(options))
    written = {Walk(words, seed).text(compiled(words, grammar)) for seed in range(60)}
    assert written <= set(options)
    assert len(written) > 5
    assert all(accepts(byte_words(), grammar, text) for text in options)
    assert not any(accepts(byte_words(), grammar, text) for text in ("b", "abc", "q", "<"))


def test_a_choice_ends_when_nothing_can_follow() -> None:
    words = byte_words()
    matcher = compiled(words, choice(["yes", "no"]))
    for byte in b"no":
        assert not words.stops & set(allowed(words, matcher))
        assert matcher.accept(byte)
    assert set(allowed(words, matcher)) == words.stops


@pytest.mark.parametrize("options", [[], ["x"] * 4097, ["a" * 300_000], ["\udc80"]])
def test_bad_choices(options: list[str]) -> None:
    with pytest.raises(GrammarError):
        choice(options)


CALCULATOR = r"""
// A comment with <|eot|> and @reference.
start: expr
expr: term ("+" term)*  # another = one
term: NUMBER | "(" expr ")" | name
name: /[a-z]<\w>/i | "<|eot|>" | "@x"
NUMBER: /[0-9]{1,3}/
%ignore / {1,2}/
"""


@both
def test_output_follows_a_lark_grammar(words: Words) -> None:
    grammar = check(lark(CALCULATOR))
    for text in ("1+(2 + 33)", "a<b>+1", "A<b>", "<|eot|>+@x"):
        assert accepts(byte_words(), grammar, text)
    for text in ("1+", "(1", "1234", "1+A", "1++2", ""):
        assert not accepts(byte_words(), grammar, text)
    shape = re.compile(r"[()+]*(\d{1,3}|(?i:[a-z])<\w>|<\|eot\|>|@x|[()+])*")
    for seed in range(5):
        text = Walk(words, seed).text(compiled(words, grammar))
        assert shape.fullmatch(text.replace(" ", "")), text


def test_a_schema_in_a_lark_grammar_is_held_to_our_rules() -> None:
    grammar = check(
        lark(
            'start: "x" %json {"type": "object", "properties": {"b": {"const": 1}},\n'
            '  "x-guidance": {"lenient": true}} "y"'
        )
    )
    assert accepts(byte_words(), grammar, 'x{ "b":1}y')
    assert not accepts(byte_words(), grammar, 'x{  "b":1}y')
    for schema in ('{"const": -9223372036854775808}', '{"not": {}}', "false"):
        with pytest.raises(GrammarError):
            lark(f"start: %json {schema}")


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("start: <|eot|>", "line 1, column 8: special tokens"),
        ('start: "a"\n  <[100-200]>', "line 2, column 3: special tokens"),
        ("start: @calls", "line 1, column 8: references"),
        ('start[stop="x"]: /a*/', "column 11: attributes"),
        ("start[max_tokens=3]: /a*/", "attributes"),
        ("start[temperature=3]: /a*/", "attributes"),
        ("start: A & B", "`&` and `~`"),
        ("start: A\nA: ~/a/", "line 2, column 4: `&` and `~`"),
        ("start: a::0x0", "parameters"),
        ('start: %regex {"substring_chars": "a"}', "directive"),
        ('start: %lark { start: "a" }', "directive"),
        ('%llguidance {"no_forcing": true}\nstart: "a"', "options of `%llguidance`"),
        ('%declare A\nstart: "a"', "directive"),
        ("start: %json [1", "the JSON is invalid"),
        ("start: %json 3", "a schema must be"),
        ("start: A\nA: /(?=a)/", "line 2, column 4"),
        ("start: /[[a]]/", "`[` in a character class"),
        ("start: /a/x", "a flag"),
        ("start: foo", "line 1, column 8: a name has no definition"),
        ('start: "a', "line 1"),
        ('start: ("a"', "the syntax is wrong"),
        ('foo: "a"', "there is no rule `start`"),
        ('start: "a"\nstart: "b"', "line 2, column 8: a name is defined twice"),
        ('start: T\nT: T "a"', "refers to itself"),
        ("%import common.NOPE\nstart: NOPE", "`common` has no such terminal"),
        ('start.1: "a"', "not supported"),
        ("", "there is no rule `start`"),
        ("start: start", "cannot be satisfied"),
        ("start: 'a'", "a character is not expected"),
    ],
)  # fmt: skip
def test_wrong_grammars_are_refused_with_their_place(grammar: str, reason: str) -> None:
    with pytest.raises(GrammarError) as error:
        check(lark(grammar))
    assert reason in error.value.reason


@pytest.mark.parametrize(
    "grammar",
    [
        '%llguidance {}\nstart: "a"',
        '?start: "a" -> alias\n!b: "b"',
        'start[lazy]: /a+/',
        'start: "a"~2..3 | "b" ~ 2 | "c"{1,2}',
        'start: ["a"] ("b" | "c")+ "d".."f" "G"i',
        "%import common.INT\nstart: INT",
    ],
)  # fmt: skip
def test_lark_syntax_that_is_supported(grammar: str) -> None:
    check(lark(grammar))
