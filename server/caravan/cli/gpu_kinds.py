"""GPUs that nobody needs to have: what a model would take on them, and how fast a step could be.

A step's time is a floor: nothing is faster than its reads and its arithmetic, one after the other
with the sums over the ranks. A good engine takes some 1.2 to 1.6 times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caravan.model.architecture import Architecture
from caravan.model.decode_floor import decode_bytes, decode_flops
from caravan.model.footprint import Footprint

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One card of a kind."""

    memory_bytes: float  # that PyTorch sees
    bytes_per_s: float  # of its memory
    flops_per_s: float  # bfloat16, dense
    link_bytes_per_s: float  # to the others, in one direction
    all_reduce_s: float  # of a few bytes, inside a graph


# H200: measured copy and matmul rates, and the best public all-reduce of 8 ranks. The others: data
# sheets, the A100 with the share of its bandwidth that copies reach.
GPUS: Mapping[str, Gpu] = {
    "h200": Gpu(
        memory_bytes=139.8 * GIB,
        bytes_per_s=4.30e12,
        flops_per_s=7.88e14,
        link_bytes_per_s=4.5e11,
        all_reduce_s=3.5e-6,
    ),
    "h100": Gpu(
        memory_bytes=79.1 * GIB,
        bytes_per_s=3.35e12,
        flops_per_s=9.89e14,
        link_bytes_per_s=4.5e11,
        all_reduce_s=3.5e-6,
    ),
    "a100": Gpu(
        memory_bytes=79.1 * GIB,
        bytes_per_s=2.04e12,
        flops_per_s=3.12e14,
        link_bytes_per_s=3e11,
        all_reduce_s=6e-6,
    ),
    "b200": Gpu(
        memory_bytes=178 * GIB,
        bytes_per_s=8.00e12,
        flops_per_s=2.25e15,
        link_bytes_per_s=9e11,
        all_reduce_s=3.5e-6,
    ),
}


def all_reduce_s(gpu: Gpu, num_bytes: float, size: int) -> float:
    """One sum over `size` ranks: a latency, and each rank's share of the wire time of a ring."""
    if size == 1:
        return 0.0
    return gpu.all_reduce_s + 2 * (size - 1) / size * num_bytes / gpu.link_bytes_per_s


def decode_step_s(
    gpu: Gpu, size: Footprint, architecture: Architecture, contexts: Sequence[int], tp_size: int
) -> float:
    """The least time of a step with one token of each request; `contexts` counts their tokens."""
    rows = len(contexts)
    reads = decode_bytes(size, architecture, contexts) / gpu.bytes_per_s
    arithmetic = decode_flops(architecture, contexts) / tp_size / gpu.flops_per_s
    row_bytes = architecture.hidden_size * size.itemsize
    sums = 2 * architecture.num_layers * all_reduce_s(gpu, rows * row_bytes, tp_size)
    return max(reads, arithmetic) + sums
