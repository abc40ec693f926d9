"""Feed-forward layers: a dense SwiGLU, or top-1 routed experts beside a shared one.

Their results are terms of a sum, which the next norm adds to the residual stream.
"""

from __future__ import annotations

from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.architecture import Architecture
from caravan.model.layers import ColumnParallel, RowParallel, parameter
from caravan.model.parallel import TensorParallel
from caravan.model.side_stream import SideStream


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): [T, hidden] -> [T, hidden], a partial sum."""

    def __init__(self, hidden_size: int, width: int, group: TensorParallel) -> None:
        super().__init__()
        self.gate_up = ColumnParallel(hidden_size, 2 * width, group)
        self.down = RowParallel(width, hidden_size, group)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down(kernels.swiglu_linear(x, self.gate_up.weight))
        return down


class Dense(SwiGLU):
    """A dense feed-forward layer: one term."""

    def __init__(self, architecture: Architecture, group: TensorParallel) -> None:
        super().__init__(architecture.hidden_size, architecture.dense_intermediate_size, group)
        self.group = group

    def forward(  # type: ignore[override]  # terms, as of every feed-forward layer
        self, x: Tensor, num_rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.group.all_reduce_terms(super().forward(x))


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
    """shared(x) + expert(score * x) as terms, [T, hidden] each; one sum over the ranks."""

    def __init__(self, architecture: Architecture, group: TensorParallel, side: SideStream) -> None:
        super().__init__()
        a = architecture
        self.group = group
        self.side = side
        self.router = Router(a)
        self.experts = Experts(a, group)
        self.shared = SwiGLU(a.hidden_size, a.expert_intermediate_size, group)

    def forward(self, x: Tensor, num_rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Rows from `num_rows` on are padding."""
        with self.side.beside(len(x)):
            shared = self.shared(x)
        routed = kernels.moe_experts(
            x, self.router(x), self.experts.gate_up, self.experts.down, num_rows
        )
        self.side.join(len(x))
        return self.group.all_reduce_terms(shared, routed)
