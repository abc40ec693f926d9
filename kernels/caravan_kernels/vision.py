"""Attention of the vision encoder: every position of a tile sees the whole tile."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from caravan_kernels import devices


def vision_attention(q_NPHD: Tensor, k_NPHD: Tensor, v_NPHD: Tensor) -> Tensor:
    """See `reference.vision_attention`. On the CPU, PyTorch's fused attention."""
    if devices.on_gpu(q_NPHD):
        from caravan_kernels.gpu import vision_attention as gpu

        return gpu.vision_attention(q_NPHD, k_NPHD, v_NPHD)
    q, k, v = (x.transpose(1, 2) for x in (q_NPHD, k_NPHD, v_NPHD))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
