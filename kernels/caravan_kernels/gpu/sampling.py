"""The sampler: from logits to tokens, and the changes to the logits before it.

`caravan_kernels.sampling` has the formulas. A row costs one read of its logits, however it is
drawn:

    1. `tile_statistics`  every tile's maximum and sum of weights              all rows
    2. `_draw`            the tile by the running sum of the tiles, and the    greedy, plain, broken
                          token inside it: one more tile is read
    3. `shortlist`        which groups may hold tokens that filters keep       filtered rows
    4. `draw_filtered`    the filters' cut among them, and the draw            filtered rows

Shapes    S rows, V vocabulary, N tiles of a row (`tile_statistics`), R rows with penalties
Numerics  w in fp32, sums of w in fp64, uniform numbers exact. A row's token depends on nothing but
          the row: tiles, their order and the warps of a program are the same for every S
Grid      2: (S,). 3 and 4 in `sampling_filters`. Nothing waits for the host, shapes decide all
Traffic   S * V * 4 bytes. 202048 tokens at 4.3 TB/s: 48 us for 256 rows; one row is the latency of
          the launches, 6 us expected
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.cpu.sampling import IN_PROMPT
from caravan_kernels.gpu.random_numbers import uniform
from caravan_kernels.gpu.sampling_filters import Filters, draw_filtered, is_filtered
from caravan_kernels.gpu.tile_statistics import (
    GROUP,
    TILE,
    TileStatistics,
    choose,
    choose_in_groups,
    row_statistics,
    scales,
    tile_statistics,
    weigh,
)
from caravan_kernels.gpu.tuning import launch_parameters

_BLOCK = 128  # entries of a sparse change per program
_MASK_WORDS = 32  # words of a mask per program: 1024 tokens


def sample(
    logits_SV: Tensor,
    temperature_S: Tensor,
    top_k_S: Tensor,
    top_p_S: Tensor,
    min_p_S: Tensor,
    seed_S: Tensor,
    index_S: Tensor,
    *,
    filtered: bool,
) -> Tensor:
    """As `caravan_kernels.sampling.sample`: one token per row, int64 [S].

    logits fp32 [S, V], rows apart by any stride; temperature and min_p fp32, top_p fp64, top_k,
    seed and index int64, all [S]. `filtered` False promises that top_k, top_p and min_p are off in
    every row: their launches are left out.
    """
    statistics = tile_statistics(logits_SV, temperature_S, with_groups=filtered)
    filters = Filters(top_k_S, top_p_S, min_p_S) if filtered else None
    token_S = index_S.new_empty(len(index_S))
    _launch_draw(logits_SV, temperature_S, statistics, filters, seed_S, index_S, token_S)
    if filters:
        draw_filtered(logits_SV, temperature_S, statistics, filters, seed_S, index_S, token_S)
    return token_S


@triton.jit
def _draw(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,  # None: no row is filtered
    top_p_ptr,
    min_p_ptr,
    seed_ptr,
    index_ptr,
    max_ptr,
    sum_ptr,
    token_ptr,
    stride_s,
    vocab_size,
    num_tiles,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    exact_scale, scale, scale_rest = scales(temperature)
    tile_max, mass, maximum = row_statistics(max_ptr, sum_ptr, row, num_tiles, exact_scale, TILES)
    total = tl.sum(mass, 0)
    greedy = (temperature <= 0) | (maximum == float("-inf"))
    broken = total != total
    if top_k_ptr is not None:
        filtered = is_filtered(top_k_ptr, top_p_ptr, min_p_ptr, row, vocab_size)
        if filtered & (greedy == 0) & (broken == 0):
            return
    u = uniform(tl.load(seed_ptr + row), tl.load(index_ptr + row))
    drawn_tile, share = choose(mass, u, TILES)
    tile_id = tl.arange(0, TILES)
    is_best = (tile_max == maximum) & (tile_id < num_tiles)
    best_tile = tl.min(tl.where(is_best, tile_id, num_tiles - 1), 0)
    tile = tl.where(greedy, best_tile, drawn_tile)

    first = tile * TILE
    local = tl.arange(0, TILE // GROUP)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = first + local < vocab_size
    places = logits_ptr + row * stride_s + first + local
    logit = tl.load(places, mask=inside, other=float("-inf"))
    tile_maximum = tl.max(logit)
    weight = weigh(logit, tile_maximum, scale, scale_rest).to(tl.float64)
    group, offset = choose_in_groups(weight, share, TILE // GROUP, GROUP)
    best = tl.min(tl.where(logit == tile_maximum, local, TILE - 1))
    token = first + tl.where(greedy, best, group * GROUP + offset)
    tl.store(token_ptr + row, tl.where(broken, -1, token).to(tl.int64))


def _launch_draw(
    logits_SV: Tensor,
    temperature_S: Tensor,
    statistics: TileStatistics,
    filters: Filters | None,
    seed_S: Tensor,
    index_S: Tensor,
    token_S: Tensor,
) -> None:
    """Draws the rows that no filter touches."""
    rows, vocab_size = logits_SV.shape
    tiles = statistics.max_SN.shape[1]
    _draw[(rows,)](
        logits_SV,
        temperature_S,
        *(filters or (None, None, None)),
        seed_S,
        index_S,
        statistics.max_SN,
        statistics.sum_SN,
        token_S,
        logits_SV.stride(0),
        vocab_size,
        tiles,
        TILES=triton.next_power_of_2(tiles),
        TILE=TILE,
        GROUP=GROUP,
        **launch_parameters("draw"),
    )


@triton.jit
def _apply_masks(
    logits_ptr, row_ptr, words_ptr, logits_stride, words_stride, vocab_size, WORDS: tl.constexpr
):
    entry = tl.program_id(1).to(tl.int64)
    row = tl.load(row_ptr + entry)
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    bits = tl.load(words_ptr + entry * words_stride + word, mask=word * 32 < vocab_size, other=0)
    bit = tl.arange(0, 32)
    forbidden = ((bits[:, None] >> bit[None, :]) & 1) == 0
    token = word[:, None] * 32 + bit[None, :]
    places = logits_ptr + row * logits_stride + token
    tl.store(places, float("-inf"), mask=forbidden & (token < vocab_size))


def apply_masks(logits_SV: Tensor, row_R: Tensor, words_RW: Tensor) -> None:
    """logits[row] = -inf where the token's bit is 0, in place; no row twice.

    logits fp32 [S, V], row int64 [R], words int32 [R, W], W * 32 at least V. Reads R * V / 8 bytes,
    writes the forbidden logits: R * V * 4 bytes where a grammar allows few tokens.
    """
    vocab_size = logits_SV.shape[1]
    grid = (triton.cdiv(vocab_size, 32 * _MASK_WORDS), len(row_R))
    _apply_masks[grid](
        logits_SV,
        row_R,
        words_RW,
        logits_SV.stride(0),
        words_RW.stride(0),
        vocab_size,
        WORDS=_MASK_WORDS,
    )


@triton.jit(do_not_specialize=["num_entries"])  # compiled once for all numbers of entries
def _apply_bias(logits_ptr, row_ptr, id_ptr, value_ptr, stride_s, num_entries, BLOCK: tl.constexpr):
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < num_entries
    row = tl.load(row_ptr + entry, mask=inside, other=-1)
    token = tl.load(id_ptr + entry, mask=inside, other=0)
    value = tl.load(value_ptr + entry, mask=inside, other=0.0)
    tl.atomic_add(logits_ptr + row * stride_s + token, value, mask=row >= 0, sem="relaxed")


def apply_bias(logits_SV: Tensor, row_N: Tensor, id_N: Tensor, value_N: Tensor) -> None:
    """logits[row, id] += value, in place; entries of the same token add up, in any order.

    logits fp32 [S, V], row and id int64 [N], value fp32 [N], -inf forbids. A row of -1: nothing.
    """
    entries = len(row_N)
    _apply_bias[(triton.cdiv(entries, _BLOCK),)](
        logits_SV, row_N, id_N, value_N, logits_SV.stride(0), entries, BLOCK=_BLOCK
    )


@triton.jit
def _apply_penalties(
    logits_ptr,
    row_ptr,
    counts_ptr,
    repetition_ptr,
    frequency_ptr,
    presence_ptr,
    logits_stride,
    counts_stride,
    vocab_size,
    IN_PROMPT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry = tl.program_id(1).to(tl.int64)
    row = tl.load(row_ptr + entry)
    if row < 0:
        return
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab_size
    marks = tl.load(counts_ptr + entry * counts_stride + token, mask=inside, other=0)
    seen = marks != 0
    places = logits_ptr + row * logits_stride + token
    logit = tl.load(places, mask=seen, other=0.0)
    repetition = tl.load(repetition_ptr + entry)
    count = (marks & (IN_PROMPT - 1)).to(tl.float32)
    divided = tl.div_rn(logit, repetition)
    repeated = tl.where(logit > 0, divided, logit * repetition)
    said = tl.load(frequency_ptr + entry) * count
    said += tl.where(count > 0, tl.load(presence_ptr + entry), 0.0)
    tl.store(places, repeated - said, mask=seen)


def apply_penalties(
    logits_SV: Tensor,
    row_R: Tensor,
    counts_RV: Tensor,
    repetition_R: Tensor,
    frequency_R: Tensor,
    presence_R: Tensor,
) -> None:
    """Makes tokens that were there less likely, in place; formula in `caravan_kernels.sampling`.

    logits fp32 [S, V], row int64 [R], -1: nothing, no row twice. counts int32 [R, V]: how often the
    token is in the output, plus IN_PROMPT if it is in the prompt; repetition, frequency and
    presence fp32 [R]. Reads R * V * 4 bytes, and the logits of the tokens seen.
    """
    entries, vocab_size = counts_RV.shape
    launch = launch_parameters("penalties")
    _apply_penalties[(triton.cdiv(vocab_size, launch["BLOCK"]), entries)](
        logits_SV,
        row_R,
        counts_RV,
        repetition_R,
        frequency_R,
        presence_R,
        logits_SV.stride(0),
        counts_RV.stride(0),
        vocab_size,
        IN_PROMPT=IN_PROMPT,
        **launch,
    )


@triton.jit(do_not_specialize=["num_rows"])
def _count_tokens(counts_ptr, row_ptr, token_ptr, counts_stride, num_rows, BLOCK: tl.constexpr):
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < num_rows
    row = tl.load(row_ptr + entry, mask=inside, other=-1)
    token = tl.load(token_ptr + entry, mask=inside, other=-1)
    valid = (row >= 0) & (token >= 0)
    tl.atomic_add(counts_ptr + row * counts_stride + token, 1, mask=valid, sem="relaxed")


def count_tokens(counts_PV: Tensor, row_S: Tensor, token_S: Tensor) -> None:
    """counts[row, token] += 1, in place, where neither is negative.

    counts int32 [P, V], row and token int64 [S].
    """
    rows = len(row_S)
    _count_tokens[(triton.cdiv(rows, _BLOCK),)](
        counts_PV, row_S, token_S, counts_PV.stride(0), rows, BLOCK=_BLOCK
    )
