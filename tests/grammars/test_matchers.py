"""Compiling in the background, and masks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

from caravan.grammars import matchers as module
from caravan.grammars.constraints import choice, json_object, json_schema, regex
from caravan.grammars.errors import GrammarError
from caravan.grammars.matchers import Compiler, Matcher, fill_masks
from grammars.vocabularies import byte_words
from grammars.walking import allowed, compiled, write

BAD = json_schema({"type": "integer", "minimum": 2, "maximum": 1})
WORDS = byte_words()


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    made = Compiler(lambda: WORDS.tokenizer)
    yield made
    made.close()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been compiled."""
    grammars: list[str] = []

    def spy(tokenizer: LLTokenizer, grammar: str, **options: object) -> LLMatcher:
        grammars.append(grammar)
        return LLMatcher(tokenizer, grammar, **options)  # type: ignore[arg-type]  # the compiler's own

    monkeypatch.setattr(module, "LLMatcher", spy)
    return grammars


def results(compiler: Compiler, number: int) -> dict[int, Matcher | GrammarError]:
    found: dict[int, Matcher | GrammarError] = {}
    while len(found) < number:
        compiler.wait(30)
        fresh = dict(compiler.done())
        assert fresh, "nothing came"
        found |= fresh
    return found


def matcher_of(compiler: Compiler, grammar: str) -> Matcher:
    compiler.start(0, grammar)
    matcher = results(compiler, 1)[0]
    assert isinstance(matcher, Matcher)
    return matcher


def test_results_come_under_their_keys_in_order(compiler: Compiler) -> None:
    assert (compiler.pending, compiler.done()) == (0, [])
    for key in range(5):
        compiler.start(key, BAD if key == 2 else regex(str(key)))
    assert compiler.pending == 5
    found = results(compiler, 5)
    assert list(found) == [0, 1, 2, 3, 4]
    assert (compiler.pending, compiler.done()) == (0, [])
    for key, result in found.items():
        if key == 2:
            assert isinstance(result, GrammarError)
            assert "satisfied" in result.reason
        else:
            assert isinstance(result, Matcher)
            assert allowed(WORDS, result) == [ord(str(key))]


def test_start_does_not_wait_and_the_tokenizer_is_made_once() -> None:
    gate, made_in = threading.Event(), []

    def make() -> LLTokenizer:
        made_in.append(threading.current_thread())
        assert gate.wait(10)
        return WORDS.tokenizer

    compiler = Compiler(make)
    assert made_in == []
    compiler.start(1, regex("a"))
    compiler.start(2, regex("b"))
    assert (compiler.pending, compiler.done()) == (2, [])
    began = time.monotonic()
    compiler.wait(0.02)
    assert time.monotonic() - began >= 0.02
    gate.set()
    assert set(results(compiler, 2)) == {1, 2}
    assert len(made_in) == 1
    assert made_in[0] is not threading.current_thread()
    compiler.close()


def test_equal_grammars_compile_once(compiler: Compiler, compilations: list[str]) -> None:
    one, other = regex("ab"), regex("cd")
    for key, grammar in enumerate([one, other, one, one, other]):
        compiler.start(key, grammar)
    found = results(compiler, 5)
    assert compilations == [one, other]
    first, again = found[0], found[2]
    assert isinstance(first, Matcher)
    assert isinstance(again, Matcher)
    assert first.accept(ord("a"))  # they are followed apart
    assert allowed(WORDS, first) == [ord("b")]
    assert allowed(WORDS, again) == [ord("a")]


def test_the_grammar_that_was_used_longest_ago_is_forgotten(
    compiler: Compiler, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_PROTOTYPES", 2)
    one, two, three = (regex(text) for text in "abc")
    for grammar in (one, two, one, three, one, two):
        matcher_of(compiler, grammar)
    assert compilations == [one, two, three, two]


def test_a_grammar_is_compiled_again_after_many_copies(
    compiler: Compiler, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_COPIES", 3)
    for _ in range(7):
        matcher_of(compiler, regex("a"))
    assert len(compilations) == 3


def test_a_grammar_is_compiled_again_after_a_failure(
    compiler: Compiler, compilations: list[str]
) -> None:
    first = matcher_of(compiler, regex("ab"))
    other = matcher_of(compiler, regex("ab"))
    assert not first.accept(ord("b"))
    matcher_of(compiler, regex("ab"))
    assert len(compilations) == 2
    assert other.accept(ord("a"))  # it fails alone
    assert other.failed is None


def test_bad_grammars_are_not_kept(compiler: Compiler, compilations: list[str]) -> None:
    for key in range(2):
        compiler.start(key, BAD)
    assert all(isinstance(result, GrammarError) for result in results(compiler, 2).values())
    assert len(compilations) == 2
    for grammar in ("", "{", "nonsense", '{"grammars": [{}]}'):
        compiler.start(0, grammar)
        assert isinstance(results(compiler, 1)[0], GrammarError)


def test_a_bug_in_the_thread_is_heard_of() -> None:
    def make() -> LLTokenizer:
        raise RuntimeError("no vocabulary")

    compiler = Compiler(make)
    compiler.start(0, regex("a"))
    compiler.wait(10)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no vocabulary"):
            compiler.done()
    compiler.close()


def test_close_drops_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()

    def make() -> LLTokenizer:
        begun.set()
        assert gate.wait(10)
        return WORDS.tokenizer

    compiler = Compiler(make)
    for key in range(3):
        compiler.start(key, regex(str(key)))
    assert begun.wait(10)
    threading.Timer(0.05, gate.set).start()
    compiler.close()
    assert [key for key, _ in compiler.done()] == [0]
    assert not [thread for thread in threading.enumerate() if thread is compiler._thread]
    Compiler(make).close()  # never used


def test_a_token_that_is_not_allowed_fails_the_matcher(compiler: Compiler) -> None:
    matcher = matcher_of(compiler, regex("ab"))
    assert matcher.accept(ord("a"))
    assert not matcher.accept(ord("x"))
    reason = matcher.failed
    assert reason
    assert not matcher.accept(ord("b"))
    assert not matcher.accept(WORDS.ids["<|eot|>"])
    row = np.full_like(WORDS.new_row(), -1)
    matcher.mask_into(row)
    assert not row.any()
    assert matcher.failed == reason


def test_a_mask_that_allows_nothing_fails_the_matcher(compiler: Compiler) -> None:
    """llguidance would let the output end."""
    matcher = matcher_of(compiler, "start: start")
    other = matcher_of(compiler, regex("a"))
    out = np.full((2, len(WORDS.new_row())), -1, np.int32)
    fill_masks([matcher, other], out)
    assert matcher.failed
    assert "satisfied" in matcher.failed
    assert not out[0].any()
    assert other.failed is None
    assert out[1].any()


def test_what_follows_the_end_is_not_allowed(compiler: Compiler) -> None:
    matcher = matcher_of(compiler, regex("a"))
    write(WORDS, matcher, "a")
    assert not matcher.accept(ord("a"))
    assert matcher.failed


def test_the_layout_of_a_mask(compiler: Compiler) -> None:
    row = np.full_like(WORDS.new_row(), -1)
    matcher_of(compiler, choice(["!", "a"])).mask_into(row)
    expected = np.zeros_like(row)
    for token in b"!a":
        expected[token // 32] |= 1 << token % 32
    assert (row == expected).all()
    assert len(row) == (WORDS.size + 31) // 32


@pytest.mark.parametrize("num_threads", [1, 3])
def test_masks_of_many_rows(num_threads: int) -> None:
    grammars = [json_object(), regex("[a-f]+"), choice(["yes", "no"]), json_object()] * 3
    many = [compiled(WORDS, grammar) for grammar in grammars]
    alone = [compiled(WORDS, grammar) for grammar in grammars]
    for matcher in (many[3], alone[3]):
        write(WORDS, matcher, '{"')
    many[5].accept(ord("z"))
    out = np.full((len(many), len(WORDS.new_row())), -1, np.int32)
    fill_masks(many, out, num_threads=num_threads)
    for index, matcher in enumerate(alone):
        row = WORDS.new_row()
        matcher.mask_into(row)
        if index == 5:
            assert many[5].failed
            assert not out[5].any()
        else:
            assert not many[index].failed
            assert (out[index] == row).all()
            assert row.any()


def test_no_rows() -> None:
    fill_masks([], np.zeros((0, 9), np.int32))


def test_wrong_arrays_are_callers_errors(compiler: Compiler) -> None:
    matcher = matcher_of(compiler, regex("a"))
    for wrong in (
        np.zeros((1, 9), np.int64),
        np.zeros((1, 18), np.int32)[:, ::2],
        np.zeros((2, 9), np.int32),
    ):
        with pytest.raises(AssertionError):
            fill_masks([matcher], wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="buffer size"):
        fill_masks([matcher], np.zeros((1, 3), np.int32))


def test_masks_and_compilation_at_the_same_time(compiler: Compiler) -> None:
    """What is compiled in the thread does not disturb what is followed here."""
    matcher = matcher_of(compiler, json_object())
    for key in range(60):
        compiler.start(key, json_schema({"const": f"v{key}" * 20}))
    text = json.dumps({f"k{i}": [i, {"a": None}] for i in range(60)})
    write(WORDS, matcher, text)
    assert len(results(compiler, 60)) == 60
    assert set(allowed(WORDS, matcher)) == WORDS.stops
