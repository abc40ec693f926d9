"""The step that attention kernels share: softmax over one more tile of keys, base 2.

    M query rows, N keys of a tile

Each row keeps the largest score so far and the sum of 2^(score - largest). exp2 is one instruction;
log2(e) is part of the scale, which multiplies inside the subtraction's fused multiply-add.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl


def base2_scale(head_dim: int) -> float:
    """log2(e) / sqrt(D): what dot products are multiplied by before exp2."""
    return math.log2(math.e) / math.sqrt(head_dim)


@triton.jit
def fold_scores(dots_MN, best_M, total_M, scale):
    """Weights of this tile, the factor for what was summed before, and the new best and total.

    A hidden key's dot product is -inf; each row must have seen a key by the end of its first tile.
    """
    new_M = tl.maximum(best_M, tl.max(dots_MN, 1) * scale)
    weights_MN = tl.math.exp2(dots_MN * scale - new_M[:, None])
    kept_M = tl.math.exp2(best_M - new_M)
    return weights_MN, kept_M, new_M, total_M * kept_M + tl.sum(weights_MN, 1)
