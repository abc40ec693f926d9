"""Muon for matrices, AdamW for the rest.

Muon (Keller Jordan and others, 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's
momentum by the nearest orthogonal matrix, found by a few Newton-Schulz iterations. PyTorch has one,
which iterates in bfloat16, matrix by matrix; on a CPU that takes longer than the model's own work.
Here matrices of one shape go together, in fp32, and processes that train together share them out.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, from the source above
_ITERATIONS = 5
_DECAY = 0.1  # norms make scores independent of scale: without it, matrices only grow


class Muon(torch.optim.Optimizer):
    """Steps of `lr * sqrt(max(1, rows / columns))`, with Nesterov momentum and weight decay."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is taken
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._step(parameters, group)

    def _step(self, parameters: list[nn.Parameter], group: dict[str, float]) -> None:
        momentum = group["momentum"]
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            moving: Tensor = state["momentum"].lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(moving, momentum))
        rows, columns = parameters[0].shape
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        updates = _shared_out(torch.stack(directions))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-rate)


def _shared_out(stack: Tensor) -> Tensor:
    """`orthogonalized`, each process doing its part of the matrices."""
    if not dist.is_initialized():
        return orthogonalized(stack)
    found = torch.zeros_like(stack)
    part = slice(dist.get_rank(), None, dist.get_world_size())
    if len(stack[part]):
        found[part] = orthogonalized(stack[part])
    dist.all_reduce(found)
    return found


def orthogonalized(stack: Tensor) -> Tensor:
    """[n, rows, columns]: about the nearest matrices whose singular values are all 1."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    found: Tensor = x.transpose(1, 2) if tall else x
    return found


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon at ten times `rate` for hidden matrices; AdamW at `rate` for all else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        outer = ("embed", "lm_head", "router", "patch_embedding")
        is_hidden = parameter.ndim == 2 and not any(word in name for word in outer)
        (matrices if is_hidden else others).append(parameter)
    return [
        Muon(matrices, lr=10 * rate, weight_decay=_DECAY),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
