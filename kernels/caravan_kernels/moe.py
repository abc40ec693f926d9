"""Top-1 mixture of experts: only the experts that were hit are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from caravan_kernels import devices, reference
from caravan_kernels.cpu import matmul as cpu
from caravan_kernels.cpu.dispatch import sorted_by_expert


def moe_experts(
    x: Tensor,
    logits_TE: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    num_rows: Tensor | None = None,
) -> Tensor:
    """See `reference.moe_experts`. Top-1 makes the dispatch a permutation of the tokens."""
    if devices.on_gpu(x):
        from caravan_kernels.gpu import experts as gpu

        return gpu.moe_experts(x, logits_TE, gate_up_EJH, down_EHI, num_rows)
    expert, score = reference.moe_route(reference.route_padding(logits_TE, num_rows))
    scaled, order, experts, starts = sorted_by_expert(x, expert, score, len(gate_up_EJH))
    hidden = reference.swiglu(cpu.grouped_linear(scaled, gate_up_EJH, experts, starts))
    out = torch.empty_like(x)
    out[order] = cpu.grouped_linear(hidden, down_EHI, experts, starts)
    return out
