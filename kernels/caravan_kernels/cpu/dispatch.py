"""Tokens in order of their expert, scaled by their score: what the grouped matmuls read."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor


@njit(nogil=True, cache=True)
def _sort(
    x: NDArray[np.float32],
    expert: NDArray[np.int64],
    score: NDArray[np.float32],
    ends: NDArray[np.int64],  # [E + 1] zeros; afterwards, where each expert's rows end
    scaled: NDArray[np.float32],
    order: NDArray[np.int64],
) -> None:
    for e in expert:
        ends[e + 1] += 1
    for e in range(1, ends.shape[0]):
        ends[e] += ends[e - 1]
    for t in range(x.shape[0]):
        place = ends[expert[t]]
        ends[expert[t]] += 1
        order[place] = t
        for h in range(x.shape[1]):
            scaled[place, h] = x[t, h] * score[t]


def sorted_by_expert(
    x: Tensor, expert: Tensor, score: Tensor, num_experts: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A counting sort, stable: (scaled [T, H], order [T], experts [h], starts [h + 1]).

    x [T, H] fp32, expert [T] int64, score [T] fp32. Row i of `scaled` is x[order[i]] times its
    score; `experts` are the hit ones, and the rows of the i-th are starts[i] to starts[i + 1].
    """
    scaled, order = torch.empty_like(x), torch.empty_like(expert)
    ends = np.zeros(num_experts + 1, np.int64)
    _sort(x.numpy(), expert.numpy(), score.numpy(), ends, scaled.numpy(), order.numpy())
    bounds = np.concatenate([[0], ends[:-1]])
    hit = np.flatnonzero(np.diff(bounds))
    starts = np.append(bounds[hit], len(x))
    return scaled, order, torch.from_numpy(hit), torch.from_numpy(starts)
