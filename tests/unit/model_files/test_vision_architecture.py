"""The vision encoder's sizes, from real files and from bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from caravan.errors import CheckpointError
from caravan.model.architecture import Architecture
from caravan.model.vision_architecture import VisionArchitecture
from caravan.tiles import TileLayout

# llama4.md 2.1
REAL: dict[str, Any] = {
    "hidden_size": 1408,
    "image_size": 336,
    "vision_output_dim": 4096,
}
# meta-llama/Llama-4-Scout-17B-16E-Instruct
PROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Llama4ImageProcessorFast",
    "max_patches": 16,
    "resample": 2,
    "resize_to_max_canvas": False,
    "size": {"height": 336, "width": 336},
}


def config(**vision: object) -> dict[str, Any]:
    return {"model_type": "llama4", "text_config": {}, "vision_config": {**REAL, **vision}}


def read(**vision: object) -> VisionArchitecture:
    found = Architecture.from_config(config(**vision)).vision
    assert found is not None
    return found


def test_real_model() -> None:
    vision = read()
    assert (vision.num_layers, vision.num_heads, vision.head_dim) == (34, 16, 88)
    assert (vision.patches_per_side, vision.num_positions, vision.tile_tokens) == (24, 577, 144)
    assert vision.patch_elements == 588
    assert (vision.shuffle, vision.adapter_size, vision.rope_theta) == (2, 4096, 10000)
    assert vision.tile_layout() == TileLayout(tile_size=336, tile_tokens=144, max_tiles=16)


@pytest.mark.parametrize(
    "same",
    [
        {"image_size": [336, 336], "patch_size": [14, 14]},
        {"rope_theta": 10000.0},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_parameters": None, "rope_theta": 10000},
        {"norm_eps": 1e-6},  # neither reference reads it
    ],
    ids=str,
)
def test_other_ways_to_write_it(same: dict[str, Any]) -> None:
    assert read(**same) == read()


def test_rope_theta_of_new_and_old_files() -> None:
    assert read(rope_theta=500).rope_theta == 500
    assert read(rope_parameters={"rope_theta": 600}, rope_theta=500).rope_theta == 600


def test_shuffles() -> None:
    whole = read(pixel_shuffle_ratio=1, intermediate_size=1408)
    assert (whole.shuffle, whole.tile_tokens) == (1, 576)
    third = read(pixel_shuffle_ratio=1 / 3, intermediate_size=9 * 1408)
    assert (third.shuffle, third.tile_tokens) == (3, 64)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 768}, r"intermediate_size is null; .* hidden_size 768 .* must be 3072"),
    ({"intermediate_size": 5631}, r"intermediate_size is 5631; .* must be 5632"),
    ({"num_attention_heads": 15}, r"num_attention_heads is 15; it must divide hidden_size"),
    ({"num_attention_heads": 64}, r"num_attention_heads is 64; heads of 22 .* by 4"),
    ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000; .* at most 1024"),
    ({"image_size": 337}, r"image_size is 337; patch_size, 14, must divide it"),
    ({"image_size": [336, 448]}, r"image_size is \[336, 448\]; .* squares only"),
    ({"image_size": [336]}, r"image_size is \[336\]; .* squares only"),
    ({"image_size": ["a", "a"]}, r'image_size is \["a", "a"\]; .* squares only'),
    ({"image_size": 10**9 * 14}, r"image_size is 14000000000; .* at most 1024 patches"),
    ({"patch_size": 0}, r"patch_size is 0; it must be an integer of at least 1"),
    ({"image_size": 350}, r"pixel_shuffle_ratio is null; a tile has 25 patches per side; 2 must"),
    ({"pixel_shuffle_ratio": 0.4}, r"pixel_shuffle_ratio is 0\.4; it must be 1 divided by"),
    ({"pixel_shuffle_ratio": 2}, r"pixel_shuffle_ratio is 2; it must be 1 divided by"),
    ({"pixel_shuffle_ratio": 5e-324}, r"pixel_shuffle_ratio is 5e-324; it must be 1 divided by"),
    ({"projector_input_dim": 4095}, r"projector_input_dim is 4095; .* which is 4096"),
    ({"vision_output_dim": 7680}, r"vision_output_dim is 7680; .* which is 4096"),
    ({"hidden_act": "silu"}, r'hidden_act is "silu"; Caravan supports "gelu" only'),
    ({"num_channels": 1}, r"num_channels is 1; Caravan supports 3 only"),
    ({"multi_modal_projector_bias": True}, r"multi_modal_projector_bias is true"),
    ({"rope_theta": 0}, r"rope_theta is 0"),
    ({"rope_scaling": {"rope_type": "yarn"}}, r"rope_scaling is .*supports none"),
    ({"rope_parameters": {"rope_type": "yarn"}}, r'rope_parameters.rope_type is "yarn"'),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda case: str(case)[:40])
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: vision_config\." + message):
        read(**fields)


def test_vision_output_dim_has_its_default() -> None:
    whole = config()
    del whole["vision_config"]["vision_output_dim"]
    with pytest.raises(CheckpointError, match=r"vision_output_dim is 7680; .* which is 4096"):
        Architecture.from_config(whole)


def test_without_vision_config_it_reads_text_only() -> None:
    assert Architecture.from_config(config() | {"vision_config": None}).vision is None


def write(directory: Path, file: str, processor: dict[str, Any]) -> None:
    (directory / "config.json").write_text(json.dumps(config()))
    (directory / file).write_text(json.dumps(processor))


def max_tiles(directory: Path) -> int:
    vision = Architecture.from_directory(directory).vision
    assert vision is not None
    return vision.max_tiles


def test_most_tiles_come_from_the_image_processor(tmp_path: Path) -> None:
    write(tmp_path, "preprocessor_config.json", PROCESSOR | {"max_patches": 12})
    assert max_tiles(tmp_path) == 12
    write(tmp_path, "processor_config.json", {"patch_size": 14})
    assert max_tiles(tmp_path) == 12
    write(tmp_path, "processor_config.json", {"image_processor": {"max_patches": 9}})
    assert max_tiles(tmp_path) == 9


def test_without_an_image_processor_most_tiles_are_16(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config()))
    assert max_tiles(tmp_path) == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"height": 448, "width": 448}}, r"size is .*448.*; image_size is 336"),
        ({"resize_to_max_canvas": True}, r"resize_to_max_canvas is true; .* false only"),
        ({"image_mean": [0.48, 0.45, 0.4]}, r"image_mean is .*; Caravan supports"),
        ({"resample": 3}, r"resample is 3; Caravan supports 2 only"),
        ({"max_patches": 0}, r"max_patches is 0"),
        ({"max_patches": 10**6}, r"max_patches is 1000000; it must be at most 1024"),
    ],
)
def test_refuses_image_processors(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, "preprocessor_config.json", PROCESSOR | fields)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: " + message):
        Architecture.from_directory(tmp_path)


def test_text_only_models_need_no_image_processor(tmp_path: Path) -> None:
    write(tmp_path, "preprocessor_config.json", {"size": "any"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama4_text"}))
    assert Architecture.from_directory(tmp_path).vision is None
