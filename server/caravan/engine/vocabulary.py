"""The tokenizer as grammars need it, in either process."""

from __future__ import annotations

from pathlib import Path

from llguidance import LLTokenizer

from caravan.grammars.matchers import Compiler
from caravan.grammars.vocabulary import guidance_tokenizer
from caravan.text.tokenizer import Tokenizer


def grammar_vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """Takes a second for Llama 4's 200,000 tokens."""
    return guidance_tokenizer(
        tokens=[tokenizer.text_bytes(token_id) for token_id in range(tokenizer.vocab_size)],
        specials=tokenizer.special_ids,
        stop_ids=tokenizer.stop_ids,
        encode=tokenizer.encode,
        vocab_size=tokenizer.vocab_size,
    )


def load_compiler(directory: Path, vocab_size: int) -> Compiler:
    """For the model in a directory. Raises CheckpointError.

    The vocabulary is read at once: later, no token would be drawn meanwhile.
    """
    vocabulary = grammar_vocabulary(Tokenizer.from_directory(directory, vocab_size))
    return Compiler(lambda: vocabulary)
