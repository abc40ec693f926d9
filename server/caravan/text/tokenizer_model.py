"""Reads `tokenizer.model`, as Meta publishes it: ordinary tokens in base64 and their ranks.

The special tokens and the pattern are not in the file; they are the same for every Llama 4.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from caravan.errors import CheckpointError
from caravan.text.vocabulary import (
    BEGIN_OF_TEXT,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    HEADER_END,
    HEADER_START,
    Vocabulary,
)

NUM_SPECIALS = 2048

# The pieces: words with their contractions, up to three digits, punctuation, line ends, spaces.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PIECES = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION,
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
)
PATTERN = "|".join(_PIECES)


def read_tokenizer_model(path: Path) -> Vocabulary:
    """Raises CheckpointError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise CheckpointError(
                f"{path}: line {number} is not a token in base64 and its rank"
            ) from error
    special_ids = {name: len(ranks) + index for index, name in enumerate(special_names())}
    return Vocabulary(path, ranks, special_ids, PATTERN)


def special_names() -> list[str]:
    """The special tokens that follow the ordinary ones, in the order of their ids."""
    names = [BEGIN_OF_TEXT, END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    names += [HEADER_START, HEADER_END, END_OF_MESSAGE, END_OF_TURN, "<|step|>"]
    names += _reserved("text_post_train_", range(6))
    names += ["<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"]
    names += _reserved("text_post_train_", range(8, 69))
    names += ["<|image_start|>", "<|image_end|>"]
    names += _reserved("vision_", range(2))
    names += ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    names += _reserved("vision_", range(2, 6))
    names += ["<|image|>", *_reserved("vision_", [6]), "<|patch|>"]
    names += _reserved("vision_", range(7, 1048))
    names += _reserved("reasoning_", range(8))
    names += ["<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"]
    return names + _reserved("", range(NUM_SPECIALS - len(names)))


def _reserved(group: str, numbers: Iterable[int]) -> list[str]:
    return [f"<|{group}reserved_special_token_{number}|>" for number in numbers]
