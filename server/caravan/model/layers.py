"""Embedding, projections and norms, each holding this rank's share of the weight.

Weights are [out, in], as the manifest says; activations are [T, features]. `Linear` and `LayerNorm`
are the vision encoder's, which every rank has whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.parallel import TensorParallel


def parameter(*shape: int) -> nn.Parameter:
    """Memory for a weight, in torch's default dtype and device; the loader fills it."""
    return nn.Parameter(torch.empty(shape), requires_grad=False)


class ColumnParallel(nn.Module):
    """x [T, in] -> [T, out / size]: each rank computes its share of the outputs."""

    def __init__(self, inputs: int, outputs: int, group: TensorParallel) -> None:
        super().__init__()
        self.weight = parameter(group.share(outputs), inputs)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight)


class RowParallel(nn.Module):
    """x [T, in / size] -> [T, out], a partial sum: the caller adds up the ranks."""

    def __init__(self, inputs: int, outputs: int, group: TensorParallel) -> None:
        super().__init__()
        self.weight = parameter(outputs, group.share(inputs))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight)


class Embedding(nn.Module):
    """ids [T] -> [T, hidden]: each rank holds a share of the vocabulary, the others' rows are 0."""

    def __init__(self, vocab_size: int, hidden_size: int, group: TensorParallel) -> None:
        super().__init__()
        self.group = group
        self.weight = parameter(group.share(vocab_size), hidden_size)

    def forward(self, ids_T: Tensor) -> Tensor:
        if self.group.size == 1:
            return self.weight[ids_T]
        local = ids_T - self.group.rank * len(self.weight)
        held = (local >= 0) & (local < len(self.weight))
        rows = self.weight[local.where(held, 0)] * held[:, None]
        return self.group.all_reduce(rows)


class RMSNorm(nn.Module):
    """x plus terms, and the RMS norm of that over the hidden dimension, the same on every rank."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = parameter(hidden_size)

    def forward(self, x: Tensor, terms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return kernels.add_rms_norm(x, terms, self.weight, self.eps)


class Linear(nn.Module):
    """x [T, in] -> [T, out], the same on every rank."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = parameter(outputs, inputs)
        self.bias = parameter(outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = kernels.linear(x, self.weight)
        return y if self.bias is None else y.add_(self.bias)


class LayerNorm(nn.Module):
    """Layer norm over the hidden dimension, the same on every rank."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = parameter(hidden_size)
        self.bias = parameter(hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.type_as(x), self.bias.type_as(x)
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)
