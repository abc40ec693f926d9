"""The demo model's files; what it says is tested with the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from caravan.model.architecture import Architecture
from caravan.model.demo import SPECIAL_TOKENS, VOCAB_SIZE, special_token_ids, write_demo
from caravan.model.manifest import check_checkpoint
from caravan.tiles import TileLayout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    write_demo(directory)
    return directory


def test_is_a_whole_checkpoint_with_the_real_structure(demo: Path) -> None:
    architecture = Architecture.from_directory(demo)
    checkpoint = check_checkpoint(demo, architecture)
    assert checkpoint.num_bytes < 50e6
    assert architecture.chunked == (True, True, True, False) * 2
    assert all(architecture.moe)
    assert architecture.num_experts > 1
    assert architecture.use_qk_norm
    assert architecture.rope_scaling is not None
    assert architecture.temperature_tuning is not None
    assert architecture.max_position_embeddings > 16 * architecture.chunk_len


def test_is_always_the_same(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path)
    names = {path.name for path in demo.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    for name in names:
        assert (tmp_path / name).read_bytes() == (demo / name).read_bytes()


def test_tokenizer_has_a_token_per_byte_and_the_special_ones(demo: Path) -> None:
    tokenizer = json.loads((demo / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(256))
    assert (vocab["A"], vocab["Ġ"], vocab["Ċ"], vocab["ÿ"]) == (65, 32, 10, 255)
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert added == special_token_ids()
    assert sorted(added.values()) == list(range(256, VOCAB_SIZE))
    assert tuple(added) == SPECIAL_TOKENS


def test_end_tokens(demo: Path) -> None:
    ids = special_token_ids()
    ends = [ids["<|end_of_text|>"], ids["<|eom|>"], ids["<|eot|>"]]
    for name in ("config.json", "generation_config.json"):
        config = json.loads((demo / name).read_text())
        assert config["eos_token_id"] == ends
        assert config["bos_token_id"] == ids["<|begin_of_text|>"]


def test_has_a_vision_encoder_with_tiles_of_the_real_size(demo: Path) -> None:
    architecture = Architecture.from_directory(demo)
    assert check_checkpoint(demo, architecture).has_vision
    assert architecture.vision is not None
    assert architecture.vision.tile_layout() == TileLayout()
    config = json.loads((demo / "config.json").read_text())
    ids = special_token_ids()
    assert config["image_token_index"] == ids["<|patch|>"]
    assert config["boi_token_index"] == ids["<|image_start|>"]
    assert config["eoi_token_index"] == ids["<|image_end|>"]


def test_no_layer_touches_the_constant_channel(demo: Path) -> None:
    for name, tensor in load_file(demo / "model.safetensors").items():
        if name.startswith("vision_model."):
            continue  # it has channels of its own
        if name == "multi_modal_projector.linear_1.weight":
            assert (tensor[0] == 0).all(), name
        elif "layernorm" in name:
            assert tensor[0] == 0, name
        elif name.endswith(("o_proj.weight", "shared_expert.down_proj.weight")):
            assert (tensor[0] == 0).all(), name
        elif name.endswith("experts.down_proj"):
            assert (tensor[..., 0] == 0).all(), name
        elif name.endswith("model.embed_tokens.weight"):
            assert (tensor[:, 0] == tensor[0, 0]).all()
