"""Which implementation a tensor's device means."""

from __future__ import annotations

from torch import Tensor


def on_gpu(x: Tensor) -> bool:
    """Whether x is computed on by Triton kernels. Tests replace this to interpret them."""
    return x.is_cuda
