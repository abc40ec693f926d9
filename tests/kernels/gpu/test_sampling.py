"""Drawing on the GPU against NumPy, and each thing that the formula says at its edge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels import sampling as api
from caravan_kernels.gpu import random_numbers, sampling, tile_statistics
from caravan_kernels.gpu.tile_statistics import GROUP, TILE
from poison import poison_new_tensors, rows_amid_nan
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
    seed_near,
)
from triton_device import DEVICE

SEEDS = 20 if DEVICE.type == "cuda" else 1  # the interpreter takes 0.1 s for a filtered row
VOCAB_SIZES = [1, 7, 300, 5000]
GREEDY = Row(temperature=0.0)


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    poison_new_tensors(monkeypatch)
    with np.errstate(all="ignore"):  # the interpreter computes with NumPy, a GPU says nothing
        yield


def sample(logits_SV: Tensor, rows: Sequence[Row], *, filtered: bool | None = None) -> list[int]:
    """Draws; `filtered` None: as it is."""
    if filtered is None:
        filtered = any(row.filtered for row in rows)
    logits_SV = rows_amid_nan(logits_SV.to(DEVICE))
    token_S = sampling.sample(logits_SV, *columns(rows, DEVICE), filtered=filtered)
    assert token_S.dtype == torch.int64
    return [int(token) for token in token_S]


def ends(logits_V: Tensor, row: Row) -> list[int]:
    """The first and the last token that can be drawn, but for rare ones."""
    rows = [row.seeded(seed_near(5e-4)), row.seeded(seed_near(1 - 5e-4))]
    return sample(logits_V.expand(2, -1), rows)


# ---- the uniform numbers


@triton.jit  # type: ignore[untyped-decorator]
def _uniform(seed_ptr: Any, index_ptr: Any, out_ptr: Any, N: tl.constexpr) -> None:
    place = tl.arange(0, N)
    u = random_numbers.uniform(tl.load(seed_ptr + place), tl.load(index_ptr + place))
    tl.store(out_ptr + place, u)


def test_uniform_numbers_are_bit_for_bit_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    seed = torch.randint(-(2**63), 2**63 - 1, (256,), generator=generator)
    seed[:6] = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 42])
    index = torch.arange(256) % 7
    index[100] = 2**40
    u = torch.empty(256, dtype=torch.float64, device=DEVICE)
    _uniform[(1,)](seed.to(DEVICE), index.to(DEVICE), u, 256)
    assert torch.equal(u.cpu(), api.uniform(seed, index))


# ---- the place of a share of the whole


@triton.jit  # type: ignore[untyped-decorator]
def _choose(weight_ptr: Any, share_ptr: Any, out_ptr: Any, N: tl.constexpr) -> None:
    share = tl.load(share_ptr + tl.program_id(0))
    chosen, rest = tile_statistics.choose(tl.load(weight_ptr + tl.arange(0, N)), share, N)
    tl.store(out_ptr + 2 * tl.program_id(0), chosen.to(tl.float64))
    tl.store(out_ptr + 2 * tl.program_id(0) + 1, rest)


def test_a_share_has_its_place_and_the_ends_have_a_weight() -> None:
    """Sums may round to more or less than the whole: a share of 1 or below 0 is possible."""
    weight = torch.zeros(64, dtype=torch.float64)
    weight[[5, 6, 20, 50]] = torch.tensor([1.0, 2.0, 4.0, 1.0], dtype=torch.float64)
    places = {-1e-17: 5, 0.0: 5, 0.1: 5, 0.125: 6, 0.25: 6, 0.375: 20, 0.87: 20, 0.875: 50}
    places |= {1 - 2**-53: 50, 1.0: 50, 1 + 1e-15: 50}
    share = torch.tensor(list(places), dtype=torch.float64)
    out = torch.empty(len(places), 2, dtype=torch.float64, device=DEVICE)
    _choose[(len(places),)](weight.to(DEVICE), share.to(DEVICE), out, 64)
    assert out[:, 0].tolist() == list(places.values())
    start = torch.tensor([float(weight[:place].sum()) for place in places.values()])
    inside = (8 * share - start) / weight[list(places.values())]
    torch.testing.assert_close(out[:, 1].cpu(), inside)


# ---- the draw against the oracle


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_draw(vocab_size: int) -> None:
    rows = [
        row.seeded(seed - 10, index=i % 3)
        for i, row in enumerate([*FILTERS, GREEDY])
        for seed in range(SEEDS)
    ]
    logits_SV = random_logits(vocab_size, len(rows), vocab_size)
    for logits_V, row, token in zip(logits_SV, rows, sample(logits_SV, rows), strict=True):
        assert_drawn(logits_V, row, token)


def test_draw_from_many_kept_tokens() -> None:
    rows = [row.seeded(seed) for row in WIDE for seed in range(SEEDS)]
    logits_SV = random_logits(1, len(rows), 5000, scale=1.0)
    for logits_V, row, token in zip(logits_SV, rows, sample(logits_SV, rows), strict=True):
        assert_drawn(logits_V, row, token)


def test_filters_that_end_among_equal_logits() -> None:
    rows = [row.seeded(seed) for row in [*FILTERS[3:9], *WIDE[::2]] for seed in range(SEEDS)]
    logits_SV = (random_logits(2, len(rows), 5000) * 4).round() / 4
    for logits_V, row, token in zip(logits_SV, rows, sample(logits_SV, rows), strict=True):
        assert_drawn(logits_V, row, token)


@pytest.mark.gpu
@pytest.mark.parametrize("row", FILTERS, ids=str)
def test_drawn_tokens_are_distributed_as_they_should_be(row: Row) -> None:
    logits_V = random_logits(3, 11, scale=0.8)
    count = 20_000
    tokens = sample(logits_V.expand(count, -1), [row.seeded(seed) for seed in range(count)])
    expected = probabilities(logits_V, row) * count
    seen = np.bincount(tokens, minlength=11)
    kept = expected > 0
    assert (seen[~kept] == 0).all()
    statistic = ((seen[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    assert statistic < chi_square_limit(max(1, int(kept.sum()) - 1))


@pytest.mark.parametrize("vocab_size", [10, 3000])
@pytest.mark.parametrize(("row", "kept"), EQUAL, ids=str)
def test_of_equal_logits_the_lower_ids_are_kept(row: Row, kept: int, vocab_size: int) -> None:
    logits_V = torch.full((vocab_size,), -math.inf)
    ids = torch.arange(10) * (vocab_size // 10)
    logits_V[ids] = 1.5
    assert ends(logits_V, row) == ids[[0, kept - 1]].tolist()


@pytest.mark.parametrize(
    ("row", "last"),
    [
        (Row(top_k=1000), 999),
        (Row(top_p=0.2), 1199),
        (Row(top_k=5000), 4999),
        (Row(top_k=5000, top_p=0.9), 4499),
        (Row(min_p=0.9), 5999),
    ],
    ids=str,
)
def test_ties_are_counted_from_chunk_to_chunk(row: Row, last: int) -> None:
    """More equal tokens than are looked at together."""
    low, high = ends(torch.zeros(6000), row)
    assert 0 <= low < 0.002 * last
    assert 0.998 * last < high <= last


def test_top_p_stops_where_the_filter_before_it_was_renormalised() -> None:
    logits_V = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # 0.4 / 0.7 = 0.571 of what top_k leaves; 0.4 of everything
    assert ends(logits_V, Row(top_k=2, top_p=0.57)) == [0, 0]
    assert ends(logits_V, Row(top_p=0.57)) == [0, 1]
    # 0.7 / 0.9 = 0.778 of what min_p leaves
    assert ends(logits_V, Row(min_p=0.3, top_p=0.75)) == [0, 1]
    assert ends(logits_V, Row(top_p=0.75)) == [0, 2]


def test_top_p_after_a_top_k_of_most_tokens() -> None:
    """What top_k drops must not count, though it is most of the row's sum."""
    logits_V = torch.zeros(4000)
    logits_V[:100] = 2.0
    for top_p in (0.1, 0.5):
        kept = math.ceil(top_p * (100 + 100 * math.exp(-2)))  # all of them among the first hundred
        assert ends(logits_V, Row(top_k=200, top_p=top_p)) == [0, kept - 1]


def test_min_p_is_exact() -> None:
    """The groups are chosen with a margin of 0.07 %; the tokens are not."""
    logits_V = torch.full((200,), -9.0)
    logits_V[100] = 0.0
    logits_V[[10, 20, 180]] = (0.1 * torch.tensor([1 - 2e-5, 1 + 2e-5, 1 + 4e-5])).log()
    assert ends(logits_V, Row(min_p=0.1, temperature=1.0)) == [20, 180]
    assert ends(logits_V, Row(min_p=0.1, top_k=3)) == [20, 180]
    assert ends(logits_V, Row(min_p=0.1, top_k=4, top_p=0.9999)) == [20, 180]
    logits_V[180] = -9.0
    assert ends(logits_V, Row(min_p=0.1)) == [20, 100]


# ---- greedy, and what is as good as greedy


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    places = [0, 1, GROUP, TILE - 1, TILE, 2 * TILE, 4999]
    pairs = [(a, b) for i, a in enumerate(places) for b in places[i:]]
    logits_SV = torch.full((len(pairs), 5000), -3.0)
    for logits_V, pair in zip(logits_SV, pairs, strict=True):
        logits_V[list(pair)] = -1.0
    assert sample(logits_SV, [GREEDY] * len(pairs)) == [min(pair) for pair in pairs]


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_as_good_as_greedy(vocab_size: int) -> None:
    rows = [
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
    ]
    logits_SV = random_logits(vocab_size, len(rows), vocab_size)
    assert sample(logits_SV, rows) == logits_SV.argmax(-1).tolist()


def test_a_large_temperature_draws_evenly() -> None:
    logits_V = random_logits(0, 1000)
    assert ends(logits_V, Row(temperature=1e6)) == [0, 999]
    assert ends(logits_V, Row(temperature=1e6, top_p=0.9999, min_p=0.5)) == [0, 999]


# ---- rows do not meet


def mixed_rows(count: int) -> list[Row]:
    rows = [*FILTERS, *WIDE, GREEDY, Row(temperature=0.0, top_p=0.3)]
    return [rows[i * 7 % len(rows)].seeded(i % 5, index=i) for i in range(count)]


def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    count, vocab_size = (70, 5000) if DEVICE.type == "cuda" else (9, 700)
    logits_SV = random_logits(vocab_size, count, vocab_size).bfloat16().float()
    rows = mixed_rows(count)
    alone = [sample(logits_SV[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert sample(logits_SV, rows) == alone
    assert sample(logits_SV.flip(0), rows[::-1]) == alone[::-1]


def test_rows_without_filters_are_the_same_beside_filtered_ones() -> None:
    logits_SV = random_logits(0, 10, 5000)
    rows = [Row(temperature=0.4 * (i % 4), seed=i) for i in range(10)]
    assert sample(logits_SV, rows, filtered=True) == sample(logits_SV, rows, filtered=False)


def test_the_logits_are_left_as_they_are() -> None:
    logits_SV = random_logits(0, 3, 300).to(DEVICE)
    before = logits_SV.clone()
    sampling.sample(logits_SV, *columns([Row(), GREEDY, Row(top_k=3)], DEVICE), filtered=True)
    assert torch.equal(logits_SV, before)


# ---- extreme and broken logits


def test_forbidden_tokens_are_never_drawn() -> None:
    rows = [row.seeded(seed) for row in [*FILTERS, Row(top_k=50)] for seed in range(SEEDS)]
    masked_SV = torch.full((len(rows), 300), -math.inf)
    allowed = [3, 77, 78, 255, 299]
    masked_SV[:, allowed] = random_logits(0, len(rows), 5)
    for logits_V, row, token in zip(masked_SV, rows, sample(masked_SV, rows), strict=True):
        assert token in allowed
        assert_drawn(logits_V, row, token)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_far_logits(shift: float) -> None:
    rows = [row.seeded(seed) for row in FILTERS[::2] for seed in range(SEEDS)]
    logits_SV = random_logits(0, len(rows), 300) + shift
    for logits_V, row, token in zip(logits_SV, rows, sample(logits_SV, rows), strict=True):
        assert_drawn(logits_V, row, token)


def test_the_range_of_fp32() -> None:
    largest = torch.finfo(torch.float32).max
    logits_V = torch.full((700,), -largest)
    logits_V[[600, 650]] = largest
    for row in [*FILTERS[::4], Row(top_k=1), Row(top_k=500), Row(top_p=0.4), GREEDY]:
        one = row.temperature == 0 or row.top_k == 1 or row.top_p <= 0.5
        assert ends(logits_V, row) == [600, 600 if one else 650], row


def test_all_at_the_bottom_of_fp32() -> None:
    logits_V = torch.full((70,), -torch.finfo(torch.float32).max)
    assert ends(logits_V, Row(top_k=20)) == [0, 19]
    assert ends(logits_V, Row(top_p=0.5)) == [0, 34]
    assert ends(logits_V, Row()) == [0, 69]


@pytest.mark.parametrize(
    ("broken", "vocab_size", "place"),
    [(math.nan, 7, 3), (math.nan, 2200, 2199), (math.inf, 1, 0), (math.inf, 2200, TILE)],
)
def test_a_broken_row_is_marked_and_leaves_the_others_alone(
    broken: float, vocab_size: int, place: int
) -> None:
    rows = [row.seeded(3) for row in (Row(), GREEDY, Row(top_p=0.6), Row(top_k=4, min_p=0.1))] * 2
    logits_SV = random_logits(0, 8, vocab_size)
    expected = sample(logits_SV, rows)
    logits_SV[:4, place] = broken
    assert sample(logits_SV, rows) == [-1] * 4 + expected[4:]


@pytest.mark.parametrize("vocab_size", [1, 300, 5000])
def test_a_row_without_any_allowed_token_gives_the_first(vocab_size: int) -> None:
    rows = [*FILTERS, GREEDY]
    assert sample(torch.full((len(rows), vocab_size), -math.inf), rows) == [0] * len(rows)


def test_no_rows() -> None:
    assert sample(torch.zeros(0, 300), [], filtered=True) == []


# ---- at the size of the real vocabulary


@pytest.mark.gpu
@pytest.mark.parametrize("shape", ["peaked", "flat", "bf16"])
def test_the_whole_vocabulary_of_llama_4(shape: str) -> None:
    count, vocab_size = 70, 202048
    logits_SV = random_logits(1, count, vocab_size, scale=0.3 if shape == "flat" else 2.0)
    if shape == "peaked":
        falling_V = -1.5 * torch.arange(1, vocab_size + 1).log()
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(vocab_size, generator=generator) for _ in range(count)]
        logits_SV = torch.stack([falling_V[order] for order in orders])
    if shape == "bf16":
        logits_SV = logits_SV.bfloat16().float()
    more = [
        Row(temperature=0.7, top_p=0.9),
        Row(top_k=50),
        Row(top_k=50, top_p=0.9),
        Row(min_p=1e-4),
    ]
    rows = [*mixed_rows(count - len(more)), *(row.seeded(9) for row in more)]
    tokens = sample(logits_SV, rows)
    assert tokens == sample(logits_SV, rows)
    for logits_V, row, token in zip(logits_SV, rows, tokens, strict=True):
        assert_drawn(logits_V, row, token, exactly=False)


@pytest.mark.gpu
def test_it_can_be_captured_and_replayed() -> None:
    rows = mixed_rows(40)
    arguments = [random_logits(0, 40, 202048).to(DEVICE), *columns(rows, DEVICE)]
    expected = sampling.sample(*arguments, filtered=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        token_S = sampling.sample(*arguments, filtered=True)
    graph.replay()
    assert torch.equal(token_S, expected)
    arguments[0].copy_(random_logits(1, 40, 202048))
    graph.replay()
    assert torch.equal(token_S, sampling.sample(*arguments, filtered=True))
    assert not torch.equal(token_S, expected)
