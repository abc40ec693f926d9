"""The RMS norm of the residual stream, after adding to it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from caravan_kernels import devices, reference


def add_rms_norm(
    x: Tensor, additions: Sequence[Tensor], weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `reference.add_rms_norm`."""
    if devices.on_gpu(x):
        from caravan_kernels.gpu import norm as gpu

        return gpu.add_rms_norm(x, additions, weight, eps)
    return reference.add_rms_norm(x, additions, weight, eps)
