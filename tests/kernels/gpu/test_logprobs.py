"""Log-probabilities on the GPU against fp64 and a full sort."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from accuracy import assert_as_exact
from caravan_kernels.gpu.logprobs import logprobs
from poison import poison_new_tensors, rows_amid_nan
from sampling_oracle import random_logits
from triton_device import DEVICE

VOCAB_SIZES = [1, 7, 300, 5000, 8192]


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    poison_new_tensors(monkeypatch)
    with np.errstate(all="ignore"):  # the interpreter computes with NumPy, a GPU says nothing
        yield


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("scale", [0.01, 2.0, 300.0])
def test_logprobs(vocab_size: int, scale: float) -> None:
    logits_SV = random_logits(0, 2, vocab_size, scale=scale) + 50
    token_S = torch.tensor([0, vocab_size - 1])
    ours = logprobs(rows_amid_nan(logits_SV.to(DEVICE)), token_S.to(DEVICE), 20)
    chosen, ids, values = (x.cpu() for x in ours)
    exact, same = logits_SV.double().log_softmax(-1), logits_SV.log_softmax(-1)
    at = token_S[:, None]
    assert_as_exact(chosen, same.gather(1, at)[:, 0], exact.gather(1, at)[:, 0])
    assert ids.shape == values.shape == (2, min(20, vocab_size))
    assert_as_exact(values, same.gather(1, ids), exact.gather(1, ids))
    order = [np.argsort(-row.numpy(), kind="stable")[:20].tolist() for row in logits_SV]
    assert ids.tolist() == order


@pytest.mark.parametrize("num_top", [0, 1, 20])
def test_the_lower_id_of_equal_logprobs_comes_first(num_top: int) -> None:
    coarse_SV = (random_logits(0, 3, 5000) * 2).round() / 2
    coarse_SV[1] = 0
    coarse_SV[1, ::3] = -0.0
    ours = logprobs(coarse_SV.to(DEVICE), torch.zeros(3, dtype=torch.int64, device=DEVICE), num_top)
    order = [np.argsort(-row.numpy(), kind="stable")[:num_top].tolist() for row in coarse_SV]
    assert ours[1].tolist() == order
    assert torch.equal(ours[2], ours[2].sort(-1, descending=True).values)


def test_logprobs_of_forbidden_tokens() -> None:
    logits_SV = torch.full((1, 70), -math.inf)
    logits_SV[0, [3, 66]] = 0
    token_S = torch.tensor([1], device=DEVICE)
    chosen, ids, values = logprobs(logits_SV.to(DEVICE), token_S, 70)
    assert chosen.tolist() == [-math.inf]
    assert ids.tolist() == [[3, 66, *(i for i in range(70) if i not in (3, 66))]]
    assert values[0].tolist() == pytest.approx([math.log(0.5)] * 2 + [-math.inf] * 68)


@pytest.mark.gpu
def test_logprobs_of_the_whole_vocabulary() -> None:
    logits_SV = random_logits(0, 5, 202048).bfloat16().float()
    ours = logprobs(logits_SV.to(DEVICE), torch.arange(5, device=DEVICE), 100)
    chosen, ids, values = (x.cpu() for x in ours)
    exact, same = logits_SV.double().log_softmax(-1), logits_SV.log_softmax(-1)
    assert_as_exact(chosen, same.diagonal(), exact.diagonal())
    assert_as_exact(values, same.gather(1, ids), exact.gather(1, ids))
    order = [np.argsort(-row.numpy(), kind="stable")[:100].tolist() for row in logits_SV]
    assert ids.tolist() == order
