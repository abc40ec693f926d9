"""RMS norm of rows, with the residual's addition in the same launch.

    s = x + a + b + ...     (in fp32, rounded once to x's dtype; nothing may be added)
    y = s / sqrt(mean(s^2) + eps), rounded to x's dtype, times weight

Shapes    T rows, N columns: x and what is added [T, N], weight [N] -> s, y [T, N]. Tensor-parallel
          ranks add what all of them computed, read from the others' memory: up to 8 additions
Numerics  fp32 inside, and the two roundings of `reference.rms_norm`
Grid      (T,): a program holds its row in registers, padded to a power of two; what lies beyond N
          is neither read nor written
Traffic   T * N * elements of (x + additions + s + y) once, and the weight from the L2 cache: 2 of
          them without additions, 4 with one. Hidden 5120 in bf16 and 8192 rows: 168 MB, 39 us at
          4.3 TB/s; a single row is the latency of one read

A row of 5120 halves is 10 KB: 256 threads read it as 16 bytes each, two and a half times, all in
flight before the first sum; four such programs fit a processor, which keep 40 KB coming. The launch
depends on N alone, so a row's sum has the same order in every batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.tuning import launch_parameters

MOST_ADDITIONS = 8


@triton.jit
def _add_rms_norm(
    x_ptr,
    addition_ptrs,  # a tuple; sum_ptr is None where it is empty
    addition_strides,
    weight_ptr,
    sum_ptr,
    out_ptr,
    x_stride,
    num_columns,
    eps,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < num_columns
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0)
    wide = x.to(tl.float32)
    for i in tl.static_range(len(addition_ptrs)):
        place = addition_ptrs[i] + row * addition_strides[i] + column
        wide += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    if sum_ptr is not None:
        rounded = wide.to(x.dtype)
        tl.store(sum_ptr + row * num_columns + column, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / num_columns + eps)
    normed = (wide * scale).to(x.dtype).to(tl.float32)
    scaled = normed * weight.to(x.dtype).to(tl.float32)
    tl.store(out_ptr + row * num_columns + column, scaled.to(x.dtype), mask=inside)


def add_rms_norm(
    x: Tensor, additions: Sequence[Tensor], weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """As `reference.add_rms_norm`, x itself without additions; x [T, N], rows by any stride."""
    assert x.dim() == 2, x.shape
    assert len(additions) <= MOST_ADDITIONS, len(additions)
    assert all(a.shape == x.shape and a.dtype == x.dtype for a in additions), additions
    assert all(a.stride(1) == 1 for a in (x, *additions)), [a.stride() for a in (x, *additions)]
    rows, columns = x.shape
    normed = x.new_empty(rows, columns)
    total = x.new_empty(rows, columns) if additions else x
    _add_rms_norm[(rows,)](
        x,
        tuple(additions),
        tuple(addition.stride(0) for addition in additions),
        weight,
        total if additions else None,
        normed,
        x.stride(0),
        columns,
        eps,
        BLOCK=triton.next_power_of_2(columns),
        **launch_parameters("rms_norm", columns=columns),
    )
    return total, normed
