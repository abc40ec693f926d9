"""Sums over tensor-parallel ranks that the next norm adds up, straight from the others' memory.

A ring's all-reduce passes each message on size - 1 times. A decode step's messages are so small
(10 KB a token in Scout) that this latency is all they cost. Here every rank writes its part where
the others can read it, all meet once, and the norm that follows reads all parts: one exchange
instead of many, and no launch for the sum. All ranks add in the same order, so they agree exactly.

Two memories take turns. Who writes to one of them has met the others since they read it: between
two uses of a memory lies the meeting for the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

MOST_BYTES = 512 << 10  # above, each rank reading all parts costs more than a ring does


class PeerMemory(Protocol):
    """Memory of each rank that all of them can read."""

    def part(self, rank: int, shape: torch.Size) -> Tensor:
        """The first elements of a rank's memory."""

    def meet(self) -> None:
        """Waits, on the device, until all ranks have come here."""


class OneShotSum:
    """One rank's end of the exchange. Every forward pass makes an even number of sums."""

    def __init__(self, rank: int, size: int, memories: Sequence[PeerMemory]) -> None:
        assert len(memories) == 2, memories
        self._rank = rank
        self._size = size
        self._memories = memories
        self._turn = 0

    def fits(self, x: Tensor) -> bool:
        """Whether the memories hold x."""
        return x.nbytes <= MOST_BYTES

    def terms(self, x: Tensor) -> tuple[Tensor, ...]:
        """All ranks' x, valid until the sum after the next; to be read in the stream's order."""
        memory = self._memories[self._turn]
        self._turn = 1 - self._turn
        memory.part(self._rank, x.shape).copy_(x)
        memory.meet()
        return tuple(memory.part(rank, x.shape) for rank in range(self._size))


class SymmetricMemory:
    """A PeerMemory of GPUs of one machine, through PyTorch's symmetric memory."""

    def __init__(self, dtype: torch.dtype, device: torch.device, group: dist.ProcessGroup) -> None:
        """All ranks do this together. Raises RuntimeError where it cannot be had."""
        import torch.distributed._symmetric_memory as symmetric  # has no public name yet

        elements = MOST_BYTES // dtype.itemsize
        self._dtype = dtype
        self._memory: Tensor = symmetric.empty(elements, dtype=dtype, device=device)
        self._handle: Any = symmetric.rendezvous(self._memory, group)

    def part(self, rank: int, shape: torch.Size) -> Tensor:
        """See PeerMemory."""
        found: Tensor = self._handle.get_buffer(rank, shape, self._dtype)
        return found

    def meet(self) -> None:
        """See PeerMemory."""
        self._handle.barrier()


def one_shot_sum(
    rank: int, dtype: torch.dtype, device: torch.device, group: dist.ProcessGroup
) -> OneShotSum | None:
    """The exchange among the GPUs of one machine; None where their memory cannot be shared."""
    try:
        memories = [SymmetricMemory(dtype, device, group) for _ in range(2)]
    except (ImportError, RuntimeError):
        return None
    return OneShotSum(rank, group.size(), memories)
