"""The test checkpoints and the demo: what they say is worth comparing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from byte_tokenizer import special_token_ids
from caravan.model.architecture import Architecture
from tiny_llama4 import VARIANTS, load_oracle

PROMPT = (
    "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi, llama!<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n"
)


def prompt_ids(directory: Path) -> list[int]:
    ids: list[int] = AutoTokenizer.from_pretrained(directory)(PROMPT)["input_ids"]
    return ids


def generate(directory: Path, num_tokens: int, **options: object) -> list[int]:
    oracle: Any = load_oracle(directory)
    ids = torch.tensor([prompt_ids(directory)])
    torch.manual_seed(0)
    output = oracle.generate(ids, max_new_tokens=num_tokens, **options)
    reply: list[int] = output[0, ids.shape[1] :].tolist()
    return reply


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_decoding_does_not_repeat_itself(
    variant: str, tiny_checkpoint: Callable[..., Path]
) -> None:
    reply = generate(tiny_checkpoint(variant), 200, do_sample=False, eos_token_id=None)
    assert len(set(reply)) > 50
    assert max(reply.count(token) for token in set(reply)) < 40


def test_variants_are_what_they_claim(tiny_checkpoint: Callable[..., Path]) -> None:
    def architecture(variant: str, **arguments: object) -> Architecture:
        return Architecture.from_directory(tiny_checkpoint(variant, **arguments))

    scout = architecture("scout")
    assert (scout.chunked, scout.chunk_len) == ((True, True, True, False), 32)
    assert scout.num_heads // scout.num_kv_heads == 2
    assert scout.rope_scaling is not None
    maverick = architecture("maverick")
    assert (maverick.moe, maverick.num_experts) == ((False, True) * 2, 128)
    assert not maverick.use_qk_norm
    assert maverick.rope_scaling is None
    group5 = architecture("group5")
    assert group5.num_heads // group5.num_kv_heads == 5
    guard = architecture("guard")
    assert all(guard.chunked)
    assert not any(guard.moe)
    assert guard.chunk_len == guard.max_position_embeddings
    assert architecture("tied").tie_word_embeddings
    even = architecture("scout", multimodal=True).vision
    odd = architecture("scout", multimodal=True, vision="odd").vision
    assert even is not None
    assert odd is not None
    assert (even.tile_tokens, even.head_dim) == (4, 16)
    assert (odd.tile_tokens, odd.head_dim, odd.num_heads) == (9, 8, 3)
    assert architecture("scout", attention_chunk_size=7).chunk_len == 7


def test_tokenizer_is_one_token_per_byte(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = "".join(map(chr, range(300))) + "日本 🦙\r\n\n  x"
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    special = special_token_ids()
    assert prompt_ids(directory)[:3] == [
        special["<|begin_of_text|>"],
        special["<|header_start|>"],
        ord("u"),
    ]
