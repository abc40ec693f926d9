"""The sampler on the CPU. The oracle is plain NumPy, fp64, a full sort; transformers is another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.generation import logits_process as theirs

from accuracy import assert_as_exact
from caravan_kernels import sampling
from caravan_kernels.cpu import sampling as cpu_sampling
from sampling_oracle import (
    EQUAL,
    FILTERS,
    WIDE,
    Row,
    assert_drawn,
    chi_square_limit,
    columns,
    probabilities,
    random_logits,
    uniform,
)

VOCAB_SIZES = [1, 7, 300, 1023, 1024, 5000]


def sample(logits_SV: Tensor, rows: Sequence[Row]) -> list[int]:
    token_S = sampling.sample(logits_SV, *columns(rows, logits_SV.device))
    assert token_S.dtype == torch.int64
    return [int(token) for token in token_S]


def many_seeds(logits_V: Tensor, row: Row, count: int) -> list[int]:
    return sample(logits_V.expand(count, -1), [row.seeded(seed) for seed in range(count)])


# ---- the uniform numbers


def test_uniform_is_splitmix64() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    ours = sampling.uniform(torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert ours.tolist() == [(bits >> 11) / 2**53 for bits in published]


@pytest.mark.parametrize("seed", [0, 1, 2, 42, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
def test_uniform_counts_what_splitmix64_steps(seed: int) -> None:
    ours = sampling.uniform(torch.full((50,), seed), torch.arange(50))
    assert ours.dtype == torch.float64
    assert ours.tolist() == [uniform(seed, index) for index in range(50)]


@pytest.mark.parametrize("along", ["seed", "index"])
def test_uniform_has_no_pattern_along_seeds_or_indices(along: str) -> None:
    count, zero = torch.arange(100_001), torch.zeros(100_001, dtype=torch.int64)
    u = sampling.uniform(*((count, zero) if along == "seed" else (zero, count)))
    assert 0 <= u.min() < u.max() < 1
    cells = (u[:-1] * 20).long() * 20 + (u[1:] * 20).long()  # neighbours, so 400 cells
    expected = len(cells) / 400
    statistic = ((torch.bincount(cells, minlength=400) - expected) ** 2 / expected).sum()
    assert statistic < chi_square_limit(399)


# ---- the draw against the oracle


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("row", FILTERS, ids=str)
def test_draw(row: Row, vocab_size: int) -> None:
    for seed in range(20):
        logits_V = random_logits(seed, vocab_size)
        drawn = row.seeded(seed - 10, index=seed % 3)
        (token,) = sample(logits_V[None], [drawn])
        assert_drawn(logits_V, drawn, token)


@pytest.mark.parametrize("row", WIDE, ids=str)
def test_draw_from_many_kept_tokens(row: Row) -> None:
    for seed in range(20):
        logits_V = random_logits(seed, 5000, scale=1.0)
        (token,) = sample(logits_V[None], [row.seeded(seed)])
        assert_drawn(logits_V, row.seeded(seed), token)


@pytest.mark.parametrize("row", [*FILTERS, *WIDE], ids=str)
def test_the_number_of_candidates_does_not_matter(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bf16 has many equal logits, and filters that end among them
    logits_SV = random_logits(0, 40, 5000).bfloat16().float()
    rows = [row.seeded(seed) for seed in range(40)]
    expected = sample(logits_SV, rows)
    for candidates in (1, 3, 17, 5000):
        monkeypatch.setattr(cpu_sampling, "_CANDIDATES", candidates)
        assert sample(logits_SV, rows) == expected


@pytest.mark.parametrize("row", FILTERS, ids=str)
def test_drawn_tokens_are_distributed_as_they_should_be(row: Row) -> None:
    logits_V = random_logits(3, 11, scale=0.8)
    count = 20_000
    expected = probabilities(logits_V, row) * count
    seen = np.bincount(many_seeds(logits_V, row, count), minlength=11)
    assert (seen[expected == 0] == 0).all()
    kept = expected > 0
    assert expected[kept].min() > 20, "too rare for the approximation"
    statistic = ((seen[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    assert statistic < chi_square_limit(max(1, kept.sum() - 1))


def test_outputs_of_one_seed_are_distributed_as_they_should_be() -> None:
    p = torch.tensor([0.5, 0.2, 0.2, 0.1])
    rows = [Row(seed=7, index=index) for index in range(20_000)]
    seen = np.bincount(sample(p.log().expand(len(rows), -1), rows))
    expected = p.numpy() * len(rows)
    assert ((seen - expected) ** 2 / expected).sum() < chi_square_limit(3)


@pytest.mark.parametrize("row", FILTERS, ids=str)
def test_kept_tokens_are_those_of_transformers(row: Row) -> None:
    scores = random_logits(5, 1, 12, scale=0.7)
    logits_V = scores[0].clone()
    scores = scores / row.temperature
    no_ids = torch.zeros(1, 0, dtype=torch.int64)
    if row.min_p:
        scores = theirs.MinPLogitsWarper(row.min_p)(no_ids, scores)
    if row.top_k:
        scores = theirs.TopKLogitsWarper(row.top_k)(no_ids, scores)
    if row.top_p < 1:
        scores = theirs.TopPLogitsWarper(row.top_p)(no_ids, scores)
    p = scores[0].softmax(-1)
    assert p[p > 0].min() > 0.005, "too rare to be seen"
    assert set(many_seeds(logits_V, row, 5000)) == set(p.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("vocab_size", [10, 3000])
@pytest.mark.parametrize(("row", "kept"), EQUAL, ids=str)
def test_of_equal_logits_the_lower_ids_are_kept(row: Row, kept: int, vocab_size: int) -> None:
    """Ten equal tokens, spread out; all others are ten thousand times less probable."""
    logits_V = torch.full((vocab_size,), -math.inf)
    ids = torch.arange(10) * (vocab_size // 10)
    logits_V[ids] = 1.5
    assert set(many_seeds(logits_V, row, 400)) == set(ids[:kept].tolist())


@pytest.mark.parametrize("row", [Row(top_k=1000), Row(top_p=1 / 3)], ids=str)
def test_of_many_equal_logits_the_lower_ids_are_kept(row: Row) -> None:
    tokens = many_seeds(torch.zeros(3000), row, 1000)
    assert 990 < max(tokens) < 1000  # the last ids are missed once in 20,000 runs
    assert min(tokens) < 10


def test_top_p_stops_where_the_filter_before_it_was_renormalised() -> None:
    logits_V = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # 0.4 / 0.7 = 0.571 of what top_k leaves; 0.4 of everything
    assert set(many_seeds(logits_V, Row(top_k=2, top_p=0.57), 300)) == {0}
    assert set(many_seeds(logits_V, Row(top_p=0.57), 300)) == {0, 1}
    # 0.7 / 0.9 = 0.778 of what min_p leaves
    assert set(many_seeds(logits_V, Row(min_p=0.3, top_p=0.75), 300)) == {0, 1}
    assert set(many_seeds(logits_V, Row(top_p=0.75), 300)) == {0, 1, 2}


@pytest.mark.parametrize("blocks", [1, 7])
def test_the_ends_of_the_distribution_have_a_weight(blocks: int) -> None:
    """Sums of blocks and sums inside them round differently, in up to half of these rows."""
    weights = random_logits(0, 500, blocks * 512, scale=8.0).exp().double()
    first, last = 5 if blocks == 1 else 512 + 5, blocks * 512 - 13
    weights[:, :first] = weights[:, last + 1 :] = 0
    weights[:, first] = weights[:, last] = weights.amax()
    u = torch.zeros(500, dtype=torch.float64)
    blocked = weights.unflatten(1, (blocks, 512))
    assert cpu_sampling._pick(blocked, u).tolist() == [first] * 500
    assert cpu_sampling._pick(blocked, u + (1 - 2**-53)).tolist() == [last] * 500


# ---- greedy, and what is as good as greedy


@pytest.mark.parametrize("vocab_size", [*VOCAB_SIZES, 1100, 1535, 1536])
def test_greedy_takes_the_lowest_of_equal_ids(vocab_size: int) -> None:
    places = sorted({0, 1, 511, 512, 600, vocab_size // 2, vocab_size - 2, vocab_size - 1})
    for pair in itertools.combinations_with_replacement(places, 2):
        if pair[0] < 0 or pair[1] >= vocab_size:
            continue
        logits_V = torch.full((vocab_size,), -3.0)
        logits_V[list(pair)] = -1.0
        assert sample(logits_V[None], [Row(temperature=0.0)]) == [pair[0]]


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize(
    "row",
    [
        Row(temperature=0.0, top_k=5, top_p=0.5, min_p=0.1),
        Row(top_k=1),
        Row(temperature=1e6, top_k=1),
        Row(top_p=1e-9),
        Row(temperature=1e6, top_p=1e-9),
        Row(min_p=1.0),
        Row(temperature=1e-30),
        Row(temperature=1e-42),  # fp32 has it, as a subnormal number
        Row(temperature=1e-60),  # fp32 has 0
        Row(temperature=1e-30, top_p=0.999),
    ],
    ids=str,
)
def test_as_good_as_greedy(row: Row, vocab_size: int) -> None:
    logits_SV = random_logits(vocab_size, 30, vocab_size)
    rows = [row.seeded(seed) for seed in range(30)]
    assert sample(logits_SV, rows) == logits_SV.argmax(-1).tolist()


# ---- rows do not meet


def mixed_rows(count: int) -> list[Row]:
    rows = [*FILTERS, *WIDE, Row(temperature=0.0), Row(temperature=0.0, top_p=0.3)]
    return [rows[i * 7 % len(rows)].seeded(i % 5, index=i) for i in range(count)]


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_a_row_is_the_same_alone_and_in_any_batch(vocab_size: int) -> None:
    logits_SV = random_logits(vocab_size, 60, vocab_size).bfloat16().float()
    rows = mixed_rows(60)
    alone = [sample(logits_SV[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert sample(logits_SV, rows) == alone
    assert sample(logits_SV.flip(0), rows[::-1]) == alone[::-1]
    assert sample(logits_SV[5:28], rows[5:28]) == alone[5:28]


def test_the_whole_vocabulary_of_llama_4() -> None:
    vocab_size = 202048
    falling_V = -1.5 * torch.arange(1, vocab_size + 1).log()
    peaked_V = falling_V[torch.randperm(vocab_size, generator=torch.Generator().manual_seed(0))]
    flat_V = random_logits(1, vocab_size, scale=0.3)
    rows = [
        Row(temperature=0.0),
        Row(temperature=0.7),
        Row(top_k=50, top_p=0.9),
        Row(top_p=0.9),
        Row(min_p=0.05),
    ]
    logits_SV = torch.stack([peaked_V] * 5 + [flat_V] * 5)
    rows = [row.seeded(i) for i, row in enumerate(rows * 2)]
    before = logits_SV.clone()
    tokens = sample(logits_SV, rows)
    assert torch.equal(logits_SV, before)
    for logits_V, row, token in zip(logits_SV, rows, tokens, strict=True):
        if row.temperature:
            u, p = uniform(row.seed, 0), oracle_at_scale(logits_V, row)
            end = p.cumsum()[token]
            assert p[token] > 0
            assert end - p[token] - 1e-5 <= u <= end + 1e-5
        else:
            assert token == logits_V.argmax()


def oracle_at_scale(logits_V: Tensor, row: Row) -> NDArray[np.float64]:
    """As `probabilities`; among 202048 tokens some filter is always close, by one token."""
    logits = logits_V.double().numpy()
    p = np.exp((logits - logits.max()) / row.temperature)
    p[p < row.min_p] = 0
    order = np.argsort(-logits, kind="stable")
    p[order[row.top_k or len(p) :]] = 0
    p /= p.sum()
    if row.top_p < 1:
        p[order[np.searchsorted(p[order].cumsum(), row.top_p) + 1 :]] = 0
    return np.asarray(p / p.sum())


def test_the_seed_and_the_index_decide() -> None:
    logits_V = torch.zeros(1000)
    rows = [Row(seed=seed, index=index) for seed in range(10) for index in range(10)]
    tokens = sample(logits_V.expand(100, -1), rows)
    assert tokens == sample(logits_V.expand(100, -1), rows)
    assert len(set(tokens)) > 85  # of 100 drawn from 1000, 95 are expected to differ


# ---- extreme and broken logits


@pytest.mark.parametrize("row", [*FILTERS, Row(temperature=0.0)], ids=str)
def test_forbidden_tokens_are_never_drawn(row: Row) -> None:
    logits_V = random_logits(0, 300)
    allowed = [3, 77, 78, 255, 299]
    masked_V = torch.full_like(logits_V, -math.inf)
    masked_V[allowed] = logits_V[allowed]
    assert set(many_seeds(masked_V, row, 300)) <= set(allowed)


@pytest.mark.parametrize("row", FILTERS, ids=str)
@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_far_logits(row: Row, shift: float) -> None:
    logits_V = random_logits(0, 300) + shift
    for seed in range(10):
        (token,) = sample(logits_V[None], [row.seeded(seed)])
        assert_drawn(logits_V, row.seeded(seed), token)


@pytest.mark.parametrize("row", [*FILTERS, *WIDE, Row(temperature=0.0)], ids=str)
def test_the_range_of_fp32(row: Row) -> None:
    largest = torch.finfo(torch.float32).max
    logits_V = torch.full((700,), -largest)
    logits_V[[600, 650]] = largest
    one = row.temperature == 0 or row.top_k == 1 or row.top_p <= 0.5
    kept = {600} if one else {600, 650}
    assert set(many_seeds(logits_V, row, 50)) == kept


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("row", [*FILTERS, Row(temperature=0.0)], ids=str)
def test_a_broken_row_is_marked_and_leaves_the_others_alone(
    row: Row, broken: float, vocab_size: int
) -> None:
    logits_SV = random_logits(0, 4, vocab_size)
    rows = [row.seeded(seed) for seed in range(4)]
    expected = sample(logits_SV, rows)
    logits_SV[1, vocab_size // 2] = logits_SV[3, -1] = broken
    assert sample(logits_SV, rows) == [expected[0], -1, expected[2], -1]


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("row", [*FILTERS, Row(temperature=0.0)], ids=str)
def test_a_row_without_any_allowed_token_gives_the_first(row: Row, vocab_size: int) -> None:
    assert sample(torch.full((2, vocab_size), -math.inf), [row, Row(temperature=0.0)]) == [0, 0]


# ---- bias and penalties


def test_bias_adds_up_and_minus_infinity_forbids() -> None:
    logits_SV = torch.zeros(2, 5)
    rows, ids = torch.tensor([0, 1, 1, 1, 1]), torch.tensor([2, 2, 2, 4, 4])
    values = torch.tensor([-100.0, 1.0, 0.5, -math.inf, 100.0])
    sampling.apply_bias(logits_SV, rows, ids, values)
    assert logits_SV.tolist() == [[0, 0, -100, 0, 0], [0, 0, 1.5, 0, -math.inf]]


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits_SV = random_logits(0, 3, 50)
    logits_SV[0, :3] = torch.tensor([0.0, -math.inf, 5.0])
    penalties = [0.7, 1.0, 1.9]
    ids_SN = torch.stack([torch.randperm(50)[:20] for _ in range(3)])
    ids_SN[0, :3] = torch.arange(3)
    expected = [
        theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids_SN[i : i + 1], logits_SV[i : i + 1])
        for i, penalty in enumerate(penalties)
    ]
    counts = torch.zeros(3, 50, dtype=torch.int32).scatter_(1, ids_SN, sampling.IN_PROMPT)
    rows, off = torch.arange(3), torch.zeros(3)
    sampling.apply_penalties(logits_SV, rows, counts, torch.tensor(penalties), off, off)
    assert torch.equal(logits_SV, torch.cat(expected))


def test_frequency_and_presence_penalties_count_the_output() -> None:
    logits_SV = random_logits(0, 3, 6)
    expected = logits_SV.clone()
    seen = {(0, 2): 1, (0, 5): 7, (2, 0): 3}
    counts = torch.zeros(3, 6, dtype=torch.int32)
    counts[0, 1] = counts[0, 2] = sampling.IN_PROMPT  # the prompt does not count here
    frequency, presence = [0.5, 0.0, -1.25], [0.25, 0.0, 2.0]
    for (row, token), count in seen.items():
        expected[row, token] -= frequency[row] * count + presence[row]
        counts[row, token] += count
    rows = torch.tensor([2, 0])  # row 1 has no penalties
    sampling.apply_penalties(
        logits_SV,
        rows,
        counts[rows],
        torch.ones(2),
        torch.tensor(frequency)[rows],
        torch.tensor(presence)[rows],
    )
    torch.testing.assert_close(logits_SV, expected, rtol=0, atol=1e-6)
    assert torch.equal(logits_SV[1], expected[1])
    assert logits_SV[0, 1] == expected[0, 1]


def test_repetition_comes_before_frequency() -> None:
    logits_SV = torch.tensor([[4.0, -4.0]])
    counts, ones = torch.ones(1, 2, dtype=torch.int32), torch.ones(1)
    sampling.apply_penalties(logits_SV, torch.tensor([0]), counts, 2 * ones, ones, ones)
    assert logits_SV.tolist() == [[0.0, -10.0]]


def test_counting_leaves_out_rows_and_tokens_below_zero() -> None:
    counts = torch.zeros(3, 4, dtype=torch.int32)
    counts[1, 2] = sampling.IN_PROMPT + 5
    rows, tokens = torch.tensor([1, -1, 2, 0]), torch.tensor([2, 1, 3, -1])
    sampling.count_tokens(counts, rows, tokens)
    assert counts[1].tolist() == [0, 0, sampling.IN_PROMPT + 6, 0]
    assert counts[[0, 2]].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


# ---- log-probabilities


@pytest.mark.parametrize("vocab_size", [*VOCAB_SIZES, 202048])
@pytest.mark.parametrize("scale", [0.01, 2.0, 300.0])
def test_logprobs(vocab_size: int, scale: float) -> None:
    logits_SV = random_logits(0, 3, vocab_size, scale=scale) + 50
    token_S = torch.randint(0, vocab_size, (3,))
    chosen, ids, values = sampling.logprobs(logits_SV, token_S, 20)
    exact, same = logits_SV.double().log_softmax(-1), logits_SV.log_softmax(-1)
    assert_as_exact(
        chosen, same.gather(1, token_S[:, None])[:, 0], exact.gather(1, token_S[:, None])[:, 0]
    )
    assert ids.shape == values.shape == (3, min(20, vocab_size))
    assert_as_exact(values, same.gather(1, ids), exact.gather(1, ids))
    order = [np.argsort(-row.numpy(), kind="stable")[:20].tolist() for row in logits_SV]
    assert ids.tolist() == order


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_the_lower_id_of_equal_logprobs_comes_first(num_top: int) -> None:
    coarse_SV = (random_logits(0, 20, 5000) * 2).round() / 2
    coarse_SV[7] = 0
    _, ids, values = sampling.logprobs(coarse_SV, torch.zeros(20, dtype=torch.int64), num_top)
    order = [np.argsort(-row.numpy(), kind="stable")[:num_top].tolist() for row in coarse_SV]
    assert ids.tolist() == order
    assert torch.equal(values, values.sort(-1, descending=True).values)


def test_logprobs_are_the_same_alone_and_in_any_batch() -> None:
    logits_SV = random_logits(0, 30, 5000)
    token_S = torch.arange(30)
    together = sampling.logprobs(logits_SV, token_S, 5)
    for i in range(30):
        alone = sampling.logprobs(logits_SV[i : i + 1], token_S[i : i + 1], 5)
        for ours, theirs_ in zip(alone, together, strict=True):
            assert torch.equal(ours[0], theirs_[i])


def test_logprobs_of_forbidden_tokens() -> None:
    logits_SV = torch.tensor([[0.0, -math.inf, 0.0]])
    chosen, ids, values = sampling.logprobs(logits_SV, torch.tensor([1]), 3)
    assert chosen.tolist() == [-math.inf]
    assert ids.tolist() == [[0, 2, 1]]
    half = math.log(0.5)
    assert values[0].tolist() == pytest.approx([half, half, -math.inf])
