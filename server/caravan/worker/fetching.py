"""A step's results on their way to the host, while the device goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fetched:
    """Tensors of the host that are complete after `wait`."""

    tensors: tuple[Tensor, ...]
    copied: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors, when the device has come this far."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tensors


def fetch(tensors: Sequence[Tensor]) -> Fetched:
    """Starts copying tensors to the host, in the order of the stream; on the CPU it is no copy."""
    if not any(tensor.is_cuda for tensor in tensors):
        return Fetched(tuple(tensors), None)
    pinned = tuple(torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors)
    for target, source in zip(pinned, tensors, strict=True):
        target.copy_(source, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return Fetched(pinned, copied)
