"""Log-probabilities: of a token, and of the best tokens of its row.

    logprob[id] = l[id] - M - log(sum of exp(l - M)), M = max l

`tile_statistics` reads the logits once; it leaves the sums of tiles and the maxima of groups of 64.
One program per row does the rest: the best token is in the group with the best maximum, so each of
the `num_top` rounds reads one group, takes its best token and puts what is left of the group back.

Shapes    S rows (those that asked), V vocabulary, G = V / 64 groups
Numerics  exp in fp32, sums and the logarithm in fp64. Tokens are in order of (logit, lower id),
          compared exactly as one int64: the logit's order-preserving bits above the inverted id
Grid      (S,)
Traffic   S * V * 4 bytes for the sums, then S * (G * 4 + num_top * 256). Expected on an H200: 4 us
          for one row of 202048 and 0.7 us for each of the best: 18 us for 20, 75 us for 100, as
          long for 132 rows as for one
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.tile_statistics import GROUP, row_statistics, scales, tile_statistics
from caravan_kernels.gpu.tuning import launch_parameters


@triton.jit
def _rank(logit, place):
    """int64 that orders by logit, the lower place first where equal. -0 counts as 0."""
    bits = (logit + 0.0).to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (order.to(tl.int64) << 32) | (0xFFFFFFFF - place.to(tl.int64))


@triton.jit
def _logit(rank):
    """The logit of a rank."""
    order = (rank >> 32).to(tl.int32)
    return tl.where(order < 0, order ^ 0x7FFFFFFF, order).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["num_top"])  # compiled once for all numbers of tokens
def _logprobs(
    logits_ptr,
    token_ptr,
    max_ptr,
    sum_ptr,
    group_max_ptr,
    chosen_ptr,
    id_ptr,
    value_ptr,
    stride_s,
    vocab_size,
    num_tiles,
    num_groups,
    num_top,
    TILES: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride_s
    exact_scale, _, _ = scales(1.0)
    _, mass, maximum = row_statistics(max_ptr, sum_ptr, row, num_tiles, exact_scale, TILES)
    normaliser = maximum.to(tl.float64) + tl.log(tl.sum(mass, 0))
    chosen = tl.load(logits_ptr + tl.load(token_ptr + row)).to(tl.float64)
    tl.store(chosen_ptr + row, (chosen - normaliser).to(tl.float32))

    nothing = -0x8000000000000000
    group = tl.arange(0, GROUPS)
    group_max = tl.load(
        group_max_ptr + row * num_groups + group, mask=group < num_groups, other=float("-inf")
    )
    group_rank = tl.where(group < num_groups, _rank(group_max, group), nothing)
    last = tl.full((), 0x7FFFFFFFFFFFFFFF, tl.int64)
    for i in range(num_top):
        best_group = (0xFFFFFFFF - (tl.max(group_rank, 0) & 0xFFFFFFFF)).to(tl.int32)
        token = best_group * GROUP + tl.arange(0, GROUP)
        inside = token < vocab_size
        logit = tl.load(logits_ptr + token, mask=inside, other=float("-inf"))
        rank = tl.where(inside, _rank(logit, token), nothing)
        last = tl.max(tl.where(rank < last, rank, nothing), 0)
        rest = tl.max(tl.where(rank < last, rank, nothing), 0)
        rest = tl.where(rest > nothing, _rank(_logit(rest), best_group), nothing)
        group_rank = tl.where(group == best_group, rest, group_rank)
        tl.store(id_ptr + row * num_top + i, 0xFFFFFFFF - (last & 0xFFFFFFFF))
        value = _logit(last).to(tl.float64) - normaliser
        tl.store(value_ptr + row * num_top + i, value.to(tl.float32))


def logprobs(logits_SV: Tensor, token_S: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `caravan_kernels.sampling.logprobs`, without waiting for the host.

    logits fp32 [S, V], token int64 [S] -> of the token fp32 [S]; the best, falling, the lower id
    first where equal: ids int64 [S, num_top], fp32 [S, num_top]; all V of them where V is smaller.
    """
    rows, vocab_size = logits_SV.shape
    num_top = min(num_top, vocab_size)
    statistics = tile_statistics(logits_SV, None, with_groups=True)
    assert statistics.group_max_SG is not None
    tiles, groups = statistics.max_SN.shape[1], statistics.group_max_SG.shape[1]
    chosen_S = logits_SV.new_empty(rows)
    ids_SN = token_S.new_empty(rows, num_top)
    values_SN = logits_SV.new_empty(rows, num_top)
    _logprobs[(rows,)](
        logits_SV,
        token_S,
        *statistics,
        chosen_S,
        ids_SN,
        values_SN,
        logits_SV.stride(0),
        vocab_size,
        tiles,
        groups,
        num_top,
        TILES=triton.next_power_of_2(tiles),
        GROUPS=triton.next_power_of_2(groups),
        GROUP=GROUP,
        **launch_parameters("logprobs"),
    )
    return chosen_S, ids_SN, values_SN
