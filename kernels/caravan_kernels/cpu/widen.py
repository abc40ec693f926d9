"""Rows of weights or of the cache to fp32 and back, inside a numba kernel.

bfloat16 is the upper half of a float32, so widening is a shift. numba has no bfloat16: such tensors
come in as uint16. Overloads carry no annotations: numba compares their signatures to the letter.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

WIDENED = (torch.float32, torch.bfloat16)  # the dtypes that `as_array` takes


def as_array(tensor: Tensor) -> NDArray[np.generic]:
    """The tensor's memory as a numpy array; bfloat16 as uint16."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    array: NDArray[np.generic] = tensor.numpy()
    return array


def widen(row: NDArray[np.generic], scratch: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The row in fp32: itself, or widened into `scratch`, which has its length."""
    raise AssertionError("only numba kernels call this")


@overload(widen, inline="always")
def _widen(row, scratch):  # type: ignore[no-untyped-def]
    if row.dtype == types.float32:
        return lambda row, scratch: row

    def from_bfloat16(row, scratch):  # type: ignore[no-untyped-def]
        for i in range(row.shape[0]):
            scratch[i] = np.uint32(row[i]) << np.uint32(16)
        return scratch.view(np.float32)

    return from_bfloat16


def narrow(row: NDArray[np.float32], target: NDArray[np.generic]) -> None:
    """Stores an fp32 row into a row of the cache, rounded to nearest, ties to even."""
    raise AssertionError("only numba kernels call this")


@overload(narrow)
def _narrow(row, target):  # type: ignore[no-untyped-def]
    def to_float32(row, target):  # type: ignore[no-untyped-def]
        for i in range(row.shape[0]):
            target[i] = row[i]

    def to_bfloat16(row, target):  # type: ignore[no-untyped-def]
        bits = row.view(np.uint32)
        for i in range(row.shape[0]):
            upper = bits[i] >> np.uint32(16)
            rounded = (bits[i] + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
            # rounding could carry a NaN's bits into an infinity: it keeps its upper half, quiet
            if bits[i] & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
                rounded = upper | np.uint32(0x40)
            target[i] = rounded

    return to_float32 if target.dtype == types.float32 else to_bfloat16
