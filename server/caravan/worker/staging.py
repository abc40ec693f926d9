"""A step's arrays on their way to the device: one copy, from pinned memory that is used again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 16  # bytes: vector loads, and views of any type
# Copies that may be under way. A step makes at most 12, the last ones behind its kernels, and two
# steps may be out: with fewer buffers the host would wait for a step to end before it goes on.
IN_FLIGHT = 32
SMALLEST = 1 << 16  # bytes of a buffer


class _Pinned:
    """Host memory that the device reads by itself."""

    def __init__(self, num_bytes: int) -> None:
        self.bytes = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._copied = torch.cuda.Event()

    def copy_to(self, target: Tensor) -> None:
        """Starts the copy of as many bytes as `target` has."""
        target.copy_(self.bytes[: len(target)], non_blocking=True)
        self._copied.record()

    def wait(self) -> None:
        """Waits until the last copy has been made."""
        self._copied.synchronize()


class Staging:
    """Arrays of the host become tensors of the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: deque[_Pinned] = deque()

    def send(
        self, arrays: Mapping[str, NDArray[Any]], into: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Tensors with the arrays' shapes, types and values, in the order of the stream.

        With `into`, uint8 on the device, they are views of it: arrays of the same shapes and types
        land at the same addresses. On the CPU they otherwise share the arrays' memory.
        """
        if self._device.type == "cpu" and into is None:
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        places, total = _places(arrays)
        if into is None:
            into = torch.empty(total, dtype=torch.uint8, device=self._device)
        assert total <= len(into), (total, len(into))
        target = into[:total]
        if self._device.type == "cpu":
            _pack(arrays, places, target.numpy())
        else:
            buffer = self._next_buffer(total)
            _pack(arrays, places, buffer.bytes.numpy())
            buffer.copy_to(target)
        return {
            name: target[start : start + array.nbytes]
            .view(torch.from_numpy(array).dtype)
            .view(array.shape)
            for (name, array), start in zip(arrays.items(), places, strict=True)
        }

    def _next_buffer(self, num_bytes: int) -> _Pinned:
        """The buffer that was used longest ago, or a larger one in its place."""
        buffer = self._buffers.popleft() if len(self._buffers) == IN_FLIGHT else None
        if buffer is not None:
            buffer.wait()
        if buffer is None or len(buffer.bytes) < num_bytes:
            buffer = _Pinned(max(SMALLEST, 2 * num_bytes))
        self._buffers.append(buffer)
        return buffer


def staged_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Bytes that `Staging.send` needs for these arrays."""
    return _places(arrays)[1]


def _places(arrays: Mapping[str, NDArray[Any]]) -> tuple[list[int], int]:
    """Where each array begins, and the end of the last."""
    places, end = [], 0
    for array in arrays.values():
        places.append(end)
        end += array.nbytes + -array.nbytes % ALIGNMENT
    return places, end


def _pack(arrays: Mapping[str, NDArray[Any]], places: list[int], memory: NDArray[np.uint8]) -> None:
    for array, start in zip(arrays.values(), places, strict=True):
        memory[start : start + array.nbytes] = (
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        )
