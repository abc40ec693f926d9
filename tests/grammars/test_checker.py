"""The checker: verdicts, remembered, from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from llguidance import LLMatcher

from caravan.grammars import checker as module
from caravan.grammars.checker import Checker
from caravan.grammars.constraints import json_schema, regex
from caravan.grammars.errors import GrammarError
from grammars.vocabularies import byte_words

GOOD = regex("[a-z]+")
BAD = json_schema({"type": "integer", "minimum": 2, "maximum": 1})


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been compiled."""
    grammars: list[str] = []

    def spy(tokenizer: object, grammar: str, **options: object) -> LLMatcher:
        grammars.append(grammar)
        return LLMatcher(byte_words().tokenizer, grammar, **options)  # type: ignore[arg-type]  # the checker's own

    monkeypatch.setattr(module, "LLMatcher", spy)
    return grammars


def test_good_and_bad() -> None:
    checker = Checker(byte_words().tokenizer)
    checker.check(GOOD)
    with pytest.raises(GrammarError, match="satisfied"):
        checker.check(BAD)
    for grammar in ("", "{", "[]", '{"grammars": []}', "nonsense", "start: <|nope|>"):
        with pytest.raises(GrammarError):
            checker.check(grammar)


def test_what_no_output_can_satisfy_is_found_before_the_first_token() -> None:
    with pytest.raises(GrammarError, match="satisfied"):
        Checker(byte_words().tokenizer).check("start: start")


def test_verdicts_are_remembered(compiled: list[str]) -> None:
    checker = Checker(byte_words().tokenizer)
    for _ in range(3):
        checker.check(GOOD)
        with pytest.raises(GrammarError, match="satisfied"):
            checker.check(BAD)
    assert compiled == [GOOD, BAD]


def test_the_oldest_verdict_is_forgotten(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_VERDICTS", 2)
    checker = Checker(byte_words().tokenizer)
    one, two, three = (regex(text) for text in "abc")
    for grammar in (one, two, one, three, one, two):
        checker.check(grammar)
    assert compiled == [one, two, three, two]


def test_verdicts_are_small(compiled: list[str]) -> None:
    checker = Checker(byte_words().tokenizer)
    checker.check(regex("a" * 8000))
    assert all(len(key) == 32 for key in checker._verdicts)


def test_many_threads() -> None:
    checker = Checker(byte_words().tokenizer)
    grammars = [regex(f"a{{{index}}}") for index in range(1, 12)]

    def check(index: int) -> bool:
        if index % 4 == 0:
            with pytest.raises(GrammarError):
                checker.check(BAD)
        else:
            checker.check(grammars[index % len(grammars)])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(200)))


def test_few_grammars_compile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    lock, gate = threading.Lock(), threading.Event()

    def reason(self: Checker, grammar: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(0.05)
        with lock:
            running -= 1

    monkeypatch.setattr(Checker, "_reason", reason)
    checker = Checker(byte_words().tokenizer)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(checker.check, map(str, range(8))))
    assert most == 2
