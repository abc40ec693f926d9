"""The safetensors files of a model directory, and what their headers say. Reads no weight.

model.safetensors                     one file
model.safetensors.index.json          says which tensor is in which *.safetensors
otherwise                             every *.safetensors in the directory
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from caravan.errors import CheckpointError
from caravan.model.fields import Section, read_object

INDEX = "model.safetensors.index.json"
ITEMSIZES = {"BF16": 2, "F16": 2, "F32": 4}  # bytes, of the types that can be loaded


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor as a file's header describes it."""

    name: str
    file: Path
    dtype: str  # safetensors' name: "BF16", "F8_E4M3", ...
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its bytes in the file; 0 for a type that cannot be loaded."""
        return math.prod(self.shape) * ITEMSIZES.get(self.dtype, 0)


def read_headers(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint by name.

    Raises CheckpointError, with the file, if there are no safetensors files, one is damaged or
    missing, or a tensor is not where the index says, or in two files.
    """
    single, index = directory / "model.safetensors", directory / INDEX
    if single.exists():
        return {tensor.name: tensor for tensor in _tensors(single)}
    if index.exists():
        return _read_indexed(directory, index)
    found: dict[str, StoredTensor] = {}
    for file in _safetensors_files(directory):
        for tensor in _tensors(file):
            if tensor.name in found:
                raise CheckpointError(
                    f"{directory}: {tensor.name} is both in {found[tensor.name].file.name} and in "
                    f"{file.name}; remove the file that does not belong here"
                )
            found[tensor.name] = tensor
    return found


def _safetensors_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    other = sorted(
        file.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf", "*.ckpt")
        for file in directory.glob(pattern)
    )
    besides = f" ({other[0]} is not read)" if other else ""
    raise CheckpointError(
        f"{directory} has no *.safetensors files{besides}; Caravan reads safetensors only"
    )


def _read_indexed(directory: Path, index: Path) -> dict[str, StoredTensor]:
    section = Section(read_object(index), f"{index}: ").section("weight_map")
    shard_of: dict[str, str] = {}
    for name, shard in section.values.items():
        if not (
            isinstance(shard, str) and Path(shard).name == shard and shard.endswith(".safetensors")
        ):
            raise section.refuse(name, "it must be the name of a *.safetensors file beside it")
        shard_of[name] = shard
    shards = sorted(set(shard_of.values()))
    absent = [shard for shard in shards if not (directory / shard).exists()]
    if absent:
        raise CheckpointError(
            f"{directory}: {len(absent)} of {len(shards)} shards that {INDEX} names are missing: "
            f"{abridged(absent)}; download them"
        )
    found = {
        tensor.name: tensor
        for shard in shards
        for tensor in _tensors(directory / shard)
        if shard_of.get(tensor.name, shard) == shard
    }
    misplaced = [
        f"{name} in {shard}" for name, shard in sorted(shard_of.items()) if name not in found
    ]
    if misplaced:
        raise CheckpointError(
            f"{directory}: {INDEX} names tensors that are not there: {abridged(misplaced)}; "
            "the index and the shards do not belong together"
        )
    return found


def _tensors(file: Path) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="numpy") as handle:
            for name in handle.keys():  # noqa: SIM118 (a handle is no mapping)
                part = handle.get_slice(name)
                yield StoredTensor(
                    name=name, file=file, dtype=part.get_dtype(), shape=tuple(part.get_shape())
                )
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is damaged or incomplete; download it again (in a git clone: git lfs pull)"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error


def abridged(items: list[str], most: int = 5) -> str:
    """The first items, and how many more there are.

    >>> abridged(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
