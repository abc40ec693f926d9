"""RMS norm of rows, with the residual's addition in the same launch.

    s = x + a + b           (in fp32, rounded once to x's dtype; a and b may be missing)
    y = s / sqrt(mean(s^2) + eps), rounded to x's dtype, times weight

Shapes    T rows, N columns: x, a, b [T, N], weight [N] -> s, y [T, N]
Numerics  fp32 inside, and the two roundings of `reference.rms_norm`
Grid      (T,): a program holds its row in registers, padded to a power of two; what lies beyond N
          is neither read nor written
Traffic   T * N * elements of (x + a + b + s + y) once, and the weight from the L2 cache: 2 of them
          without additions, 4 with one. Hidden 5120 in bf16 and 8192 rows: 168 MB, 39 us at
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


@triton.jit
def _add_rms_norm(
    x_ptr,
    first_ptr,  # None: nothing is added, and sum_ptr is None too
    second_ptr,  # None: at most one addition
    weight_ptr,
    sum_ptr,
    out_ptr,
    x_stride,
    first_stride,
    second_stride,
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
    if first_ptr is not None:
        first = tl.load(first_ptr + row * first_stride + column, mask=inside, other=0.0)
        wide += first.to(tl.float32)
        if second_ptr is not None:
            second = tl.load(second_ptr + row * second_stride + column, mask=inside, other=0.0)
            wide += second.to(tl.float32)
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
    assert len(additions) <= 2, len(additions)
    assert all(a.shape == x.shape and a.dtype == x.dtype for a in additions), additions
    assert all(a.stride(1) == 1 for a in (x, *additions)), [a.stride() for a in (x, *additions)]
    rows, columns = x.shape
    normed = x.new_empty(rows, columns)
    total = x.new_empty(rows, columns) if additions else x
    first, second = (*additions, None, None)[:2]
    _add_rms_norm[(rows,)](
        x,
        first,
        second,
        weight,
        total if additions else None,
        normed,
        x.stride(0),
        first.stride(0) if first is not None else 0,
        second.stride(0) if second is not None else 0,
        columns,
        eps,
        BLOCK=triton.next_power_of_2(columns),
        **launch_parameters("rms_norm", columns=columns),
    )
    return total, normed
