"""Top-1 mixture of experts: only the experts that were hit are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from caravan_kernels import reference
from caravan_kernels.cpu import matmul as cpu
from caravan_kernels.cpu.dispatch import sorted_by_expert


def moe_experts(
    x: Tensor, expert: Tensor, score: Tensor, gate_up_EJH: Tensor, down_EHI: Tensor
) -> Tensor:
    """See `reference.moe_experts`. Top-1 makes the dispatch a permutation of the tokens."""
    if x.device.type != "cpu":
        return reference.moe_experts(x, expert, score, gate_up_EJH, down_EHI)
    scaled, order, experts, starts = sorted_by_expert(x, expert, score, len(gate_up_EJH))
    hidden = reference.swiglu(cpu.grouped_linear(scaled, gate_up_EJH, experts, starts))
    out = torch.empty_like(x)
    out[order] = cpu.grouped_linear(hidden, down_EHI, experts, starts)
    return out
