"""The draw of tokens in plain PyTorch; `caravan_kernels.sampling` has the formula.

Shapes    S rows (one per token to draw), V vocabulary; R or C some of the rows, K candidates,
          B blocks of L = 512 tokens, N entries of sparse changes
Numerics  w in fp32, one rounding per operation; sums of w in fp64
Traffic   S * V * 4 bytes: one read of the logits
Rows      never mix: a row's token does not depend on the other rows of the call
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IN_PROMPT = 1 << 30  # a count with this bit: the token is in the prompt

_BLOCK = 512  # tokens
_CANDIDATES = 256  # tokens a filter looks at first: a trained model's top_p seldom keeps more
_CACHED = {"cpu": 1 << 18}  # logits that are worked on together and stay in a core's cache
_CHUNK = 1 << 22  # logits that are worked on together: bounds temporary memory to 200 MB


class _Draws(NamedTuple):
    """How each row is drawn: the maximum of its logits, and its parameters, all resolved."""

    max_S: Tensor
    temperature_S: Tensor
    top_k_S: Tensor  # V: off
    top_p_S: Tensor
    min_p_S: Tensor
    total_S: Tensor  # fp64 sum of the w that min_p keeps, where top_k is off
    uniform_S: Tensor

    def take(self, rows_R: Tensor) -> _Draws:
        """The draws of some rows."""
        return _Draws(*(field[rows_R] for field in self))


def sample(
    logits_SV: Tensor,
    temperature_S: Tensor,
    top_k_S: Tensor,
    top_p_S: Tensor,
    min_p_S: Tensor,
    seed_S: Tensor,
    index_S: Tensor,
) -> Tensor:
    """See `caravan_kernels.sampling.sample`."""
    vocab_size = logits_SV.shape[1]
    token_S, max_S = _argmax(logits_SV)
    token_S = token_S.where(max_S < math.inf, -1)
    drawn_S = (temperature_S > 0) & max_S.isfinite()
    if not drawn_S.any():
        return token_S
    limit_S = top_k_S.where(top_k_S > 0, vocab_size).clamp(max=vocab_size)
    total_S = torch.ones_like(max_S, dtype=torch.float64)
    uniform_S = uniform(seed_S, index_S)

    filtered_S = drawn_S & ((limit_S < vocab_size) | (top_p_S < 1))
    whole_S, summed_S = drawn_S & ~filtered_S, filtered_S & (limit_S == vocab_size)
    for rows_C, weights_CBL in _weights(logits_SV, whole_S, max_S, temperature_S, min_p_S):
        token_S[rows_C] = _pick(weights_CBL, uniform_S[rows_C])
    for rows_C, weights_CBL in _weights(logits_SV, summed_S, max_S, temperature_S, min_p_S):
        total_S[rows_C] = _running_sums(weights_CBL)[:, -1]

    draws = _Draws(max_S, temperature_S, limit_S, top_p_S, min_p_S, total_S, uniform_S)
    open_S = _draw_from_best(logits_SV, filtered_S, draws, token_S)
    for rows_C, weights_CBL in _weights(logits_SV, open_S, max_S, temperature_S, min_p_S):
        for row, weights_BL in zip(rows_C.tolist(), weights_CBL, strict=True):
            _filter(logits_SV[row], weights_BL.view(-1)[:vocab_size], limit_S[row], top_p_S[row])
        token_S[rows_C] = _pick(weights_CBL, uniform_S[rows_C])
    return token_S


def uniform(seed_S: Tensor, index_S: Tensor) -> Tensor:
    """The `index`-th number of the stream of `seed`: int64 [S], int64 [S] -> fp64 [S] in [0, 1).

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014; constants of Vigna's splitmix64.c), counted instead of stepped: its output number i is
    mix(state + (i + 1) * golden). The stream's state is mix(seed), so that neighbouring seeds are
    far apart. The upper 53 bits make the number. Products wrap modulo 2^64.

    >>> zero = torch.tensor([0])  # splitmix64 of seed 0 starts with 0xe220a8397b1dcdaf
    >>> float(uniform(zero, zero)[0]) == (0xE220A8397B1DCDAF >> 11) / 2**53
    True
    """
    golden = 0x9E3779B97F4A7C15 - (1 << 64)
    bits_S = _mix(_mix(seed_S) + (index_S + 1) * golden)
    return _shift_right(bits_S, 11).double() * 2.0**-53


def apply_masks(logits_SV: Tensor, row_R: Tensor, words_RW: Tensor) -> None:
    """See `caravan_kernels.sampling.apply_masks`."""
    bits_R32 = words_RW[:, :, None] >> torch.arange(32, dtype=torch.int32) & 1
    allowed_RV = bits_R32.view(len(row_R), -1)[:, : logits_SV.shape[1]] != 0
    logits_SV[row_R] = logits_SV[row_R].where(allowed_RV, -math.inf)


def apply_bias(logits_SV: Tensor, row_N: Tensor, id_N: Tensor, value_N: Tensor) -> None:
    """See `caravan_kernels.sampling.apply_bias`."""
    logits_SV.index_put_((row_N, id_N), value_N, accumulate=True)


def apply_penalties(
    logits_SV: Tensor,
    row_R: Tensor,
    counts_RV: Tensor,
    repetition_R: Tensor,
    frequency_R: Tensor,
    presence_R: Tensor,
) -> None:
    """See `caravan_kernels.sampling.apply_penalties`."""
    r, f, q = (parameter[:, None] for parameter in (repetition_R, frequency_R, presence_R))
    value_RV, count_RV = logits_SV[row_R], counts_RV & (IN_PROMPT - 1)
    repeated_RV = torch.where(value_RV > 0, value_RV / r, value_RV * r)
    value_RV = repeated_RV.where(counts_RV > 0, value_RV)
    value_RV -= f * count_RV + q * (count_RV > 0)
    logits_SV[row_R] = value_RV


def count_tokens(counts_RV: Tensor, row_S: Tensor, token_S: Tensor) -> None:
    """See `caravan_kernels.sampling.count_tokens`."""
    counted = (row_S >= 0) & (token_S >= 0)
    one = torch.ones((), dtype=counts_RV.dtype)
    counts_RV.index_put_((row_S[counted], token_S[counted]), one, accumulate=True)


def logprobs(logits_SV: Tensor, token_S: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """See `caravan_kernels.sampling.logprobs`."""
    max_S = logits_SV.amax(-1)
    one_S, zero_S = torch.ones_like(max_S), torch.zeros_like(max_S)
    total_S = torch.empty_like(max_S, dtype=torch.float64)
    for rows_C, weights_CBL in _weights(logits_SV, one_S > 0, max_S, one_S, zero_S):
        total_S[rows_C] = _running_sums(weights_CBL)[:, -1]
    normaliser_S1 = (max_S.double() + total_S.log())[:, None]
    chosen_S1 = logits_SV.gather(1, token_S[:, None])
    values_SN, ids_SN = _best(logits_SV, min(num_top, logits_SV.shape[1]))
    return (
        (chosen_S1.double() - normaliser_S1).float()[:, 0],
        ids_SN,
        (values_SN.double() - normaliser_S1).float(),
    )


def _argmax(logits_SV: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest id of the maximum [S], and the maximum [S], which is NaN if there is a NaN.

    The maxima of blocks come first: on CPU `amax` is vectorised and `argmax` is not.
    """
    vocab_size = logits_SV.shape[1]
    if vocab_size < 2 * _BLOCK:
        max_S, token_S = logits_SV.max(-1)
        return token_S, max_S
    whole_SB = logits_SV.unfold(1, _BLOCK, _BLOCK).amax(-1)
    last_S1 = logits_SV[:, -_BLOCK:].amax(-1, keepdim=True)  # may overlap the block before it
    max_S1, block_S1 = torch.cat([whole_SB, last_S1], dim=-1).max(-1, keepdim=True)
    start_S1 = (block_S1 * _BLOCK).clamp(max=vocab_size - _BLOCK)
    ids_SL = start_S1 + torch.arange(_BLOCK, device=logits_SV.device)
    inside_S = logits_SV.gather(1, ids_SL).argmax(-1)
    return start_S1[:, 0] + inside_S, max_S1[:, 0]


def _best(logits_SV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` first logits in falling order, the lower id first where equal, and their ids."""
    candidates = min(logits_SV.shape[1], 16 * count)
    values_SK, ids_SK = logits_SV.topk(candidates)
    ids_SK, order_SK = ids_SK.sort(dim=-1)
    values_SK = values_SK.gather(1, order_SK)
    values_SK, order_SK = values_SK.sort(dim=-1, descending=True, stable=True)
    ids_SK = ids_SK.gather(1, order_SK)
    if 0 < candidates < logits_SV.shape[1]:
        # topk takes any of equal logits: where they reach past the candidates, look at all.
        for row in (values_SK[:, count - 1] == values_SK[:, -1]).nonzero()[:, 0].tolist():
            order_V = logits_SV[row].sort(descending=True, stable=True).indices
            ids_SK[row] = order_V[:candidates]
    return values_SK[:, :count], ids_SK[:, :count]


def _weights(
    logits_SV: Tensor, chosen_S: Tensor, max_S: Tensor, temperature_S: Tensor, min_p_S: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """A few of the chosen rows [C] at a time, and w of all tokens, fp64 [C, B, L], 0 beyond V.

    What min_p drops is 0. The weights are valid until the next iteration, which overwrites them:
    fresh memory for each row would cost more than the arithmetic.
    """
    vocab_size = logits_SV.shape[1]
    rows_R = chosen_S.nonzero()[:, 0]
    if not len(rows_R):
        return
    size = max(1, _CACHED.get(logits_SV.device.type, _CHUNK) // vocab_size)
    scratch_CV = logits_SV.new_empty(min(size, len(rows_R)), vocab_size)
    padded = vocab_size + -vocab_size % _BLOCK
    wide_CV = scratch_CV.new_zeros(len(scratch_CV), padded, dtype=torch.float64)
    for rows_C in rows_R.split(size):
        weights_CV, min_p_C1 = scratch_CV[: len(rows_C)], min_p_S[rows_C, None]
        torch.index_select(logits_SV, 0, rows_C, out=weights_CV)
        _exponentiate(weights_CV, max_S[rows_C], temperature_S[rows_C])
        if (min_p_C1 > 0).any():
            weights_CV *= weights_CV >= min_p_C1
        wide_CV[: len(rows_C), :vocab_size] = weights_CV
        yield rows_C, wide_CV[: len(rows_C)].unflatten(1, (-1, _BLOCK))


def _exponentiate(logits_RK: Tensor, max_R: Tensor, temperature_R: Tensor) -> Tensor:
    """w of some logits of each row, in their place."""
    return logits_RK.sub_(max_R[:, None]).div_(temperature_R[:, None]).exp_()


def _running_sums(weights_RBL: Tensor) -> Tensor:
    """Sum of the blocks up to and with each block, [R, B]."""
    return weights_RBL.sum(-1).cumsum(-1)


def _pick(weights_RBL: Tensor, uniform_R: Tensor) -> Tensor:
    """The draw: first the block, then the token in it, both by inverse distribution -> int64 [R].

    The sum over a block may round differently from the running sum inside it, so the remainder is
    held below the latter: the token always has a weight above 0.
    """
    ends_RB = _running_sums(weights_RBL)
    target_R1 = (uniform_R * ends_RB[:, -1])[:, None]
    block_R1 = torch.searchsorted(ends_RB, target_R1, right=True)
    starts_RB = F.pad(ends_RB, (1, 0))
    rows_R = torch.arange(len(block_R1), device=block_R1.device)
    inside_RL = weights_RBL[rows_R, block_R1[:, 0]].cumsum(-1)
    last_R1 = inside_RL[:, -1:]
    below_R1 = torch.nextafter(last_R1, torch.zeros_like(last_R1))
    rest_R1 = (target_R1 - starts_RB.gather(1, block_R1)).minimum(below_R1)
    return (block_R1 * _BLOCK + torch.searchsorted(inside_RL, rest_R1, right=True))[:, 0]


def _draw_from_best(logits_SV: Tensor, chosen_S: Tensor, draws: _Draws, token_S: Tensor) -> Tensor:
    """Draws the tokens of the chosen rows from their best candidates, into `token_S`.

    Returns which of these rows [S] have no valid token yet: what their filters keep may be outside
    the candidates.
    """
    vocab_size = logits_SV.shape[1]
    candidates = vocab_size if vocab_size <= 4 * _CANDIDATES else _CANDIDATES
    open_S = torch.zeros_like(chosen_S)
    for rows_C in chosen_S.nonzero()[:, 0].split(max(1, _CHUNK // vocab_size)):
        part = draws.take(rows_C)
        values_CK, ids_CK = logits_SV[rows_C].topk(candidates)
        count_C1, sure_C1 = _count_kept(values_CK, part, vocab_size)
        cut_C1 = values_CK.gather(1, count_C1 - 1)
        ids_CK, order_CK = ids_CK.sort(dim=-1)
        values_CK = values_CK.gather(1, order_CK)
        kept_CK = _first(values_CK, cut_C1, count_C1)
        weights_CK = _exponentiate(values_CK, part.max_S, part.temperature_S) * kept_CK
        padded_CK = F.pad(weights_CK.double(), (0, -candidates % _BLOCK))
        place_C = _pick(padded_CK.unflatten(1, (-1, _BLOCK)), part.uniform_S)
        token_S[rows_C] = ids_CK.gather(1, place_C[:, None])[:, 0]
        open_S[rows_C] = ~sure_C1[:, 0]
    return open_S


def _count_kept(values_RK: Tensor, draws: _Draws, vocab_size: int) -> tuple[Tensor, Tensor]:
    """How many tokens the filters keep, judged by the K best logits of each row, falling; and
    whether that is sure: the last one kept is above the last candidate, or K = V. Both [R, 1].
    """
    candidates = values_RK.shape[1]
    weights_RK = _exponentiate(values_RK.clone(), draws.max_S, draws.temperature_S)
    kept_RK = weights_RK >= draws.min_p_S[:, None]
    limit_R1 = draws.top_k_S[:, None]
    count_R1 = kept_RK.sum(-1, keepdim=True).minimum(limit_R1)
    sums_RK = (weights_RK * kept_RK).double().cumsum(-1)
    limited_R1 = limit_R1 < vocab_size
    total_R1 = sums_RK.gather(1, count_R1 - 1).where(limited_R1, draws.total_S[:, None])
    total_known_R1 = ~limited_R1 | (count_R1 < candidates)
    needed_R1 = 1 + (sums_RK < draws.top_p_S[:, None] * total_R1).sum(-1, keepdim=True)
    count_R1 = count_R1.minimum(needed_R1)
    inside_R1 = values_RK.gather(1, count_R1 - 1) > values_RK[:, -1:]
    return count_R1, (total_known_R1 & inside_R1) | (candidates == vocab_size)


def _first(logits_RK: Tensor, cut_R1: Tensor, count_R1: Tensor) -> Tensor:
    """Marks the `count` first of logits that are in order of id; `cut` is the last one's logit."""
    above_RK, equal_RK = logits_RK > cut_R1, logits_RK == cut_R1
    ties_R1 = count_R1 - above_RK.sum(-1, keepdim=True)
    return above_RK | (equal_RK & (equal_RK.cumsum(-1) <= ties_R1))


def _filter(logits_V: Tensor, weights_V: Tensor, top_k: Tensor, top_p: Tensor) -> None:
    """Sets what top_k and top_p drop from one row's fp64 weights to 0, however many they keep.

    No sort of the row: the weights are summed by level (the upper bits of their fp32 form, whose
    order is theirs), and only the level where the sum reaches top_p is put in order.
    """
    vocab_size = len(logits_V)
    if top_k < vocab_size:
        cut_1 = logits_V.kthvalue(vocab_size - int(top_k) + 1).values[None]
        weights_V *= _first(logits_V[None], cut_1[None], top_k[None, None])[0]
    level_V = weights_V.float().view(torch.int32) >> 15
    reached = torch.bincount(level_V, weights=weights_V).flip(0).cumsum(0)
    target = top_p * reached[-1]
    rank = torch.searchsorted(reached, target)
    level = len(reached) - 1 - rank
    last_N = (level_V == level).nonzero()[:, 0]
    last_N = last_N[logits_V[last_N].argsort(descending=True, stable=True)]
    before = F.pad(reached, (1, 0))[rank]
    needed = 1 + (before + weights_V[last_N].cumsum(0) < target).sum()
    weights_V[level_V < level] = 0
    weights_V[last_N[needed:]] = 0


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64, a bijection of 64 bits."""
    bits = (bits ^ _shift_right(bits, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    bits = (bits ^ _shift_right(bits, 27)) * (0x94D049BB133111EB - (1 << 64))
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, distance: int) -> Tensor:
    """A shift that fills with zeros; int64's own fills with the sign."""
    return (bits >> distance) & ((1 << (64 - distance)) - 1)
