"""The demo model's files; what it says is examined in tests/eval."""

from __future__ import annotations

import json

import pytest

from caravan.model.architecture import Architecture
from caravan.model.manifest import check_checkpoint
from caravan.model.source import DEMO
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_model import PATTERN, special_names
from caravan.text.vocabulary import IMAGE_SPECIALS

LARGEST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return Architecture.from_directory(DEMO)


def test_it_is_small_and_has_every_mechanism_of_llama_4(architecture: Architecture) -> None:
    checkpoint = check_checkpoint(DEMO, architecture)
    assert checkpoint.num_bytes < LARGEST_BYTES
    assert checkpoint.has_vision
    assert architecture.chunked == (True, True, True, False) * 2
    assert set(architecture.moe) == {True, False}
    assert architecture.num_experts > 1
    assert architecture.num_kv_heads < architecture.num_heads
    assert architecture.use_qk_norm
    assert architecture.rope_scaling is not None
    assert architecture.temperature_tuning is not None
    assert architecture.temperature_tuning.floor_scale == architecture.chunk_len == 256
    assert architecture.max_position_embeddings >= 32 * architecture.chunk_len


def test_its_pictures_have_several_tiles(architecture: Architecture) -> None:
    assert architecture.vision is not None
    layout = architecture.vision.tile_layout()
    assert layout.max_tiles == 4
    assert layout.grid(640, 480).num_tiles == 5
    assert layout.tile_tokens < architecture.chunk_len


def test_its_tokenizer_has_llama_4s_pattern_and_special_tokens(architecture: Architecture) -> None:
    tokenizer = Tokenizer.from_directory(DEMO, architecture.vocab_size)
    content = json.loads((DEMO / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == PATTERN
    named = [name for name in special_names() if "reserved" not in name]
    assert list(tokenizer.special_ids) == named
    tokenizer.require_special(IMAGE_SPECIALS)
    assert tokenizer.encode("4821") == [tokenizer.encode(digit)[0] for digit in "4821"]


def test_ids_in_its_configuration_are_the_tokenizers(architecture: Architecture) -> None:
    tokenizer = Tokenizer.from_directory(DEMO, architecture.vocab_size)
    config = json.loads((DEMO / "config.json").read_text())
    for name, token in (
        ("image_token_index", "<|patch|>"),
        ("boi_token_index", "<|image_start|>"),
        ("eoi_token_index", "<|image_end|>"),
        ("bos_token_id", "<|begin_of_text|>"),
        ("pad_token_id", "<|finetune_right_pad|>"),
    ):
        assert config[name] == tokenizer.special_id(token), name
    ends = [tokenizer.special_id(name) for name in ("<|end_of_text|>", "<|eom|>", "<|eot|>")]
    assert config["eos_token_id"] == ends
    assert config["text_config"]["eos_token_id"] == ends


def test_it_answers_greedily_unless_asked_otherwise() -> None:
    assert GenerationDefaults.from_directory(DEMO).temperature == 0
