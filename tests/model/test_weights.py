"""Loading: every parameter's numbers against transformers' modules, memory, dummy weights."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from caravan.errors import CheckpointError
from caravan.model.architecture import Architecture
from caravan.model.manifest import parameters
from caravan.model.weights import fill_dummy, load_weights
from tiny_llama4 import VARIANTS, VISIONS, load_multimodal_oracle, load_oracle

Weights = dict[str, torch.Tensor]


def empty(
    directory: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Architecture, Weights]:
    """Parameters full of NaN: whatever is not loaded shows."""
    architecture = Architecture.from_directory(directory)
    entries = parameters(architecture)
    return architecture, {
        entry.name: torch.full(entry.shape, math.nan, dtype=dtype, device=device)
        for entry in entries
    }


def load(directory: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Weights:
    architecture, weights = empty(directory, dtype, device)
    load_weights(weights, directory, architecture, lambda done, total: None)
    return weights


def from_oracle(oracle: Any) -> Weights:
    """The same parameters, put together from the modules of transformers' model."""
    found: Weights = {
        "embed_tokens.weight": oracle.model.embed_tokens.weight,
        "norm.weight": oracle.model.norm.weight,
    }
    if not oracle.config.tie_word_embeddings:
        found["lm_head.weight"] = oracle.lm_head.weight
    for i, layer in enumerate(oracle.model.layers):
        name, attention, ffn = f"layers.{i}", layer.self_attn, layer.feed_forward
        found[f"{name}.input_norm.weight"] = layer.input_layernorm.weight
        found[f"{name}.ffn_norm.weight"] = layer.post_attention_layernorm.weight
        found[f"{name}.attention.qkv.weight"] = torch.cat(
            [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        )
        found[f"{name}.attention.out.weight"] = attention.o_proj.weight
        mlp, prefix = ffn, f"{name}.ffn"
        if layer.is_moe_layer:
            mlp, prefix = ffn.shared_expert, f"{name}.ffn.shared"
            found[f"{name}.ffn.router.weight"] = ffn.router.weight
            found[f"{name}.ffn.experts.gate_up"] = ffn.experts.gate_up_proj.transpose(1, 2)
            found[f"{name}.ffn.experts.down"] = ffn.experts.down_proj.transpose(1, 2)
        found[f"{prefix}.gate_up.weight"] = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        found[f"{prefix}.down.weight"] = mlp.down_proj.weight
    return found


def vision_from_oracle(oracle: Any) -> Weights:
    """The vision encoder's, with the projector."""
    vision = oracle.vision_model
    found: Weights = {
        "patch_embedding.weight": vision.patch_embedding.linear.weight,
        "class_embedding": vision.class_embedding,
        "positional_embedding": vision.positional_embedding_vlm,
        "adapter.fc1.weight": vision.vision_adapter.mlp.fc1.weight,
        "adapter.fc2.weight": vision.vision_adapter.mlp.fc2.weight,
        "projector.weight": oracle.multi_modal_projector.linear_1.weight,
    }
    modules = {"norm_pre": vision.layernorm_pre, "norm_post": vision.layernorm_post}
    for i, layer in enumerate(vision.model.layers):
        name, attention = f"layers.{i}.", layer.self_attn
        modules[f"{name}attention_norm"] = layer.input_layernorm
        modules[f"{name}attention.out"] = attention.o_proj
        modules[f"{name}mlp_norm"] = layer.post_attention_layernorm
        modules[f"{name}fc1"], modules[f"{name}fc2"] = layer.mlp.fc1, layer.mlp.fc2
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        found[f"{name}attention.qkv.weight"] = torch.cat([part.weight for part in parts])
        found[f"{name}attention.qkv.bias"] = torch.cat([part.bias for part in parts])
    for name, module in modules.items():
        found |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    return {f"vision.{name}": tensor for name, tensor in found.items()}


def assert_equal(found: Weights, expected: Weights) -> None:
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor.cpu(), expected[name].to(tensor.dtype)), name


@pytest.mark.parametrize("multimodal", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter(
    variant: str, multimodal: bool, tiny_checkpoint: Callable[..., Path]
) -> None:
    directory = tiny_checkpoint(variant, multimodal=multimodal)
    with torch.no_grad():
        expected = from_oracle(load_oracle(directory))
        if multimodal:
            expected |= vision_from_oracle(load_multimodal_oracle(directory))
        assert_equal(load(directory), expected)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_types_are_converted_once(
    stored: torch.dtype,
    wanted: torch.dtype,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    directory = rewrite(tiny_checkpoint("scout"), tmp_path, lambda tensor: tensor.to(stored))
    with torch.no_grad():
        oracle = from_oracle(load_oracle(tiny_checkpoint("scout")))
    assert_equal(
        load(directory, wanted), {name: tensor.to(stored) for name, tensor in oracle.items()}
    )


def rewrite(source: Path, target: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    save_file(
        {name: change(tensor) for name, tensor in tensors.items()}, target / "model.safetensors"
    )
    return target


def test_separate_experts(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """One tensor per expert and matrix, in [out, in], as in files made for quantizing."""
    source = tiny_checkpoint("maverick")
    tensors: Weights = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        prefix, _, last = name.rpartition(".")
        if last not in ("gate_up_proj", "down_proj"):
            tensors[name] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            parts = {"down_proj": matrix}
            if last == "gate_up_proj":
                parts = dict(zip(("gate_proj", "up_proj"), matrix.chunk(2, dim=1), strict=True))
            for part, columns in parts.items():
                tensors[f"{prefix}.{expert}.{part}.weight"] = columns.T.contiguous()
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(load(tmp_path), load(source))


def test_shards(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout", multimodal=True, max_shard_size="100KB")
    assert len(list(directory.glob("*.safetensors"))) > 3
    assert_equal(load(directory), load(tiny_checkpoint("scout", multimodal=True)))


def test_progress_counts_bytes(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout")
    calls: list[tuple[int, int]] = []
    architecture, weights = empty(directory)
    checkpoint = load_weights(
        weights, directory, architecture, lambda done, total: calls.append((done, total))
    )
    total = sum(tensor.nbytes for tensor in weights.values())
    assert checkpoint.num_bytes == total
    assert {total for _, total in calls} == {total}
    done = [done for done, _ in calls]
    assert done == sorted(set(done))
    assert done[-1] == total


def test_nothing_is_read_from_a_checkpoint_that_does_not_fit(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_checkpoint("scout")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    architecture, weights = empty(source)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is missing"):
        load_weights(weights, tmp_path, architecture, lambda done, total: None)
    assert all(tensor.isnan().all() for tensor in weights.values())


def test_file_that_is_replaced_while_it_is_read(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_checkpoint("scout", max_shard_size="100KB")
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    architecture, weights = empty(tmp_path)

    def replace_all(done: int, total: int) -> None:
        for path in tmp_path.glob("*.safetensors"):
            other = tmp_path / "other"
            other.write_bytes(b"no safetensors")
            other.rename(path)

    with pytest.raises(CheckpointError, match="cannot be read any more"):
        load_weights(weights, tmp_path, architecture, replace_all)


def test_wrong_parameters_are_our_bug(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout")
    architecture, weights = empty(directory)
    weights["norm.weight"] = weights["norm.weight"][:-1]
    with pytest.raises(AssertionError, match=r"norm\.weight"):
        load_weights(weights, directory, architecture, lambda done, total: None)


@pytest.mark.gpu
def test_loading_to_a_gpu(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout")
    assert_equal(
        load(directory, torch.bfloat16, "cuda"),
        {name: tensor.bfloat16() for name, tensor in load(directory).items()},
    )


LARGE: dict[str, Any] = {
    "model_type": "llama4_text",
    "vocab_size": 64,
    "hidden_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "num_local_experts": 16,
}
MEASURE = """
import sys, threading
from pathlib import Path
import torch
from caravan.model.architecture import Architecture
from caravan.model.manifest import parameters
from caravan.model.weights import load_weights

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    while not stop.wait(0.001):
        samples.append(anonymous_bytes())

directory = Path(sys.argv[1])
architecture = Architecture.from_directory(directory)
weights = {p.name: torch.ones(p.shape, dtype=torch.bfloat16) for p in parameters(architecture)}
samples, stop = [anonymous_bytes()], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
load_weights(weights, directory, architecture, lambda *_: samples.append(anonymous_bytes()))
stop.set()
watcher.join()
print(max(samples) - samples[0], len(samples))
"""


def test_memory_beside_the_parameters_is_one_matrix(tmp_path: Path) -> None:
    """An fp32 file of 500 MB into bf16 parameters, with every expert converted and transposed."""
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    write_zeros(tmp_path / "model.safetensors", Architecture.from_directory(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, num_samples = map(int, done.stdout.split())
    assert num_samples > 100
    matrix, all_experts = 1024 * 2 * 1024 * 2, 16 * 1024 * 2 * 1024 * 2
    assert matrix <= grown < all_experts // 2


def write_zeros(path: Path, architecture: Architecture) -> None:
    """A sparse fp32 checkpoint: it takes no disk space."""
    header: dict[str, Any] = {}
    position = 0
    for entry in parameters(architecture):
        for source in entry.sources:
            end = position + 4 * math.prod(source.shape)
            offsets = [position, end]
            header[source.tensor] = {"dtype": "F32", "shape": source.shape, "data_offsets": offsets}
            position = end
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)


def dummy(seed: int, dtype: torch.dtype = torch.float32) -> Weights:
    text = LARGE | {"hidden_size": 256, "num_local_experts": 3}
    config = {"model_type": "llama4", "text_config": text, "vision_config": VISIONS["odd"]}
    architecture = Architecture.from_config(config)
    weights = {
        entry.name: torch.full(entry.shape, math.nan, dtype=dtype)
        for entry in parameters(architecture)
    }
    fill_dummy(weights, seed)
    return weights


def test_dummy_weights_have_unit_gain() -> None:
    for name, tensor in dummy(0).items():
        if tensor.dim() == 1:
            assert (tensor == (0 if name.endswith(".bias") else 1)).all(), name
        else:
            normal = tensor * tensor.shape[-1] ** 0.5
            tolerance = 4 * normal.numel() ** -0.5
            assert normal.mean().item() == pytest.approx(0, abs=tolerance), name
            assert normal.std().item() == pytest.approx(1, abs=tolerance), name


def test_dummy_weights_have_no_equal_rows() -> None:
    """Equal rows would be equal experts, or tokens that always have the same logit."""
    for name, tensor in dummy(0).items():
        if tensor.dim() > 1:
            rows = tensor.reshape(-1, tensor.shape[-1])
            assert len(torch.unique(rows[:, :4], dim=0)) == len(rows), name


def test_dummy_weights_follow_the_seed() -> None:
    first, again, other = dummy(1), dummy(1), dummy(2)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert tensor.dim() == 1 or not torch.equal(tensor, other[name]), name
    rounded = dummy(1, torch.bfloat16)
    assert all(torch.equal(rounded[name], first[name].bfloat16()) for name in first)
