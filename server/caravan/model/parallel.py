"""The tensor-parallel group: which part of each layer this rank holds, and the sums between ranks.

Layers are written for any size. This release starts one rank, for which the collectives are the
identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorParallel:
    """One rank's view of the group."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        assert (self.rank, self.size) == (0, 1), (self.rank, self.size)

    def share(self, total: int) -> int:
        """How many of `total` rows or columns each rank holds."""
        assert total % self.size == 0, (total, self.size)
        return total // self.size

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x."""
        return x

    def all_reduce_terms(self, *terms: Tensor) -> tuple[Tensor, ...]:
        """Tensors whose sum is that of all ranks' terms: one rank leaves the adding to the norm."""
        return terms

    def all_gather(self, x: Tensor) -> Tensor:
        """All ranks' x, joined along the last dimension in order of rank."""
        return x
