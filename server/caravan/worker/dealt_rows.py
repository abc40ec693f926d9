"""Greedy tokens and log-probabilities of rows whose words lie on several tensor-parallel ranks.

S rows of logits, P words of a rank's part of the vocabulary, R ranks
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caravan.model.parallel import TensorParallel
from caravan_kernels import sampling as kernels


def best_words(group: TensorParallel, logits_SP: Tensor) -> Tensor:
    """What `kernels.sampling.sample` gives for greedy rows, int64 [S] on every rank.

    A rank tells the others its best word of each row and its logit, 16 bytes a row.
    """
    max_S, place_S = logits_SP.max(-1)
    word_S = place_S + group.rank * logits_SP.shape[1]
    candidate_S2 = torch.stack([max_S.double(), word_S.double()], dim=1)  # words are exact in fp64
    candidate_RS2 = group.gather(candidate_S2)
    max_RS, word_RS = candidate_RS2.unbind(-1)
    # the first rank of equals has the lowest word; a NaN is the maximum wherever it is
    best_S, rank_S = max_RS.max(0)
    token_S = word_RS.gather(0, rank_S[None])[0].long()
    return token_S.where(best_S < math.inf, -1)


def dealt_logprobs(
    group: TensorParallel, logits_SP: Tensor, token_S: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`kernels.sampling.logprobs` of all rows, on every rank; each computes its own rows."""
    if group.size == 1:
        return kernels.logprobs(logits_SP, token_S, num_top)
    rows = len(token_S)
    num_top = min(num_top, logits_SP.shape[1] * group.size)
    logits_nV = group.deal(logits_SP)
    if len(logits_nV):
        found = kernels.logprobs(logits_nV, token_S[group.own(rows)], num_top)
    else:
        found = (
            logits_nV.new_empty(0),
            token_S.new_empty(0, num_top),
            logits_nV.new_empty(0, num_top),
        )
    chosen, ids, values = (group.collect(part, rows) for part in found)
    return chosen, ids, values
