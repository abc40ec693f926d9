"""What a checkpoint must hold, and the errors for one that does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from caravan.config import LoadFormat
from caravan.errors import CheckpointError
from caravan.model.architecture import Architecture
from caravan.model.checkpoint_files import INDEX
from caravan.model.manifest import check_checkpoint, parameters, served_architecture

# H 8, Q 2, K 1, D 4, E 3, I 5, F 6, V 11; layer 0 dense, layer 1 with experts
CONFIG: dict[str, object] = {
    "model_type": "llama4_text",
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "num_local_experts": 3,
    "intermediate_size": 5,
    "intermediate_size_mlp": 6,
    "moe_layers": [1],
}
ARCHITECTURE = Architecture.from_config(CONFIG)
LAYER = "model.layers.{}."
ATTENTION = {
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.v_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8),
    "input_layernorm.weight": (8,),
    "post_attention_layernorm.weight": (8,),
}
DENSE = {
    "feed_forward.gate_proj.weight": (6, 8),
    "feed_forward.up_proj.weight": (6, 8),
    "feed_forward.down_proj.weight": (8, 6),
}
SHARED = {
    "feed_forward.router.weight": (3, 8),
    "feed_forward.shared_expert.gate_proj.weight": (5, 8),
    "feed_forward.shared_expert.up_proj.weight": (5, 8),
    "feed_forward.shared_expert.down_proj.weight": (8, 5),
}
FUSED = {
    "feed_forward.experts.gate_up_proj": (3, 8, 10),
    "feed_forward.experts.down_proj": (3, 5, 8),
}
SEPARATE = {
    f"feed_forward.experts.{expert}.{name}.weight": shape
    for expert in range(3)
    for name, shape in {"gate_proj": (5, 8), "up_proj": (5, 8), "down_proj": (8, 5)}.items()
}


def names(experts: Mapping[str, tuple[int, ...]] = FUSED) -> dict[str, tuple[int, ...]]:
    outside = {
        "model.embed_tokens.weight": (11, 8),
        "model.norm.weight": (8,),
        "lm_head.weight": (11, 8),
    }
    layers = {LAYER.format(0) + name: shape for name, shape in (ATTENTION | DENSE).items()}
    moe = ATTENTION | SHARED | dict(experts)
    return outside | layers | {LAYER.format(1) + name: shape for name, shape in moe.items()}


def write(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    file: str = "model.safetensors",
    dtype: type = np.float32,
) -> None:
    save_file({name: np.zeros(shape, dtype) for name, shape in shapes.items()}, directory / file)


def refusal(directory: Path, architecture: Architecture = ARCHITECTURE) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(directory, architecture)
    return str(caught.value)


@pytest.mark.parametrize("experts", [FUSED, SEPARATE], ids=["fused", "separate"])
def test_names_and_shapes(experts: dict[str, tuple[int, ...]]) -> None:
    entries = parameters(ARCHITECTURE, fused_experts=experts is FUSED)
    assert {s.tensor: s.shape for entry in entries for s in entry.sources} == names(experts)


@pytest.mark.parametrize("fused", [True, False])
def test_sources_fill_each_parameter_exactly_once(fused: bool) -> None:
    for entry in parameters(MULTIMODAL, fused_experts=fused):
        filled = np.zeros(entry.shape, int)
        for source in entry.sources:
            target = filled if source.expert is None else filled[source.expert]
            shape = list(source.shape)
            if source.transposed:
                shape[-2:] = shape[:-3:-1]
            assert target[source.rows].shape == tuple(shape)
            target[source.rows] += 1
        assert (filled == 1).all(), entry


def test_parameters_of_the_model() -> None:
    found = {entry.name: entry.shape for entry in parameters(ARCHITECTURE)}
    assert found == {
        "embed_tokens.weight": (11, 8),
        "layers.0.input_norm.weight": (8,),
        "layers.0.attention.qkv.weight": (16, 8),
        "layers.0.attention.out.weight": (8, 8),
        "layers.0.ffn_norm.weight": (8,),
        "layers.0.ffn.gate_up.weight": (12, 8),
        "layers.0.ffn.down.weight": (8, 6),
        "layers.1.input_norm.weight": (8,),
        "layers.1.attention.qkv.weight": (16, 8),
        "layers.1.attention.out.weight": (8, 8),
        "layers.1.ffn_norm.weight": (8,),
        "layers.1.ffn.router.weight": (3, 8),
        "layers.1.ffn.experts.gate_up": (3, 10, 8),
        "layers.1.ffn.experts.down": (3, 8, 5),
        "layers.1.ffn.shared.gate_up.weight": (10, 8),
        "layers.1.ffn.shared.down.weight": (8, 5),
        "norm.weight": (8,),
        "lm_head.weight": (11, 8),
    }


def test_split_axes() -> None:
    """Whatever produces a hidden layer is cut by output, whatever reads it by input."""
    for entry in parameters(ARCHITECTURE):
        output = {"embed_tokens", "lm_head", "qkv", "gate_up"} & set(entry.name.split("."))
        if "norm" in entry.name or "router" in entry.name:
            assert entry.split_axis is None
        else:
            assert entry.split_axis == len(entry.shape) - (2 if output else 1), entry


@pytest.mark.parametrize("experts", [FUSED, SEPARATE], ids=["fused", "separate"])
@pytest.mark.parametrize("prefix", ["", "language_model."])
def test_accepts(experts: dict[str, tuple[int, ...]], prefix: str, tmp_path: Path) -> None:
    shapes = {prefix + name: shape for name, shape in names(experts).items()}
    vision = {"vision_model.class_embedding": (7,), "multi_modal_projector.linear_1.weight": (8, 7)}
    write(tmp_path, shapes | (vision if prefix else {}), dtype=np.float16)
    checkpoint = check_checkpoint(tmp_path, ARCHITECTURE)
    assert checkpoint.num_bytes == 2 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert checkpoint.num_ignored == (2 if prefix else 0)
    assert not checkpoint.has_vision
    assert {name: stored.name for name, stored in checkpoint.stored.items()} == {
        name: prefix + name for name in names(experts)
    }


VISION_CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 2,
    "projector_input_dim": 12,
    "projector_output_dim": 12,
    "vision_output_dim": 12,
}
MULTIMODAL_CONFIG = {
    "model_type": "llama4",
    "text_config": CONFIG,
    "vision_config": VISION_CONFIG,
}
MULTIMODAL = Architecture.from_config(MULTIMODAL_CONFIG)
BUFFER = {"vision_model.rotary_embedding.freqs_ci": (17, 2)}


def vision_names() -> dict[str, tuple[int, ...]]:
    """Written out from transformers' modules: H 8, 4 x 4 patches of 3 x 2 x 2, I 32, A 12."""
    model, projector = "vision_model.", "multi_modal_projector.linear_1.weight"
    found: dict[str, tuple[int, ...]] = {
        f"{model}patch_embedding.linear.weight": (8, 12),
        f"{model}class_embedding": (8,),
        f"{model}positional_embedding_vlm": (17, 8),
        f"{model}vision_adapter.mlp.fc1.weight": (12, 32),
        f"{model}vision_adapter.mlp.fc2.weight": (12, 12),
        projector: (8, 12),
    }
    norms = [f"layernorm_{place}" for place in ("pre", "post")]
    for layer in range(2):
        name = f"model.layers.{layer}."
        norms += [f"{name}input_layernorm", f"{name}post_attention_layernorm"]
        for matrix, shape in (
            *((f"self_attn.{letter}_proj", (8, 8)) for letter in "qkvo"),
            ("mlp.fc1", (32, 8)),
            ("mlp.fc2", (8, 32)),
        ):
            found[f"{model}{name}{matrix}.weight"] = shape
            found[f"{model}{name}{matrix}.bias"] = shape[:1]
    for norm in norms:
        found |= {f"{model}{norm}.{kind}": (8,) for kind in ("weight", "bias")}
    return found


def test_vision_names_and_shapes() -> None:
    entries = [entry for entry in parameters(MULTIMODAL) if entry.part == "vision"]
    assert {s.tensor: s.shape for entry in entries for s in entry.sources} == vision_names()
    assert all(entry.name.startswith("vision.") for entry in entries)
    assert all(entry.split_axis is None for entry in entries)
    shapes = {entry.name: entry.shape for entry in entries}
    assert shapes["vision.layers.1.attention.qkv.weight"] == (24, 8)
    assert shapes["vision.layers.1.attention.qkv.bias"] == (24,)
    text = [entry for entry in parameters(MULTIMODAL) if entry.part != "vision"]
    assert tuple(text) == parameters(ARCHITECTURE)


def test_a_multimodal_checkpoint_needs_all_its_tensors(tmp_path: Path) -> None:
    whole = names() | vision_names()
    write(tmp_path, whole | BUFFER)
    checkpoint = check_checkpoint(tmp_path, MULTIMODAL)
    assert checkpoint.has_vision
    assert checkpoint.num_ignored == 0
    assert checkpoint.num_bytes == 4 * sum(int(np.prod(shape)) for shape in whole.values())
    assert set(checkpoint.stored) == set(whole)
    del whole["vision_model.class_embedding"]
    whole["vision_model.layernorm_pre.bias"] = (9,)
    whole["vision_model.model.layers.2.mlp.fc1.bias"] = (32,)
    write(tmp_path, whole)
    message = refusal(tmp_path, MULTIMODAL)
    for part in (
        "vision_model.class_embedding is missing",
        "vision_model.layernorm_pre.bias in model.safetensors has shape [9] instead of [8]",
        "vision_model.model.layers.2.mlp.fc1.bias in model.safetensors is not part of this model",
    ):
        assert part in message


def test_quantized_vision_tensors_are_refused(tmp_path: Path) -> None:
    tensors = {
        name: np.zeros(shape, np.float32) for name, shape in (names() | vision_names()).items()
    }
    tensors["vision_model.class_embedding"] = np.zeros(8, np.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    assert "class_embedding in model.safetensors is I8" in refusal(tmp_path, MULTIMODAL)


def served(directory: Path, config: Mapping[str, object], load_format: LoadFormat) -> Architecture:
    (directory / "config.json").write_text(json.dumps(config))
    return served_architecture(directory, load_format)


@pytest.mark.parametrize("buffer", [{}, BUFFER], ids=["nothing", "buffer"])
def test_text_only_export_that_kept_a_multimodal_configuration(
    buffer: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write(tmp_path, names() | buffer)
    checkpoint = check_checkpoint(tmp_path, MULTIMODAL)
    assert not checkpoint.has_vision
    assert checkpoint.parameters == parameters(ARCHITECTURE)
    assert served(tmp_path, MULTIMODAL_CONFIG, "auto") == ARCHITECTURE
    assert served(tmp_path, MULTIMODAL_CONFIG, "dummy") == MULTIMODAL


def test_what_is_served_follows_configuration_and_files(tmp_path: Path) -> None:
    assert served(tmp_path, CONFIG, "dummy") == ARCHITECTURE
    write(tmp_path, names() | vision_names())
    assert served(tmp_path, MULTIMODAL_CONFIG, "auto") == MULTIMODAL
    assert served(tmp_path, CONFIG, "auto") == ARCHITECTURE
    assert check_checkpoint(tmp_path, ARCHITECTURE).num_ignored == len(vision_names())


def test_ignored_vision_tensors_may_have_any_type(tmp_path: Path) -> None:
    tensors = {name: np.zeros(shape, np.float32) for name, shape in names().items()}
    ints = {"vision_model.class_embedding": np.zeros(3, np.int64)}
    save_file(tensors | ints, tmp_path / "model.safetensors")
    assert check_checkpoint(tmp_path, ARCHITECTURE).num_ignored == 1


def test_tied_embeddings_have_no_head(tmp_path: Path) -> None:
    tied = Architecture.from_config(CONFIG | {"tie_word_embeddings": True})
    shapes = names()
    write(tmp_path, shapes)
    assert "lm_head.weight in model.safetensors is not part" in refusal(tmp_path, tied)
    del shapes["lm_head.weight"]
    write(tmp_path, shapes)
    assert [entry.name for entry in check_checkpoint(tmp_path, tied).parameters] == [
        entry.name for entry in parameters(ARCHITECTURE) if entry.name != "lm_head.weight"
    ]


def test_missing_extra_misshapen_and_mistyped_are_named_together(tmp_path: Path) -> None:
    shapes = names()
    del shapes["model.norm.weight"]
    shapes["model.layers.0.self_attn.q_proj.weight"] = (8, 9)
    shapes["model.layers.1.self_attn.q_norm.weight"] = (8,)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tensors["lm_head.weight"] = np.zeros((11, 8), np.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    for part in (
        "model.norm.weight is missing",
        "model.layers.0.self_attn.q_proj.weight in model.safetensors has shape [8, 9] instead of "
        "[8, 8]",
        "model.layers.1.self_attn.q_norm.weight in model.safetensors is not part of this model",
        "lm_head.weight in model.safetensors is I8; this release reads BF16, F16, F32",
    ):
        assert part in message


def test_experts_in_their_transposed_shape_are_refused(tmp_path: Path) -> None:
    write(tmp_path, names() | {"model.layers.1.feed_forward.experts.down_proj": (3, 8, 5)})
    assert "down_proj in model.safetensors has shape [3, 8, 5] instead of [3, 5, 8]" in refusal(
        tmp_path
    )


def test_long_lists_are_abridged(tmp_path: Path) -> None:
    write(tmp_path, {"model.norm.weight": (8,)})
    message = refusal(tmp_path)
    assert message.count(" is missing") == 5
    assert message.endswith(f"and {len(names()) - 6} more")


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    shapes = names(SEPARATE)
    del shapes["model.layers.1.feed_forward.experts.2.up_proj.weight"]
    write(tmp_path, shapes)
    assert "model.layers.1.feed_forward.experts.2.up_proj.weight is missing" in refusal(tmp_path)


def test_the_same_tensor_with_and_without_prefix(tmp_path: Path) -> None:
    write(tmp_path, names() | {"language_model.model.norm.weight": (8,)})
    message = refusal(tmp_path)
    assert "model.norm.weight and" in message or "and model.norm.weight" in message
    assert "language_model.model.norm.weight" in message


def sharded(directory: Path) -> dict[str, str]:
    """Two shards and their index; returns the index's map."""
    shapes = sorted(names().items())
    weight_map: dict[str, str] = {}
    for i, part in enumerate((shapes[:7], shapes[7:])):
        shard = f"model-{i}.safetensors"
        write(directory, dict(part), shard)
        weight_map |= {name: shard for name, _ in part}
    write_index(directory, weight_map)
    return weight_map


def write_index(directory: Path, weight_map: object) -> None:
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_with_and_without_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    with_index = check_checkpoint(tmp_path, ARCHITECTURE).stored
    (tmp_path / INDEX).unlink()
    assert check_checkpoint(tmp_path, ARCHITECTURE).stored == with_index


def test_missing_shard(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    assert "1 of 2 shards" in refusal(tmp_path)
    assert "model-1.safetensors" in refusal(tmp_path)


def test_tensor_that_is_not_where_the_index_says(tmp_path: Path) -> None:
    weight_map = sharded(tmp_path)
    write_index(tmp_path, weight_map | {"lm_head.weight": "model-1.safetensors"})
    assert "lm_head.weight in model-1.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../model-0.safetensors", "/etc/passwd", "", 7, "..", "pytorch_model.bin", None]
)
def test_index_cannot_leave_the_directory(shard: object, tmp_path: Path) -> None:
    weight_map = sharded(tmp_path)
    write_index(tmp_path, {**weight_map, "lm_head.weight": shard})
    message = refusal(tmp_path)
    assert f"{INDEX}: weight_map.lm_head.weight is {json.dumps(shard)}" in message


def test_damaged_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX).write_text("{")
    assert f"{INDEX} is not valid JSON" in refusal(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    assert f"{INDEX}: weight_map is null" in refusal(tmp_path)


def test_duplicate_tensor_without_index(tmp_path: Path) -> None:
    write(tmp_path, names(), "a.safetensors")
    write(tmp_path, {"lm_head.weight": (11, 8)}, "b.safetensors")
    assert "lm_head.weight is both in a.safetensors and in b.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "x.pth", "m.gguf", None])
def test_other_formats_are_not_read(file: str | None, tmp_path: Path) -> None:
    if file:
        (tmp_path / file).write_bytes(b"\x80\x04.")
    message = refusal(tmp_path)
    assert "Caravan reads safetensors only" in message
    assert f"({file} is not read)" in message or file is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:4],
        lambda raw: raw[:100],
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: b"\xff" * 8 + raw[8:],
        lambda raw: raw[:8] + b"x" + raw[9:],
        lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    ],
    ids=["empty", "short", "cut header", "cut data", "trailing", "length", "json", "lfs pointer"],
)
def test_damaged_file(damage: object, tmp_path: Path) -> None:
    write(tmp_path, names())
    file = tmp_path / "model.safetensors"
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    message = refusal(tmp_path)
    assert str(file) in message
    assert "damaged" in message


def test_headers_suffice(tmp_path: Path) -> None:
    """A Scout-sized checkpoint is a sparse file: had anything been read, it would take minutes."""
    scout = Architecture.from_config({"model_type": "llama4_text"})
    header: dict[str, object] = {}
    position = 0
    for entry in parameters(scout):
        for source in entry.sources:
            end = position + 2 * int(np.prod(source.shape))
            header[source.tensor] = {
                "dtype": "BF16",
                "shape": source.shape,
                "data_offsets": [position, end],
            }
            position = end
    raw = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)
    checkpoint = check_checkpoint(tmp_path, scout)
    # 108.64 billion parameters with the vision tower's 0.87: llama4.md 1.1 and 1.6
    assert checkpoint.num_bytes == pytest.approx(2 * (108.64e9 - 0.87e9), rel=1e-3)
