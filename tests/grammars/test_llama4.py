"""Llama 4's own vocabulary: 200,000 tokens, many of which cross the borders of JSON."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import json_schema
from caravan.grammars.matchers import Compiler, Matcher
from caravan.grammars.tools import FUNCTION_HEAD, ToolRule, automatic, required
from caravan.grammars.vocabulary import guidance_tokenizer
from caravan.text.tokenizer import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
NAMES = ("get_weather", "get", "send_mail")
TOOLS = [
    *(ToolRule(name, schema=SCHEMA, strict=True) for name in NAMES),
    ToolRule("run", kind="custom"),
]


class Llama4:
    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_models.llama4")
        assert spec is not None
        assert spec.origin is not None
        self.tokenizer = Tokenizer.from_directory(Path(spec.origin).parent)
        self.size = self.tokenizer.vocab_size
        self.guidance = guidance_tokenizer(
            [self.tokenizer.text_bytes(i) for i in range(self.size)],
            self.tokenizer.special_ids,
            self.tokenizer.stop_ids,
            self.tokenizer.encode,
            self.size,
        )
        self._compiler = Compiler(lambda: self.guidance)

    def compiled(self, grammar: str) -> Matcher:
        self._compiler.start(0, grammar)
        self._compiler.wait(30)
        ((_, matcher),) = self._compiler.done()
        assert isinstance(matcher, Matcher)
        return matcher

    def allowed(self, matcher: Matcher) -> NDArray[np.bool_]:
        """By token id."""
        row = np.zeros((self.size + 31) // 32, np.int32)
        matcher.mask_into(row)
        bits = np.unpackbits(row.view(np.uint8), bitorder="little")
        return bits[: self.size].astype(bool)

    def write(self, matcher: Matcher, text: str) -> None:
        for token in self.tokenizer.encode(text):
            assert self.allowed(matcher)[token], (text, self.tokenizer.text_bytes(token))
            assert matcher.accept(token)

    def ends(self, matcher: Matcher) -> bool:
        """Whether only an end token may follow."""
        return set(np.flatnonzero(self.allowed(matcher))) == set(self.tokenizer.stop_ids)


@pytest.fixture(scope="module")
def llama4() -> Llama4:
    return Llama4()


@pytest.mark.parametrize("indent", [None, 2])
def test_json_in_the_models_own_tokens(llama4: Llama4, indent: int | None) -> None:
    grammar = json_schema(SCHEMA)
    Checker(llama4.guidance).check(grammar)
    matcher = llama4.compiled(grammar)
    llama4.write(
        matcher,
        json.dumps({"city": "Zürich 日本", "days": [1, 23]}, indent=indent, ensure_ascii=False),
    )
    assert llama4.ends(matcher)


def test_calls_in_the_models_own_tokens(llama4: Llama4) -> None:
    call = FUNCTION_HEAD + 'get_weather", "parameters": {"city": "Rome", "days": []}}'
    matcher = llama4.compiled(required(TOOLS, parallel=True))
    llama4.write(matcher, call + "\n" + call)
    matcher = llama4.compiled(automatic(TOOLS, parallel=True))
    llama4.write(matcher, "I will look.\n" + call)
    assert matcher.accept(llama4.tokenizer.special_id("<|python_start|>"))
    llama4.write(matcher, "run\nls -l")
    assert matcher.accept(llama4.tokenizer.special_id("<|python_end|>"))
    assert llama4.allowed(matcher)[list(llama4.tokenizer.stop_ids)].all()


@pytest.mark.parametrize("text", [FUNCTION_HEAD, "So: " + FUNCTION_HEAD])
def test_no_token_leads_past_the_beginning_of_a_call(llama4: Llama4, text: str) -> None:
    grammar = automatic(TOOLS, parallel=True)
    rests = [f'{name}", "parameters": {{'.encode() for name in NAMES]
    texts = enumerate(map(llama4.tokenizer.text_bytes, range(llama4.size)))
    quoting = [(token, text) for token, text in texts if b'"' in text]
    num_crossing = 0
    for cut in range(len(text) - len(FUNCTION_HEAD), len(text) + 1):
        matcher = llama4.compiled(grammar)
        llama4.write(matcher, text[:cut])
        options = llama4.allowed(matcher)
        missing = text[cut:].encode()
        for token, token_text in quoting:
            if options[token] and token_text.startswith(missing):
                rest = token_text.removeprefix(missing)
                assert any(name.startswith(rest) for name in rests), rest
                num_crossing += bool(rest)
    firsts = {llama4.tokenizer.text_bytes(int(token))[:1] for token in np.flatnonzero(options)}
    assert firsts == {b"g", b"s"}
    assert num_crossing
