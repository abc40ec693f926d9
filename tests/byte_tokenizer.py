"""A tokenizer for tests: one token per byte (id = byte), then Llama 4's special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|step|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|finetune_right_pad|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<|image|>",
    "<|patch|>",
)
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)


def special_token_ids() -> dict[str, int]:
    """Ids of the special tokens; those below are the bytes."""
    return {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}


def write_byte_tokenizer(directory: Path) -> None:
    """Writes a tokenizer.json with one token per byte (id = byte) and Llama 4's special tokens."""
    added = [
        {
            "id": token_id,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for name, token_id in special_token_ids().items()
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\s+|\S+"},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_byte_alphabet())},
            "merges": [],
        },
    }
    text = json.dumps(content, indent=1) + "\n"
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")


def _byte_alphabet() -> list[str]:
    """GPT-2's character for each byte: itself if printable, else the next one above 255."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
