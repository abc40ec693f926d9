from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from caravan_kernels.gpu import decode_tasks, tuning
from caravan_kernels.gpu.paged_attention import paged_attention
from caravan_kernels.gpu.prefill_attention import prefill_attention
from paged_case import Lengths, Model, PagedCase, paged_case, unaligned
from poison import poison_new_tensors
from triton_device import DEVICE, DTYPES

PAGES_OF_ONE_TILE = Model(heads=10, kv_heads=2, head_dim=16, block_len=16)  # a group of 5
PAGES_OF_TWO_TILES = Model(heads=5, kv_heads=1, head_dim=32, block_len=32)
ODD_PAGES = Model(heads=3, kv_heads=3, head_dim=24, block_len=5)
TINY_PAGES = Model(heads=4, kv_heads=1, head_dim=88, block_len=1)
SMALL = Model(heads=6, kv_heads=2, head_dim=16, block_len=16)
MIXED = [(1, 1), (7, 40), (1, 33), (33, 34), (2, 64)]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def launch(monkeypatch: pytest.MonkeyPatch, *, block_m: int = 32, descriptors: bool) -> None:
    """Tiles so small that short segments have several."""
    original = tuning.launch_parameters
    parameters = {"BLOCK_M": block_m, "BLOCK_N": 16, "DESCRIPTORS": descriptors}
    parameters |= {"num_warps": 4, "num_stages": 3}

    def chosen(kernel: str, **sizes: int) -> tuning.Launch:
        return parameters if kernel == "prefill_attention" else original(kernel, **sizes)

    monkeypatch.setattr(tuning, "launch_parameters", chosen)


def prefill_case(lengths: Lengths, model: Model, dtype: torch.dtype = torch.float32) -> PagedCase:
    return paged_case(lengths, model, dtype, DEVICE)


def prefill(case: PagedCase) -> torch.Tensor:
    out = case.q_THD.new_empty(case.q_THD.shape)
    arguments = (case.k_PBKD, case.v_PBKD, case.segments, case.slice_index)
    prefill_attention(case.q_THD, *arguments, out)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("model", "descriptors"),
    [
        (PAGES_OF_ONE_TILE, False),
        (PAGES_OF_ONE_TILE, True),
        (PAGES_OF_TWO_TILES, False),
        (PAGES_OF_TWO_TILES, True),
        (ODD_PAGES, False),
        (TINY_PAGES, False),
    ],
    ids=str,
)
def test_prefill(
    model: Model, descriptors: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, descriptors=descriptors)
    case = prefill_case(MIXED, model, dtype)
    case.check(prefill(case))


@pytest.mark.parametrize(
    ("lengths", "descriptors"),
    [
        ([(1, 1)], True),
        ([(1, 50)], False),
        ([(32, 32)], True),  # tiles of rows and keys end with the segment
        ([(16, 48)], False),
        ([(33, 33)], False),
        ([(31, 63)], True),
        ([(1, 0)], True),  # padding
        ([(3, 20), (1, 0), (2, 2)], False),
        ([(1, 1)] * 19, True),
        ([(2, 2), (30, 46), (1, 9), (1, 1), (17, 17)], False),
    ],
)
def test_lengths(lengths: Lengths, descriptors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, descriptors=descriptors)
    case = prefill_case(lengths, SMALL)
    case.check(prefill(case))


@pytest.mark.parametrize("block_m", [16, 64])
def test_every_row_has_a_tile(block_m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, block_m=block_m, descriptors=False)
    lengths = [(1 + 7 * s % 13, 1 + 7 * s % 13 + s % 3) for s in range(12)]
    case = prefill_case(lengths, replace(SMALL, heads=5, kv_heads=1))
    case.check(prefill(case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_beside_prefill(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, descriptors=True)
    monkeypatch.setattr(decode_tasks, "tile_len", lambda *sizes: 16)
    monkeypatch.setattr(decode_tasks, "num_programs", lambda *sizes: 5)
    lengths = [(1, 1), (1, 70), (1, 0), (1, 16), *MIXED]
    case = paged_case(lengths, SMALL, dtype, DEVICE, num_decode=4)
    arguments = (case.q_THD, case.k_PBKD, case.v_PBKD)
    case.check(paged_attention(*arguments, case.segments, case.slice_index))
    tasks = decode_tasks.plan_decode(case.segments.context_len[:4], 2)
    planned = replace(case.segments, decode_tasks=tasks)
    monkeypatch.setattr(decode_tasks, "_plan_kernel", None)  # planned once, for all layers
    case.check(paged_attention(*arguments, planned, case.slice_index))


def test_only_decode() -> None:
    case = paged_case([(1, 20), (1, 3)], SMALL, torch.float32, DEVICE, num_decode=2)
    arguments = (case.q_THD, case.k_PBKD, case.v_PBKD, case.segments, case.slice_index)
    case.check(paged_attention(*arguments))


@pytest.mark.parametrize("block_len", [16, 64, 128])
def test_as_launched(block_len: int) -> None:
    model = replace(SMALL, block_len=block_len)
    case = prefill_case([(20, 150), (1, 1), (70, 70)], model, torch.float16)
    case.check(prefill(case))


def test_tables_at_odd_addresses_and_strided_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, descriptors=False)
    case = prefill_case([(20, 50), (3, 3)], SMALL)
    wide = torch.full((23, 10, 16), float("nan"), device=DEVICE)  # q beside k and v
    wide[:, :6] = case.q_THD
    case = replace(case, q_THD=wide[:, :6], segments=unaligned(case.segments))
    case.check(prefill(case))


def test_large_scores_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, descriptors=False)
    case = prefill_case([(20, 50)], SMALL)
    case = replace(case, q_THD=case.q_THD * 1000)
    case.check(prefill(case))


SCOUT = Model(heads=40, kv_heads=8, head_dim=128, block_len=64)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_len", [16, 64, 128])
@pytest.mark.parametrize(
    "model", [SCOUT, replace(SCOUT, heads=5, kv_heads=1)], ids=["Scout", "a shard of it"]
)
@pytest.mark.parametrize(
    "lengths",
    [
        [(1000, 1000)],
        [(300, 2048), (1, 700), (128, 128), (129, 1023), (2, 3)],
        [(16, 4000)],
    ],
    ids=str,
)
def test_real_shapes(lengths: Lengths, model: Model, block_len: int, dtype: torch.dtype) -> None:
    case = prefill_case(lengths, replace(model, block_len=block_len), dtype)
    case.check(prefill(case))
