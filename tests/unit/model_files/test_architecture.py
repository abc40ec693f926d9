"""Architecture.from_config on the forms that real repositories have carried, and on bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from caravan.errors import CheckpointError, ConfigError
from caravan.model.architecture import Architecture, Llama3Scaling, TemperatureTuning
from caravan.model.vision_architecture import VisionArchitecture

SCOUT_TEXT: dict[str, Any] = {
    "model_type": "llama4_text",
    "hidden_size": 5120,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "use_qk_norm": True,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 16.0,
        "high_freq_factor": 1.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "attention_chunk_size": 8192,
    "max_position_embeddings": 10485760,
    "rms_norm_eps": 1e-5,
    "vocab_size": 202048,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "hidden_act": "silu",
    "no_rope_layers": [],
    "torch_dtype": "bfloat16",
}
SCOUT: dict[str, Any] = {
    "architectures": ["Llama4ForConditionalGeneration"],
    "model_type": "llama4",
    "text_config": SCOUT_TEXT,
    "vision_config": {
        "model_type": "llama4_vision_model",
        "hidden_size": 1408,
        "num_hidden_layers": 34,
        "num_attention_heads": 16,
        "intermediate_size": 5632,
        "image_size": 336,
        "patch_size": 14,
        "pixel_shuffle_ratio": 0.5,
        "projector_input_dim": 4096,
        "projector_output_dim": 4096,
        "vision_output_dim": 4096,
        "rope_theta": 10000,
        "hidden_act": "gelu",
        "num_channels": 3,
        "norm_eps": 1e-5,
        "vision_feature_layer": -1,
    },
    "torch_dtype": "bfloat16",
}
SCOUT_ARCHITECTURE = Architecture(
    hidden_size=5120,
    num_heads=40,
    num_kv_heads=8,
    head_dim=128,
    vocab_size=202048,
    rms_norm_eps=1e-5,
    max_position_embeddings=10485760,
    chunked=(True, True, True, False) * 12,
    moe=(True,) * 48,
    num_experts=16,
    expert_intermediate_size=8192,
    dense_intermediate_size=16384,
    use_qk_norm=True,
    chunk_len=8192,
    rope_theta=500000.0,
    rope_scaling=Llama3Scaling(
        factor=16.0,
        low_freq_factor=1.0,
        high_freq_factor=1.0,
        original_max_position_embeddings=8192,
    ),
    temperature_tuning=TemperatureTuning(floor_scale=8192, attn_scale=0.1),
    tie_word_embeddings=False,
    dtype="bfloat16",
    vision=VisionArchitecture(
        hidden_size=1408,
        num_layers=34,
        num_heads=16,
        intermediate_size=5632,
        tile_size=336,
        patch_size=14,
        shuffle=2,
        adapter_size=4096,
        rope_theta=10000.0,
    ),
)
SMALL: dict[str, Any] = {"model_type": "llama4_text", "num_hidden_layers": 4}


def scout(**text: object) -> Architecture:
    return Architecture.from_config({**SCOUT, "text_config": {**SCOUT_TEXT, **text}})


def small(**text: object) -> Architecture:
    return Architecture.from_config({**SMALL, **text})


def test_scout_as_on_the_hub() -> None:
    assert Architecture.from_config(SCOUT) == SCOUT_ARCHITECTURE
    assert SCOUT_ARCHITECTURE.num_layers == 48


@pytest.mark.parametrize(
    "text",
    [
        {"no_rope_layers": [1, 1, 1, 0] * 12},
        {"no_rope_layers": None, "no_rope_layer_interval": 4},
        {"layer_types": (["chunked_attention"] * 3 + ["full_attention"]) * 12},
        {"attn_temperature_tuning": 4, "floor_scale": 8192, "attn_scale": 0.1},
        {"attn_temperature_tuning": True},
        {"moe_layers": list(range(48))},
        {"moe_layers": None},
        {"rope_scaling": {**SCOUT_TEXT["rope_scaling"], "type": "llama3"}},
        {
            "rope_scaling": None,
            "rope_theta": 1.0,
            "rope_parameters": {**SCOUT_TEXT["rope_scaling"], "rope_theta": 500000.0},
        },
    ],
)
def test_other_ways_to_write_scout(text: dict[str, Any]) -> None:
    assert scout(**text) == SCOUT_ARCHITECTURE


def test_scaling_type_without_the_rope_prefix() -> None:
    scaling = {**SCOUT_TEXT["rope_scaling"], "type": "llama3"}
    del scaling["rope_type"]
    assert scout(rope_scaling=scaling) == SCOUT_ARCHITECTURE


def test_text_only_form() -> None:
    text_only = Architecture.from_config({**SCOUT_TEXT, "architectures": ["Llama4ForCausalLM"]})
    assert text_only.vision is None
    assert text_only.chunked == SCOUT_ARCHITECTURE.chunked


def test_maverick() -> None:
    maverick = scout(
        num_local_experts=128, interleave_moe_layer_step=2, use_qk_norm=False, rope_scaling=None
    )
    assert maverick.moe == (False, True) * 24
    assert maverick.num_experts == 128
    assert not maverick.use_qk_norm
    assert maverick.rope_scaling is None
    assert maverick.rope_theta == 500000.0


@pytest.mark.parametrize("interval", [None, 0, 80])
def test_guard_has_neither_experts_nor_full_layers(interval: int | None) -> None:
    guard = scout(
        num_local_experts=0,
        num_experts_per_tok=0,
        interleave_moe_layer_step=0,
        moe_layers=[],
        no_rope_layer_interval=interval,
        attention_chunk_size=None,
        max_position_embeddings=131072,
        layer_types=["full_attention"] * 48,
    )
    assert guard.chunked == (True,) * 48
    assert guard.moe == (False,) * 48
    assert guard.num_experts == 0
    assert guard.chunk_len == 131072


@pytest.mark.parametrize("off", [False, 0, None])
def test_temperature_tuning_off(off: object) -> None:
    assert scout(attn_temperature_tuning=off).temperature_tuning is None


def test_head_sizes_that_follow_from_others() -> None:
    model = small(hidden_size=96, num_attention_heads=6, num_key_value_heads=None, head_dim=None)
    assert (model.num_kv_heads, model.head_dim) == (6, 16)


def test_tied_embeddings_at_either_level() -> None:
    text = {key: value for key, value in SCOUT_TEXT.items() if key != "tie_word_embeddings"}
    top = {**SCOUT, "text_config": text, "tie_word_embeddings": True}
    assert Architecture.from_config(top).tie_word_embeddings
    assert scout(tie_word_embeddings=True).tie_word_embeddings


@pytest.mark.parametrize(
    ("top", "text", "expected"),
    [
        ({}, {}, "bfloat16"),
        ({"torch_dtype": "float16"}, {}, "float16"),
        ({"dtype": "float32"}, {"dtype": "float32"}, "float32"),
        ({}, {"torch_dtype": "float32"}, "float32"),
        ({"torch_dtype": None}, {"dtype": "float16"}, "float16"),
    ],
)
def test_dtype(top: dict[str, Any], text: dict[str, Any], expected: str) -> None:
    config = {"model_type": "llama4", "text_config": text, **top}
    assert Architecture.from_config(config).dtype == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 0}, r"hidden_size is 0; .* at least 1"),
    ({"hidden_size": -5120}, r"hidden_size is -5120"),
    ({"hidden_size": "5120"}, r'hidden_size is "5120"; it must be an integer'),
    ({"hidden_size": 5120.0}, r"hidden_size is 5120\.0; it must be an integer"),
    ({"hidden_size": True}, r"hidden_size is true; it must be an integer"),
    ({"hidden_size": None}, r"hidden_size is null"),
    ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000; it must be at most 1024"),
    ({"vocab_size": 0}, r"vocab_size is 0"),
    ({"rms_norm_eps": 0}, r"rms_norm_eps is 0; it must be a number above 0"),
    ({"rms_norm_eps": float("nan")}, r"rms_norm_eps is NaN"),
    ({"rms_norm_eps": 10**400}, r"rms_norm_eps is 1000"),
    ({"rope_theta": "big"}, r'rope_theta is "big"'),
    ({"max_position_embeddings": 0}, r"max_position_embeddings is 0"),
    ({"attention_chunk_size": 0}, r"attention_chunk_size is 0"),
    ({"num_key_value_heads": 7}, r"num_key_value_heads is 7; it must divide .* 40"),
    ({"head_dim": 127}, r"head_dim is 127; .* must be even"),
    ({"head_dim": None, "hidden_size": 100}, r"head_dim is null; .* 40, must divide .* 100"),
    ({"hidden_act": "gelu"}, r'hidden_act is "gelu"; Caravan supports "silu" only'),
    ({"attention_bias": True}, r"attention_bias is true; Caravan supports false only"),
    ({"num_experts_per_tok": 2}, r"num_experts_per_tok is 2; Caravan supports 1 only"),
    ({"num_local_experts": 0}, r"num_local_experts is 0"),
    ({"interleave_moe_layer_step": -1}, r"interleave_moe_layer_step is -1"),
    ({"moe_layers": [0, 4]}, r"moe_layers is \[0, 4\]; .* from 0 to 3"),
    ({"moe_layers": 3}, r"moe_layers is 3; it must be a list"),
    ({"no_rope_layers": [1, 1, 0]}, r"no_rope_layers .* 3 entries for 4 layers"),
    ({"no_rope_layers": [1, 1, 1, 2]}, r"no_rope_layers .* 0 \(NoPE\) or 1 \(RoPE\)"),
    ({"no_rope_layer_interval": -1}, r"no_rope_layer_interval is -1"),
    ({"layer_types": ["chunked_attention"] * 4}, r"layer_types .* agree with no_rope_layers"),
    ({"layer_types": ["sliding_attention"] * 4}, r"layer_types .* each of the 4 layers"),
    ({"layer_types": ["full_attention"]}, r"layer_types .* each of the 4 layers"),
    ({"use_qk_norm": "yes"}, r'use_qk_norm is "yes"; it must be true or false'),
    ({"attn_temperature_tuning": "on"}, r'attn_temperature_tuning is "on"'),
    ({"floor_scale": 0}, r"floor_scale is 0"),
    ({"attn_scale": "0.1"}, r'attn_scale is "0.1"'),
    ({"dtype": "float8_e4m3fn"}, r'dtype is "float8_e4m3fn"; .* bfloat16, float16, float32'),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, r'rope_type is "yarn"; .* "llama3"'),
    ({"rope_scaling": {"type": "linear", "factor": 4}}, r'rope_scaling.type is "linear"'),
    ({"rope_scaling": [1]}, r"rope_scaling is \[1\]; it must be an object"),
    ({"rope_scaling": {"rope_type": "llama3"}}, r"rope_scaling.factor is null; .* needs it"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        r"rope_parameters\.type is null; .* one for all layers",
    ),
    (
        {"rope_scaling": SCOUT_TEXT["rope_scaling"] | {"low_freq_factor": 2.0}},
        r"high_freq_factor is 1\.0; it must be at least low_freq_factor, 2\.0",
    ),
    ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5; Caravan supports 1 only"),
    ({"model_type": "llama"}, r'model_type is "llama"; Caravan serves "llama4"'),
    ({"model_type": None}, r"model_type is null"),
    ({"architectures": ["LlamaForCausalLM"]}, r'architectures is \["LlamaForCausalLM"\]'),
    (
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        r"quantization_config: .* quantized \(method: compressed-tensors\).* unquantized",
    ),
    ({"compression_config": {}}, r"compression_config: .* \(method: unknown\)"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda case: str(case)[:40])
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match="config.json: " + f".*{message}"):
        small(**fields)


def test_errors_name_the_section() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: text_config\.hidden_size is 0"):
        scout(hidden_size=0)
    with pytest.raises(CheckpointError, match=r"text_config is null; it must be an object"):
        Architecture.from_config({"model_type": "llama4"})
    with pytest.raises(CheckpointError, match=r"text_config\.model_type is \"llama\""):
        scout(model_type="llama")
    with pytest.raises(CheckpointError, match=r"text_config\.quantization_config: .*fp8"):
        scout(quantization_config={"quant_method": "fp8"})


def test_from_directory_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        Architecture.from_directory(tmp_path)
    for damaged in (b"{", b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
            Architecture.from_directory(tmp_path)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json must hold a JSON object"):
        Architecture.from_directory(tmp_path)
    path.write_text(json.dumps(SCOUT))
    assert Architecture.from_directory(tmp_path) == SCOUT_ARCHITECTURE
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    with pytest.raises(CheckpointError, match=r"hf_quant_config\.json.*method: FP8"):
        Architecture.from_directory(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: Is a directory"):
        Architecture.from_directory(tmp_path)


def test_kv_layout_of_scout() -> None:
    layout = SCOUT_ARCHITECTURE.kv_layout(block_len=16, itemsize=2)
    assert (layout.full_slices, layout.chunked_slices, layout.slice_layers) == (1, 3, 12)
    assert layout.chunk_len == 8192
    # 4096 bytes per token and layer in bfloat16: llama4.md 5.1
    assert layout.page_bytes == 12 * 16 * 4096
    # 48 KiB per token in full layers, 1.125 GiB per request in chunked ones
    assert layout.page_bytes * layout.full_slices // 16 == 48 * 1024
    assert layout.page_bytes * layout.chunked_slices * (8192 // 16) == 1.125 * 2**30


def test_kv_layout_of_other_patterns() -> None:
    five = small(num_hidden_layers=5, no_rope_layers=[1, 0, 1, 1, 0]).kv_layout(8, 4)
    assert (five.full_slices, five.chunked_slices, five.slice_layers) == (2, 3, 1)
    no_full = small(no_rope_layer_interval=0).kv_layout(8, 4)
    assert (no_full.full_slices, no_full.chunked_slices, no_full.slice_layers) == (0, 1, 4)
    no_chunked = small(no_rope_layer_interval=1).kv_layout(8, 4)
    assert (no_chunked.full_slices, no_chunked.chunked_slices) == (1, 0)


def test_kv_layout_over_ranks() -> None:
    whole = SCOUT_ARCHITECTURE.kv_layout(16, 2)
    assert SCOUT_ARCHITECTURE.kv_layout(16, 2, tp_size=4).page_bytes == whole.page_bytes // 4
    with pytest.raises(ConfigError, match=r"--tensor-parallel-size is 3; .* 8 key-value heads"):
        SCOUT_ARCHITECTURE.kv_layout(16, 2, tp_size=3)
