"""Matmuls of few rows, where reading the weights is the cost.

    y[t] = w[e] @ x[t] for the rows t of expert e; a dense layer is one expert

Shapes    x [T, K] fp32, w [E, N, K] fp32 or bfloat16 -> y [T, N] fp32
Numerics  fp32 products and sums
Grid      hit experts x blocks of N, over the threads; inside, 4 rows of w against 2 of x
Traffic   hit experts * N * K * itemsize bytes: each hit weight is read once

PyTorch's own bfloat16 matmul reaches 20 GFLOP/s without AVX-512 and its fp32 one needs four rows'
time for two; above MANY_ROWS rows, blocks of the weight are widened and go through sgemm.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray
from torch import Tensor

from caravan_kernels.cpu.widen import WIDENED, as_array, widen

MANY_ROWS = 128  # rows of x from which sgemm on a widened block is faster; measured on AVX2
WIDE_BLOCK = 512  # rows of w widened at a time: 512 x 5120 fp32 is 10 MB, about a share of L3
TASKS_PER_THREAD = 8  # blocks of N that even out experts of unequal rows


@njit(parallel=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True, cache=True)
def _grouped_rows(
    x: NDArray[np.float32],
    w: NDArray[np.generic],
    experts: NDArray[np.int64],
    starts: NDArray[np.int64],
    blocks: int,
    y: NDArray[np.float32],
) -> None:
    """experts [h]: the hit ones; starts [h + 1]: the rows of x of the i-th are [i, i + 1)."""
    num_outputs, width = w.shape[1], w.shape[2]
    for task in prange(experts.shape[0] * blocks):
        hit, block = task // blocks, task % blocks
        weight = w[experts[hit]]
        first, last = starts[hit], starts[hit + 1]
        end = (block + 1) * num_outputs // blocks
        scratch = np.empty((4, width), np.uint32)
        for n in range(block * num_outputs // blocks, end, 4):
            # the rows past a block's last one are that one again
            n1, n2, n3 = min(n + 1, end - 1), min(n + 2, end - 1), min(n + 3, end - 1)
            w0, w1 = widen(weight[n], scratch[0]), widen(weight[n1], scratch[1])
            w2, w3 = widen(weight[n2], scratch[2]), widen(weight[n3], scratch[3])
            t = first
            while t + 2 <= last:
                x0, x1 = x[t], x[t + 1]
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = np.float32(0)
                for k in range(width):
                    a0 += w0[k] * x0[k]
                    a1 += w0[k] * x1[k]
                    b0 += w1[k] * x0[k]
                    b1 += w1[k] * x1[k]
                    c0 += w2[k] * x0[k]
                    c1 += w2[k] * x1[k]
                    d0 += w3[k] * x0[k]
                    d1 += w3[k] * x1[k]
                y[t, n], y[t, n1], y[t, n2], y[t, n3] = a0, b0, c0, d0
                y[t + 1, n], y[t + 1, n1], y[t + 1, n2], y[t + 1, n3] = a1, b1, c1, d1
                t += 2
            if t < last:
                x0 = x[t]
                a0 = b0 = c0 = d0 = np.float32(0)
                for k in range(width):
                    a0 += w0[k] * x0[k]
                    b0 += w1[k] * x0[k]
                    c0 += w2[k] * x0[k]
                    d0 += w3[k] * x0[k]
                y[t, n], y[t, n1], y[t, n2], y[t, n3] = a0, b0, c0, d0


def _few_rows(x: Tensor, weight_EJK: Tensor, experts: Tensor, starts: Tensor) -> Tensor:
    y = torch.empty(x.shape[0], weight_EJK.shape[1])
    blocks = -(-TASKS_PER_THREAD * get_num_threads() // len(experts))
    _grouped_rows(
        x.contiguous().numpy(),
        as_array(weight_EJK),
        experts.numpy(),
        starts.numpy(),
        min(blocks, weight_EJK.shape[1]),
        y.numpy(),
    )
    return y


def _many_rows(x: Tensor, weight: Tensor) -> Tensor:
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    y = torch.empty(x.shape[0], weight.shape[0])
    for start in range(0, weight.shape[0], WIDE_BLOCK):
        block = weight[start : start + WIDE_BLOCK].float()
        torch.mm(x, block.t(), out=y[:, start : start + WIDE_BLOCK])
    return y


_ONE_EXPERT = torch.zeros(1, dtype=torch.int64)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [T, K] fp32, weight [N, K] -> [T, N] fp32."""
    if x.shape[0] >= MANY_ROWS or weight.dtype not in WIDENED:
        return _many_rows(x, weight)
    starts = torch.tensor([0, x.shape[0]])
    return _few_rows(x, weight[None], _ONE_EXPERT, starts)


def grouped_linear(x: Tensor, weight_EJK: Tensor, experts: Tensor, starts: Tensor) -> Tensor:
    """x [T, K] fp32 sorted by expert, weight [E, J, K] -> [T, J] fp32.

    experts [h] int64 are the hit ones; the rows of the i-th are starts[i] to starts[i + 1].
    """
    few = weight_EJK.dtype in WIDENED and x.shape[0] < MANY_ROWS * len(experts)
    if few:
        return _few_rows(x, weight_EJK, experts, starts)
    y = torch.empty(x.shape[0], weight_EJK.shape[1])
    bounds = starts.tolist()
    for expert, first, last in zip(experts.tolist(), bounds, bounds[1:], strict=False):
        y[first:last] = linear(x[first:last], weight_EJK[expert])
    return y
