"""The rows of a draw that have top_k, top_p or min_p.

What filters keep of a row is a prefix in order of falling logit, so it ends at a cut: a logit, and
how many of the tokens that have just this logit are kept. Nothing is sorted:

    shortlist      a logit that the cut cannot be below, from the maxima of groups alone; the groups
                   that reach above it, in order of id
    draw_filtered  the exact cut among the tokens of these groups, by bracketing: three pivots per
                   pass quarter the bracket until one logit is inside. Then the draw

The maxima of groups are tokens, too. At least k tokens are at or above the k-th largest maximum, so
the cut of top_k is not below it; nor is that of top_p below the maximum at which the weights of the
maxima alone, from the largest on, reach top_p of the row's sum. A token that weighs less than
(1 - top_p) * sum / V is beyond top_p: all of these together are less than what it drops. A trained
model's top_p = 0.9 or top_k = 50 are some dozen tokens, so a shortlist has some dozen groups of 64,
and a row of 202048 logits is read once.

Shapes    S rows, V vocabulary, G = V / 64 groups, n of them on a row's shortlist
Numerics  logits are compared exactly; w in fp32, its sums in fp64, always in the same order
Grid      (S,) both. Rows without filters return at once
Traffic   shortlist: S * G * 4 bytes. draw_filtered: n * 256 bytes per pass, from caches, the next
          chunks on their way while one is counted. Expected on an H200, where a chunk of 64 groups
          takes 0.5 us and the rest of a pass 1 us, `shortlist` 6 us; passes by simulation, with the
          tallies and the draw; the read of 256 rows takes 48 us more:

              202048 logits        n     kept   passes  1 to 132 rows  256 rows
              peaked, top_p 0.9    57    57     9       20 us          40 us
              peaked, top_k 50     50    50     8       20 us          40 us
              both                 50    15     13      25 us          50 us
              flat, top_p 0.9      3157  48171  14      0.4 ms         0.8 ms

          Peaked: the r-th probability falls as r^-1.5. Flat: normal noise of deviation 2, of which
          every group is kept; such a row occupies one processor of 132, others go on beside it
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.random_numbers import uniform
from caravan_kernels.gpu.tile_statistics import (
    GROUP,
    TileStatistics,
    choose_in_groups,
    row_statistics,
    scales,
    weigh,
)
from caravan_kernels.gpu.tuning import launch_parameters

_HALVINGS = 12  # of a bracket that is at most 97 T wide: to 0.024 T


class Filters(NamedTuple):
    """What each row keeps; all [S]."""

    top_k_S: Tensor  # int64, 0: off
    top_p_S: Tensor  # fp64, 1: off
    min_p_S: Tensor  # fp32, 0: off


@triton.jit
def is_filtered(top_k_ptr, top_p_ptr, min_p_ptr, row, vocab_size):
    """Whether a row has a filter that may drop a token."""
    top_k = tl.load(top_k_ptr + row)
    limited = (top_k > 0) & (top_k < vocab_size)
    return limited | (tl.load(top_p_ptr + row) < 1) | (tl.load(min_p_ptr + row) > 0)


@triton.jit
def _shortlist(
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    max_ptr,
    sum_ptr,
    group_max_ptr,
    floor_ptr,
    length_ptr,
    group_ptr,
    vocab_size,
    num_tiles,
    num_groups,
    HALVINGS: tl.constexpr,
    TILES: tl.constexpr,
    GROUPS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    exact_scale, scale, scale_rest = scales(temperature)
    _, mass, maximum = row_statistics(max_ptr, sum_ptr, row, num_tiles, exact_scale, TILES)
    total = tl.sum(mass, 0)
    filtered = is_filtered(top_k_ptr, top_p_ptr, min_p_ptr, row, vocab_size)
    drawn = (temperature > 0) & (maximum > float("-inf")) & (total == total)
    if (filtered & drawn) == 0:
        tl.store(length_ptr + row, 0)
        return

    top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
    min_p = tl.load(min_p_ptr + row)
    limited = (top_k > 0) & (top_k < vocab_size)
    limit = tl.where(limited, top_k, vocab_size)
    # what top_p leaves out is known in advance only if it is a share of the whole row
    dropped = tl.where(limited | (min_p > 0), 0.0, (1 - top_p) * total / vocab_size)
    least = tl.maximum(tl.maximum(min_p, dropped.to(tl.float32)), 1e-42)
    # in powers of 2; the margin covers the rounding of a weight, and the next line that of logits
    depth = tl.maximum(tl.log2(least), -140.0) - 1e-3
    floor = tl.minimum(maximum.to(tl.float64) + depth.to(tl.float64) / exact_scale, maximum)
    low = (floor - tl.abs(floor) * 2.4e-7 - 1e-37).to(tl.float32)
    high = maximum

    group = tl.arange(0, GROUPS)
    inside = group < num_groups
    group_max = tl.load(group_max_ptr + row * num_groups + group, mask=inside, other=float("-inf"))
    weight = weigh(group_max, maximum, scale, scale_rest).to(tl.float64)
    # a top_p of what other filters leave: they are not known yet
    goal = tl.where(limited | (min_p > 0), float("inf"), top_p * total * (1 + 1e-6))
    for _ in range(HALVINGS):
        middle = ((low.to(tl.float64) + high.to(tl.float64)) * 0.5).to(tl.float32)
        above = group_max > middle
        count = tl.sum(above.to(tl.int32), 0)
        reached = tl.sum(tl.where(above, weight, 0.0), 0)
        enough = (count >= limit) | (reached >= goal)
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    kept = group_max > low
    place = tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(group_ptr + row * num_groups + place, group, mask=kept)
    tl.store(length_ptr + row, tl.sum(kept.to(tl.int32), 0))
    tl.store(floor_ptr + row, low)


@triton.jit
def _load(shortlist, law, start, CHUNK: tl.constexpr, GROUP: tl.constexpr):
    """CHUNK groups of a shortlist: their ids [CHUNK], logits and weights [CHUNK, GROUP].

    shortlist: pointer to the row's logits, pointer to its groups, their number, V. law: the row's
    maximum, its two scales, min_p. What min_p drops has a logit of -inf, as what is outside.
    """
    logits_ptr, group_ptr, length, vocab_size = shortlist
    maximum, scale, scale_rest, min_p = law
    place = start + tl.arange(0, CHUNK)
    group = tl.load(group_ptr + place, mask=place < length, other=0)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = (place < length)[:, None] & (token < vocab_size)
    logit = tl.load(logits_ptr + token, mask=inside, other=float("-inf"))
    weight = weigh(logit, maximum, scale, scale_rest)
    return group, tl.where(weight >= min_p, logit, float("-inf")), weight


@triton.jit
def _add_up(x, CHUNK: tl.constexpr, GROUP: tl.constexpr):
    """The sums of four neighbours, [CHUNK, GROUP / 4]: one thread has them, so nothing is moved."""
    return tl.sum(tl.reshape(x, (CHUNK, GROUP // 4, 4)), 2)


@triton.jit
def _cut(
    shortlist, law, low, goal, WEIGHED: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr
):
    """The least logit above which there are fewer than `goal` tokens, or weights, if WEIGHED.

    Above `low` there are as many; if there never are, the result is below every token above `low`.
    """
    dtype: tl.constexpr = tl.float64 if WEIGHED else tl.int32
    high = law[0]
    least, most = low, high  # of the logits in the bracket (low, high]
    while least < most:
        wide_low, wide_high = low.to(tl.float64), high.to(tl.float64)
        first = (wide_low * 0.75 + wide_high * 0.25).to(tl.float32)
        second = (wide_low * 0.5 + wide_high * 0.5).to(tl.float32)
        third = (wide_low * 0.25 + wide_high * 0.75).to(tl.float32)
        above_first = tl.zeros((CHUNK, GROUP // 4), dtype)
        above_second = tl.zeros((CHUNK, GROUP // 4), dtype)
        above_third = tl.zeros((CHUNK, GROUP // 4), dtype)
        lowest = tl.full((CHUNK, GROUP), float("inf"), tl.float32)
        highest = tl.full((CHUNK, GROUP), float("-inf"), tl.float32)
        for start in tl.range(0, shortlist[2], CHUNK, num_stages=3):
            _, logit, weight = _load(shortlist, law, start, CHUNK, GROUP)
            size = weight.to(dtype) if WEIGHED else tl.full((CHUNK, GROUP), 1, dtype)
            above_first += _add_up(tl.where(logit > first, size, 0), CHUNK, GROUP)
            above_second += _add_up(tl.where(logit > second, size, 0), CHUNK, GROUP)
            above_third += _add_up(tl.where(logit > third, size, 0), CHUNK, GROUP)
            lowest = tl.where(logit > low, tl.minimum(lowest, logit), lowest)
            highest = tl.where(logit <= high, tl.maximum(highest, logit), highest)
        least, most = tl.min(lowest), tl.max(highest)
        if tl.sum(above_first) < goal:
            high = first
        elif tl.sum(above_second) < goal:
            low, high = first, second
        elif tl.sum(above_third) < goal:
            low, high = second, third
        else:
            low = third
    return tl.where(least == most, most, high)


@triton.jit
def _tally(shortlist, law, cut, CHUNK: tl.constexpr, GROUP: tl.constexpr):
    """How many tokens are above the cut, their weight in fp64, and how many are at it."""
    above_count = tl.zeros((CHUNK, GROUP // 4), tl.int32)
    above_weight = tl.zeros((CHUNK, GROUP // 4), tl.float64)
    equal_count = tl.zeros((CHUNK, GROUP // 4), tl.int32)
    for start in tl.range(0, shortlist[2], CHUNK, num_stages=3):
        _, logit, weight = _load(shortlist, law, start, CHUNK, GROUP)
        above = logit > cut
        above_count += _add_up(above.to(tl.int32), CHUNK, GROUP)
        above_weight += _add_up(tl.where(above, weight, 0.0).to(tl.float64), CHUNK, GROUP)
        equal_count += _add_up((logit == cut).to(tl.int32), CHUNK, GROUP)
    return tl.sum(above_count), tl.sum(above_weight), tl.sum(equal_count)


@triton.jit
def _kept_weights(shortlist, law, cut, ties, start, CHUNK: tl.constexpr, GROUP: tl.constexpr):
    """A chunk's groups [CHUNK], its kept weights [CHUNK, GROUP] in fp64, how many are at the cut.

    Of the tokens at the cut the first `ties` are kept, the others weigh 0.
    """
    group, logit, weight = _load(shortlist, law, start, CHUNK, GROUP)
    equal = (logit == cut).to(tl.int32)
    in_group = tl.sum(equal, 1)
    rank = (tl.cumsum(in_group, 0) - in_group)[:, None] + tl.cumsum(equal, 1)
    kept = (logit > cut) | ((logit == cut) & (rank <= ties))
    return group, tl.where(kept, weight, 0.0).to(tl.float64), tl.sum(in_group, 0)


@triton.jit
def _draw_filtered(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    seed_ptr,
    index_ptr,
    max_ptr,
    sum_ptr,
    floor_ptr,
    length_ptr,
    group_ptr,
    token_ptr,
    stride_s,
    vocab_size,
    num_tiles,
    num_groups,
    TILES: tl.constexpr,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(length_ptr + row)
    if length == 0:
        return
    exact_scale, scale, scale_rest = scales(tl.load(temperature_ptr + row))
    mass, maximum = row_statistics(max_ptr, sum_ptr, row, num_tiles, exact_scale, TILES)[1:]
    top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
    min_p = tl.load(min_p_ptr + row)
    shortlist = (logits_ptr + row * stride_s, group_ptr + row * num_groups, length, vocab_size)
    law = (maximum, scale, scale_rest, min_p)

    cut = tl.load(floor_ptr + row)
    limited = (top_k > 0) & (top_k < vocab_size)
    if limited:
        cut = _cut(shortlist, law, cut, top_k, False, CHUNK, GROUP)
    count, above, ties = _tally(shortlist, law, cut, CHUNK, GROUP)
    if limited:
        ties = tl.minimum(ties.to(tl.int64), top_k - count).to(tl.int32)
    if top_p < 1:
        at_cut = weigh(cut, maximum, scale, scale_rest).to(tl.float64)
        goal = top_p * (above + at_cut * ties)
        if (limited == 0) & (min_p == 0):
            goal = top_p * tl.sum(mass, 0)
        if above >= goal:
            cut = _cut(shortlist, law, cut, goal, True, CHUNK, GROUP)
            count, above, ties = _tally(shortlist, law, cut, CHUNK, GROUP)
            at_cut = weigh(cut, maximum, scale, scale_rest).to(tl.float64)
        # 1 or more, as the goal is not reached above the cut
        ties = tl.minimum(tl.ceil((goal - above) / at_cut), ties.to(tl.float64)).to(tl.int32)

    kept_sum = above + weigh(cut, maximum, scale, scale_rest).to(tl.float64) * ties
    target = kept_sum * uniform(tl.load(seed_ptr + row), tl.load(index_ptr + row))
    running = tl.full((), 0.0, tl.float64)
    passed, chosen_start, chosen_ties = running, 0, ties
    for start in tl.range(0, length, CHUNK, num_stages=3):
        _, weight, equal = _kept_weights(shortlist, law, cut, ties, start, CHUNK, GROUP)
        here = tl.sum(weight)
        # of the chunks with a weight, the last one that begins at or below the target
        chosen = (running <= target) & (here > 0)
        passed = tl.where(chosen, running, passed)
        chosen_start = tl.where(chosen, start, chosen_start)
        chosen_ties = tl.where(chosen, ties, chosen_ties)
        running += here
        ties -= equal
    group, weight, equal = _kept_weights(
        shortlist, law, cut, chosen_ties, chosen_start, CHUNK, GROUP
    )
    share = (target - passed) / tl.sum(weight)
    place, offset = choose_in_groups(weight, share, CHUNK, GROUP)
    chosen_group = tl.sum(tl.where(tl.arange(0, CHUNK) == place, group, 0), 0)
    tl.store(token_ptr + row, (chosen_group * GROUP + offset).to(tl.int64))


def draw_filtered(
    logits_SV: Tensor,
    temperature_S: Tensor,
    statistics: TileStatistics,
    filters: Filters,
    seed_S: Tensor,
    index_S: Tensor,
    token_S: Tensor,
) -> None:
    """Writes the tokens of the rows that have filters, and of no others."""
    assert statistics.group_max_SG is not None
    rows, vocab_size = logits_SV.shape
    tiles, groups = statistics.max_SN.shape[1], statistics.group_max_SG.shape[1]
    floor_S = temperature_S.new_empty(rows)
    length_S = logits_SV.new_empty(rows, dtype=torch.int32)
    group_SG = logits_SV.new_empty(rows, groups, dtype=torch.int32)
    shortlists = (floor_S, length_S, group_SG)
    maxima = (statistics.max_SN, statistics.sum_SN)
    _shortlist[(rows,)](
        temperature_S,
        *filters,
        *maxima,
        statistics.group_max_SG,
        *shortlists,
        vocab_size,
        tiles,
        groups,
        HALVINGS=_HALVINGS,
        TILES=triton.next_power_of_2(tiles),
        GROUPS=triton.next_power_of_2(groups),
        **launch_parameters("shortlist"),
    )
    _draw_filtered[(rows,)](
        logits_SV,
        temperature_S,
        *filters,
        seed_S,
        index_S,
        *maxima,
        *shortlists,
        token_S,
        logits_SV.stride(0),
        vocab_size,
        tiles,
        groups,
        TILES=triton.next_power_of_2(tiles),
        GROUP=GROUP,
        **launch_parameters("draw_filtered"),
    )
