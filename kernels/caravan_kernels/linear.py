"""Dense projections."""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import devices, reference
from caravan_kernels.cpu import matmul as cpu


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `reference.linear`. On the CPU x is fp32, whatever the weight is."""
    if devices.on_gpu(x):
        from caravan_kernels.gpu import linear as gpu

        return gpu.linear(x, weight)
    return cpu.linear(x, weight)


def swiglu_linear(x: Tensor, gate_up: Tensor) -> Tensor:
    """See `reference.swiglu_linear`."""
    if devices.on_gpu(x):
        from caravan_kernels.gpu import linear as gpu

        return gpu.swiglu_linear(x, gate_up)
    return reference.swiglu(cpu.linear(x, gate_up))
