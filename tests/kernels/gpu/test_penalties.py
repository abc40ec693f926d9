"""Masks, bias, penalties, and the counts that penalties need, on the GPU."""

from __future__ import annotations

import math

import pytest
import torch

from caravan_kernels import sampling as api
from caravan_kernels.gpu import sampling
from sampling_oracle import random_logits
from triton_device import DEVICE


def test_bias_adds_up_and_minus_infinity_forbids() -> None:
    logits_SV = torch.zeros(3, 700, device=DEVICE)
    entries = [
        *((0, 2, -100.0), (1, 2, 1.0), (1, 2, 0.5), (1, 4, -math.inf), (1, 4, 100.0)),
        *((-1, 5, 7.0), (2, 699, 3.0)),
        *((0, i, float(i)) for i in range(200, 500)),  # more than one program takes
    ]
    row, ids, values = (
        torch.tensor(column, device=DEVICE) for column in zip(*entries, strict=True)
    )
    sampling.apply_bias(logits_SV, row, ids, values)
    expected = torch.zeros(3, 700)
    expected[0, 2], expected[1, 2], expected[1, 4], expected[2, 699] = -100, 1.5, -math.inf, 3
    expected[0, 200:500] = torch.arange(200.0, 500.0)
    assert torch.equal(logits_SV.cpu(), expected)


@pytest.mark.parametrize("vocab_size", [50, 5000])
def test_penalties_are_those_of_the_cpu(vocab_size: int) -> None:
    logits_SV = random_logits(0, 4, vocab_size)
    logits_SV[1, :3] = torch.tensor([0.0, -math.inf, 5.0])
    generator = torch.Generator().manual_seed(1)
    counts_RV = torch.randint(-2, 4, (3, vocab_size), generator=generator).clamp(min=0)
    in_prompt = torch.rand(3, vocab_size, generator=generator) < 0.3
    counts_RV = (counts_RV + api.IN_PROMPT * in_prompt).int()
    counts_RV[:, :3] = 1
    row_R = torch.tensor([1, 3, 0])
    repetition = torch.tensor([1.3, 1.0, 0.7])
    frequency, presence = torch.tensor([0.5, -1.25, 0.0]), torch.tensor([0.0, 2.0, 0.25])
    arguments = (row_R, counts_RV, repetition, frequency, presence)
    ours = logits_SV.to(DEVICE)
    sampling.apply_penalties(ours, *(x.to(DEVICE) for x in arguments))
    api.apply_penalties(logits_SV, *arguments)
    torch.testing.assert_close(ours.cpu(), logits_SV, rtol=0, atol=1e-6)
    assert torch.equal(ours[2].cpu(), logits_SV[2])  # of no penalties


def test_the_prompt_counts_for_the_repetition_penalty_alone() -> None:
    logits_SV = torch.full((2, 4), 4.0, device=DEVICE)
    counts = torch.tensor([[0, 3, api.IN_PROMPT, api.IN_PROMPT + 3]], dtype=torch.int32)
    one = torch.ones(1, device=DEVICE)
    row_R = torch.tensor([1], device=DEVICE)
    sampling.apply_penalties(logits_SV, row_R, counts.to(DEVICE), 2 * one, one, 0.5 * one)
    assert logits_SV.tolist() == [[4.0] * 4, [4.0, -1.5, 2.0, -1.5]]
    sampling.apply_penalties(logits_SV, row_R - 2, counts.to(DEVICE), 2 * one, one, one)
    assert logits_SV.tolist() == [[4.0] * 4, [4.0, -1.5, 2.0, -1.5]]


def test_tokens_are_counted() -> None:
    around = torch.zeros(7, 300, dtype=torch.int32, device=DEVICE)
    counts = around[1:-1]
    counts[1, 7] = api.IN_PROMPT
    rows = torch.tensor([1, 0, -1, 4, 2], device=DEVICE)
    for tokens in ([7, 0, 5, 299, -1], [7, 1, 5, 299, 3]):
        sampling.count_tokens(counts, rows, torch.tensor(tokens, device=DEVICE))
    found = {(r, t): int(counts[r, t]) for r, t in counts.nonzero().tolist()}
    assert found == {(1, 7): api.IN_PROMPT + 2, (0, 0): 1, (0, 1): 1, (4, 299): 2, (2, 3): 1}
    assert around[0].count_nonzero() == around[-1].count_nonzero() == 0


@pytest.mark.parametrize("vocab_size", [31, 32, 700, 3001])
def test_a_mask_forbids_the_tokens_whose_bits_are_0(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(2)
    allowed_RV = torch.rand(2, -(-vocab_size // 32) * 32, generator=generator) < 0.3
    powers = 1 << torch.arange(32)
    words_RW = (allowed_RV.view(2, -1, 32) * powers).sum(-1).to(torch.int32)  # bit 31 wraps
    row_R = torch.tensor([3, 1])
    logits_SV = random_logits(0, 4, vocab_size)
    expected = logits_SV.clone()
    for row, allowed_V in zip(row_R.tolist(), allowed_RV[:, :vocab_size], strict=True):
        expected[row, ~allowed_V] = -math.inf
    around = torch.zeros(6, vocab_size, device=DEVICE)
    ours = around[1:-1]
    ours.copy_(logits_SV)
    sampling.apply_masks(ours, row_R.to(DEVICE), words_RW.to(DEVICE))
    api.apply_masks(logits_SV, row_R, words_RW)
    assert torch.equal(ours.cpu(), expected)
    assert torch.equal(logits_SV, expected)
    assert around[0].count_nonzero() == around[-1].count_nonzero() == 0
