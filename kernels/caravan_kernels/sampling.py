"""From logits to tokens: masks, bias, penalties, filters, the draw, and log-probabilities.

For one row of logits l [V] with temperature T, in this order:

    apply_masks       l[id]  = -inf                   where the bit of id is 0
    apply_bias        l[id] += value                  -inf forbids a token
    apply_penalties   l[id]  = l[id] / r  if l[id] > 0 else l[id] * r;  l[id] -= f * c + q * (c > 0)
    temperature       w[id]  = exp((l[id] - max l) / T)             T = 0: the token is argmax l
    min_p             keep the tokens with w >= min_p               max w is 1
    top_k             of these, keep the k first
    top_p             of these, keep the shortest prefix whose w reaches top_p of their sum
    draw              the first kept token, in order of id, where the running sum of w is above
                      u * (sum of the kept w), with u = uniform(seed, index)

"First" and "prefix" are in order of falling logit, a lower id before a higher one where logits are
equal; argmax takes the lowest id too. Each filter sees what the one before it left, renormalised:
top_p = 0.9 after top_k = 50 is nine tenths of the mass of those 50. At least one token is kept.

Rows never mix: a row's token does not depend on the other rows of the call.

    S rows (one per token to draw), V vocabulary, R rows with penalties, N entries of sparse changes
"""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import devices
from caravan_kernels.cpu import sampling as cpu

IN_PROMPT = cpu.IN_PROMPT


def sample(
    logits_SV: Tensor,
    temperature_S: Tensor,
    top_k_S: Tensor,
    top_p_S: Tensor,
    min_p_S: Tensor,
    seed_S: Tensor,
    index_S: Tensor,
    *,
    filtered: bool = True,
) -> Tensor:
    """Draws one token per row -> int64 [S]; the module docstring has the formula.

    logits fp32 [S, V], -inf forbids; temperature fp32 (0: greedy), top_k int64 (0: off), top_p fp64
    in (0, 1] (1: off), min_p fp32 in [0, 1] (0: off), seed and index int64, all [S]. Without
    `filtered` no row has top_k, top_p or min_p, which saves a GPU the search for what they keep.

    A row that holds NaN or +inf gives -1; a row of -inf everywhere gives 0.
    """
    rows = (logits_SV, temperature_S, top_k_S, top_p_S, min_p_S, seed_S, index_S)
    if devices.on_gpu(logits_SV):
        from caravan_kernels.gpu import sampling as gpu

        return gpu.sample(*rows, filtered=filtered)
    return cpu.sample(*rows)


def apply_masks(logits_SV: Tensor, row_R: Tensor, words_RW: Tensor) -> None:
    """logits[row] = -inf for the tokens whose bit is 0, in place; no row twice.

    logits fp32 [S, V], row int64 [R], words int32 [R, ceil(V / 32)]: token i is bit i % 32 of word
    i // 32.
    """
    implementation = cpu.apply_masks
    if devices.on_gpu(logits_SV):
        from caravan_kernels.gpu import sampling as gpu

        implementation = gpu.apply_masks
    implementation(logits_SV, row_R, words_RW)


def apply_bias(logits_SV: Tensor, row_N: Tensor, id_N: Tensor, value_N: Tensor) -> None:
    """logits[row, id] += value, in place; entries of the same token add up.

    logits fp32 [S, V], row and id int64 [N], value fp32 [N], where -inf forbids the token.
    """
    implementation = cpu.apply_bias
    if devices.on_gpu(logits_SV):
        from caravan_kernels.gpu import sampling as gpu

        implementation = gpu.apply_bias
    implementation(logits_SV, row_N, id_N, value_N)


def apply_penalties(
    logits_SV: Tensor,
    row_R: Tensor,
    counts_RV: Tensor,
    repetition_R: Tensor,
    frequency_R: Tensor,
    presence_R: Tensor,
) -> None:
    """Makes tokens that were there less likely, in place; the module docstring has the formula.

    logits fp32 [S, V]; row int64 [R] says whose penalties these are, no row twice. counts int32
    [R, V] says how often each token is in the output (c in the formula), with IN_PROMPT where it is
    in the prompt and the prompt counts. repetition (r), frequency (f), presence (q): fp32 [R].
    """
    implementation = cpu.apply_penalties
    if devices.on_gpu(logits_SV):
        from caravan_kernels.gpu import sampling as gpu

        implementation = gpu.apply_penalties
    implementation(logits_SV, row_R, counts_RV, repetition_R, frequency_R, presence_R)


def count_tokens(counts_RV: Tensor, row_S: Tensor, token_S: Tensor) -> None:
    """counts[row, token] += 1, where neither is negative; both int64 [S], no row twice."""
    if devices.on_gpu(counts_RV):
        from caravan_kernels.gpu import sampling as gpu

        gpu.count_tokens(counts_RV, row_S, token_S)
    else:
        cpu.count_tokens(counts_RV, row_S, token_S)


def logprobs(logits_SV: Tensor, token_S: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """log softmax(l) of `token` and of the `num_top` best tokens, all V where V is smaller.

    logits fp32 [S, V] with a finite maximum, token int64 [S] -> of the token fp32 [S]; the best,
    falling, the lower id first where equal: ids int64 [S, num_top], fp32 [S, num_top].
    """
    implementation = cpu.logprobs
    if devices.on_gpu(logits_SV):
        from caravan_kernels.gpu import logprobs as gpu

        implementation = gpu.logprobs
    return implementation(logits_SV, token_S, num_top)


def uniform(seed_S: Tensor, index_S: Tensor) -> Tensor:
    """The `index`-th number of the stream of `seed`: see `cpu.sampling.uniform`."""
    return cpu.uniform(seed_S, index_S)
