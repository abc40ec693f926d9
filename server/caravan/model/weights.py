"""Fills the model's parameters: from a checkpoint, or with random numbers.

A checkpoint is streamed file by file and tensor by tensor through the operating system's page
cache straight into the parameters, so host memory holds one expert's matrix more than they take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from caravan.errors import CheckpointError
from caravan.model.architecture import Architecture
from caravan.model.checkpoint_files import ITEMSIZES
from caravan.model.manifest import Checkpoint, check_checkpoint
from caravan.model.shards import Piece, local_shape, pieces

# The largest prime below 2^20: no row length divides it, so tiled rows differ from one another.
_BLOCK_ELEMENTS = 1048573


@torch.no_grad()
def load_weights(
    parameters: Mapping[str, torch.Tensor],
    directory: Path,
    architecture: Architecture,
    progress: Callable[[int, int], None],
    *,
    rank: int = 0,
    size: int = 1,
) -> Checkpoint:
    """Copies a checkpoint into a rank's allocated parameters, converting types as needed.

    `parameters` has the names that `manifest.parameters` lists and the shapes that
    `shards.local_shape` gives, on any device; of the files the rank's part is read. After each
    tensor `progress` gets the bytes read and the bytes in all. Returns what was loaded. Raises
    CheckpointError before the first weight is read if the files do not fit the architecture, and
    later if one cannot be read.
    """
    checkpoint = check_checkpoint(directory, architecture)
    wanted = {entry.name: local_shape(entry, size) for entry in checkpoint.parameters}
    given = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    assert given == wanted, sorted(set(given.items()) ^ set(wanted.items()))[:5]
    by_file: dict[Path, list[tuple[Piece, torch.Tensor]]] = defaultdict(list)
    for entry in checkpoint.parameters:
        for piece in pieces(entry, rank, size):
            target = parameters[entry.name]
            if piece.expert is not None:
                target = target[piece.expert]
            by_file[checkpoint.stored[piece.tensor].file].append((piece, target[piece.target]))
    total = sum(_num_bytes(piece, checkpoint) for copies in by_file.values() for piece, _ in copies)
    done = 0
    for file, copies in by_file.items():
        try:
            with safe_open(file, framework="pt") as handle:
                for piece, target in copies:
                    _copy(handle, checkpoint.stored[piece.tensor].name, piece, target)
                    done += _num_bytes(piece, checkpoint)
                    progress(done, total)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read any more: was it replaced?") from error
    return checkpoint


def _num_bytes(piece: Piece, checkpoint: Checkpoint) -> int:
    return piece.num_elements * ITEMSIZES[checkpoint.stored[piece.tensor].dtype]


def _copy(handle: safe_open, name: str, piece: Piece, target: torch.Tensor) -> None:
    if not piece.transposed:
        mapped = handle.get_tensor(name)  # type: ignore[no-untyped-call]  # not read before it is copied
        target.copy_(mapped[piece.stored])
        return
    stored = handle.get_slice(name)  # type: ignore[no-untyped-call]
    # Torch transposes fast between two whole matrices of one type on one device only.
    scratch = torch.empty_like(target[0].T, memory_format=torch.contiguous_format)
    for expert, matrix in enumerate(target):
        matrix.copy_(scratch.copy_(stored[(expert, *piece.stored[1:])]).T)


@torch.no_grad()
def fill_dummy(parameters: Mapping[str, torch.Tensor], seed: int) -> None:
    """Fills contiguous parameters with random numbers that keep activations of unit scale.

    Biases become zeros and the other vectors, which are nearly all norms, ones; matrices are normal
    with variance 1 / columns. The same `seed` gives the same numbers on every device and every
    tensor-parallel rank, whose parts are then alike. The numbers repeat after 2^20.
    """
    block = torch.randn(_BLOCK_ELEMENTS, generator=torch.Generator().manual_seed(seed))
    scaled: dict[tuple[torch.dtype, torch.device, int], torch.Tensor] = {}
    start = 0
    for name in sorted(parameters):
        tensor = parameters[name]
        if tensor.dim() == 1:
            tensor.fill_(0 if name.endswith(".bias") else 1)
            continue
        columns = tensor.shape[-1]
        key = (tensor.dtype, tensor.device, columns)
        if key not in scaled:
            scaled[key] = (block * columns**-0.5).to(tensor.device, tensor.dtype)
        start = _tile(tensor.view(-1), scaled[key], start)


def _tile(target: torch.Tensor, block: torch.Tensor, start: int) -> int:
    """Repeats `block` over `target`, from its element `start` on; returns where it stopped."""
    position = 0
    while position < len(target):
        count = min(len(block) - start, len(target) - position)
        target[position : position + count] = block[start : start + count]
        position += count
        start = (start + count) % len(block)
    return start
