"""Each rank has its part of every parameter, and reads no more of the files than that."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from caravan.model import weights
from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint
from caravan.model.manifest import parameters
from caravan.model.parameters import Parameter
from caravan.model.shards import local_shape

SPLITTABLE = {"vocab_size": 280, "num_key_value_heads": 4}
ITEMSIZE = 4  # bytes: the tiny checkpoints are fp32

Weights = dict[str, torch.Tensor]


def unfused(directory: Path, target: Path) -> Path:
    """The checkpoint with three tensors for each expert instead of two for all."""
    tensors: Weights = {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        prefix, _, last = name.rpartition(".experts.")
        for expert, matrix in enumerate(tensor if prefix else ()):
            parts = {"down_proj": matrix.T}
            if last == "gate_up_proj":
                gate, up = matrix.T.chunk(2)
                parts = {"gate_proj": gate, "up_proj": up}
            for part, value in parts.items():
                tensors[f"{prefix}.experts.{expert}.{part}.weight"] = value.contiguous()
        if not prefix:
            tensors[name] = tensor
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_bytes((directory / "config.json").read_bytes())
    return target


def load(directory: Path, rank: int = 0, size: int = 1) -> Weights:
    architecture = Architecture.from_directory(directory)
    found = {
        entry.name: torch.full(local_shape(entry, size), math.nan)
        for entry in parameters(architecture)
    }
    weights.load_weights(
        found, directory, architecture, lambda done, total: None, rank=rank, size=size
    )
    return found


def expected(entry: Parameter, whole: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """By hand: the matrices that lie one behind the other are divided one by one."""
    if entry.split_axis is None:
        return whole
    heights = [source.shape[0] for source in entry.sources if source.expert in (None, 0)]
    if ".experts.gate_up" in entry.name:
        heights = [whole.shape[1] // 2] * 2
    elif entry.split_axis != 0:
        heights = [whole.shape[entry.split_axis]]
    matrices = whole.split(heights, dim=entry.split_axis)
    return torch.cat([m.chunk(size, entry.split_axis)[rank] for m in matrices], entry.split_axis)


@pytest.fixture(params=["fused", "one by one"])
def directory(
    request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> Path:
    found = tiny_checkpoint("maverick", multimodal=True, num_local_experts=6, **SPLITTABLE)
    return found if request.param == "fused" else unfused(found, tmp_path)


@pytest.mark.parametrize("size", [2, 4])
def test_every_parameter(directory: Path, size: int) -> None:
    entries = parameters(Architecture.from_directory(directory))
    whole = load(directory)
    for rank in range(size):
        for name, part in load(directory, rank, size).items():
            (entry,) = (entry for entry in entries if entry.name == name)
            assert torch.equal(part, expected(entry, whole[name], rank, size)), (name, rank)


class Spied:
    """A file of a checkpoint that counts what is taken out of it."""

    read_bytes = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._file = open_file(*arguments, **options)

    def __enter__(self) -> Spied:
        self._handle = self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def get_tensor(self, name: str) -> Counted:
        return Counted(self._handle.get_tensor(name))

    def get_slice(self, name: str) -> Counted:
        return Counted(self._handle.get_slice(name))


class Counted:
    def __init__(self, stored: Any) -> None:
        self._stored = stored

    def __getitem__(self, index: Any) -> torch.Tensor:
        part: torch.Tensor = self._stored[index]
        Spied.read_bytes += part.nbytes
        return part


open_file: Any = safetensors.safe_open


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_rank_reads_its_part_only(
    directory: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "safe_open", Spied)
    architecture = Architecture.from_directory(directory)
    size_on_rank = footprint(architecture, dtype="float32", block_len=4, tp_size=size)
    for rank in range(size):
        Spied.read_bytes = 0
        load(directory, rank, size)
        assert Spied.read_bytes == size_on_rank.total_weight_bytes
    split = sum(e.num_elements() for e in parameters(architecture) if e.split_axis is not None)
    replicated = size_on_rank.total_parameters - split
    assert size_on_rank.total_weight_bytes == ITEMSIZE * (replicated + split // size)
