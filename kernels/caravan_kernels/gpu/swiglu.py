"""SwiGLU of a finished gate-up projection.

    y = silu(gate) * up

Shapes    gate_up [T, 2I], gate in the first half -> y [T, I] in its dtype
Numerics  fp32 inside
Grid      T x blocks of I
Traffic   3 * T * I * itemsize bytes
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.tuning import launch_parameters


@triton.jit
def _swiglu_kernel(gate_up_ptr, y_ptr, stride, width, BLOCK_I: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    gate_I = tl.load(gate_up_ptr + row * stride + i, mask=i < width).to(tl.float32)
    up_I = tl.load(gate_up_ptr + row * stride + width + i, mask=i < width).to(tl.float32)
    y_I = gate_I * tl.sigmoid(gate_I) * up_I
    tl.store(y_ptr + row * width + i, y_I.to(y_ptr.dtype.element_ty), mask=i < width)


def swiglu(gate_up: Tensor) -> Tensor:
    """See `reference.swiglu`. Rows may be strided."""
    num_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    assert gate_up.stride(1) == 1
    y = gate_up.new_empty(num_tokens, width)
    launch = launch_parameters("swiglu", outputs=width)
    grid = (num_tokens, triton.cdiv(width, launch["BLOCK_I"]))
    _swiglu_kernel[grid](gate_up, y, gate_up.stride(0), width, **launch)
    return y
