"""Feed-forward layers: a dense SwiGLU, or top-1 routed experts beside a shared one."""

from __future__ import annotations

from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.architecture import Architecture
from caravan.model.layers import ColumnParallel, RowParallel, parameter
from caravan.model.parallel import TensorParallel


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): [T, hidden] -> [T, hidden], a partial sum."""

    def __init__(self, hidden_size: int, width: int, group: TensorParallel) -> None:
        super().__init__()
        self.gate_up = ColumnParallel(hidden_size, 2 * width, group)
        self.down = RowParallel(width, hidden_size, group)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down(kernels.swiglu(self.gate_up(x)))
        return down


class Dense(SwiGLU):
    """A dense feed-forward layer."""

    def __init__(self, architecture: Architecture, group: TensorParallel) -> None:
        super().__init__(architecture.hidden_size, architecture.dense_intermediate_size, group)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return self.group.all_reduce(super().forward(x))


class Experts(nn.Module):
    """The routed experts' weights, all in two tensors."""

    def __init__(self, architecture: Architecture, group: TensorParallel) -> None:
        super().__init__()
        a = architecture
        width = group.share(a.expert_intermediate_size)
        self.gate_up = parameter(a.num_experts, 2 * width, a.hidden_size)
        self.down = parameter(a.num_experts, a.hidden_size, width)


class Router(nn.Module):
    """x [T, hidden] -> logits [T, experts], the same on every rank."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.weight = parameter(architecture.num_experts, architecture.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight)


class MixtureOfExperts(nn.Module):
    """shared(x) + expert(score * x): [T, hidden] -> [T, hidden]; one sum over the ranks."""

    def __init__(self, architecture: Architecture, group: TensorParallel) -> None:
        super().__init__()
        a = architecture
        self.group = group
        self.router = Router(a)
        self.experts = Experts(a, group)
        self.shared = SwiGLU(a.hidden_size, a.expert_intermediate_size, group)

    def forward(self, x: Tensor) -> Tensor:
        expert, score = kernels.moe_route(self.router(x))
        routed = kernels.moe_experts(x, expert, score, self.experts.gate_up, self.experts.down)
        return self.group.all_reduce(self.shared(x) + routed)
