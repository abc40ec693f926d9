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
from caravan.model.checkpoint_files import StoredTensor
from caravan.model.manifest import Checkpoint, check_checkpoint
from caravan.model.parameters import Source

# The largest prime below 2^20: no row length divides it, so tiled rows differ from one another.
_BLOCK_ELEMENTS = 1048573


@torch.no_grad()
def load_weights(
    parameters: Mapping[str, torch.Tensor],
    directory: Path,
    architecture: Architecture,
    progress: Callable[[int, int], None],
) -> Checkpoint:
    """Copies a checkpoint into allocated parameters, converting types as needed.

    `parameters` has the names and shapes that `manifest.parameters` lists, on any device. After
    each tensor `progress` gets the bytes read and the bytes in all. Returns what was loaded.
    Raises CheckpointError before the first weight is read if the files do not fit the
    architecture, and later if one cannot be read.
    """
    checkpoint = check_checkpoint(directory, architecture)
    wanted = {entry.name: entry.shape for entry in checkpoint.parameters}
    given = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    assert given == wanted, sorted(set(given.items()) ^ set(wanted.items()))[:5]
    by_file: dict[Path, list[tuple[Source, torch.Tensor]]] = defaultdict(list)
    for entry in checkpoint.parameters:
        for source in entry.sources:
            target = parameters[entry.name]
            if source.expert is not None:
                target = target[source.expert]
            by_file[checkpoint.stored[source.tensor].file].append((source, target[source.rows]))
    done_bytes = 0
    for file, copies in by_file.items():
        try:
            with safe_open(file, framework="pt") as handle:
                for source, target in copies:
                    stored = checkpoint.stored[source.tensor]
                    _copy(handle, stored, target, transposed=source.transposed)
                    done_bytes += stored.num_bytes
                    progress(done_bytes, checkpoint.num_bytes)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read any more: was it replaced?") from error
    return checkpoint


def _copy(
    handle: safe_open, stored: StoredTensor, target: torch.Tensor, *, transposed: bool
) -> None:
    if not transposed:
        target.copy_(handle.get_tensor(stored.name))  # type: ignore[no-untyped-call]
        return
    experts = handle.get_slice(stored.name)  # type: ignore[no-untyped-call]
    # Torch transposes fast between two whole matrices of one type on one device only.
    scratch = torch.empty_like(target[0].T, memory_format=torch.contiguous_format)
    for expert, matrix in enumerate(target):
        matrix.copy_(scratch.copy_(experts[expert]).T)


@torch.no_grad()
def fill_dummy(parameters: Mapping[str, torch.Tensor], seed: int) -> None:
    """Fills contiguous parameters with random numbers that keep activations of unit scale.

    Biases become zeros and the other vectors, which are nearly all norms, ones; matrices are normal
    with variance 1 / columns. The same `seed` gives the same numbers on every device. The numbers
    repeat after 2^20.
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
