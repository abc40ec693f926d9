"""Random schemas: what is written under their grammars is valid, says the `jsonschema` package."""

from __future__ import annotations

import json
from typing import Any

import pytest

from caravan.grammars.checker import Checker
from caravan.grammars.constraints import json_schema
from caravan.grammars.errors import GrammarError
from grammars.schema_generator import Generator
from grammars.validation import problems
from grammars.vocabularies import Words, byte_words, piece_words
from grammars.walking import Walk, compiled

NUM_SCHEMAS = 240
BATCH = 30


def compile_or_reason(words: Words, schema: dict[str, Any]) -> tuple[str | None, str]:
    try:
        grammar = json_schema(schema)
        Checker(words.tokenizer).check(grammar)
    except GrammarError as error:
        return None, error.reason
    return grammar, ""


@pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])
@pytest.mark.parametrize("first", range(0, NUM_SCHEMAS, BATCH))
def test_output_is_valid(words: Words, first: int) -> None:
    num_refused = 0
    for seed in range(first, first + BATCH):
        schema = Generator(seed).schema()
        grammar, reason = compile_or_reason(words, schema)
        if grammar is None:
            # Chance combines what excludes each other.
            assert "satisfied" in reason or "multipleOf" in reason, schema
            num_refused += 1
            continue
        text = Walk(words, seed).text(compiled(words, grammar))
        assert problems(schema, text) == [], (json.dumps(schema), text)
    assert num_refused <= BATCH // 10
