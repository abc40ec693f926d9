from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu import decode_tasks, tuning
from caravan_kernels.gpu.decode_attention import decode_attention
from caravan_kernels.gpu.decode_tasks import plan_decode
from paged_case import Model, PagedCase, paged_case, unaligned
from poison import poison_new_tensors
from triton_device import DEVICE, DTYPES

MODELS = [
    Model(heads=10, kv_heads=2, head_dim=16, block_len=16),  # a group of 5, as in Scout
    Model(heads=3, kv_heads=3, head_dim=24, block_len=5),
    Model(heads=3, kv_heads=1, head_dim=88, block_len=1),
    Model(heads=20, kv_heads=1, head_dim=16, block_len=64),  # a group above 16
]
SMALL = Model(heads=4, kv_heads=2, head_dim=16, block_len=5)
TILE = 16


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def divide(monkeypatch: pytest.MonkeyPatch, tile: int, programs: int) -> None:
    monkeypatch.setattr(decode_tasks, "tile_len", lambda *sizes: tile)
    monkeypatch.setattr(decode_tasks, "num_programs", lambda *sizes: programs)


def decode_case(contexts: list[int], model: Model, dtype: torch.dtype) -> PagedCase:
    lengths = [(1, context) for context in contexts]
    return paged_case(lengths, model, dtype, DEVICE, num_decode=len(contexts))


def decode(case: PagedCase) -> torch.Tensor:
    tasks = plan_decode(case.segments.context_len, case.k_PBKD.shape[2])
    segments = replace(case.segments, decode_tasks=tasks)
    out = case.q_THD.new_empty(case.q_THD.shape)
    decode_attention(case.q_THD, case.k_PBKD, case.v_PBKD, segments, case.slice_index, out)
    return out


@pytest.mark.parametrize("programs", [1, 3, 40, 400])
@pytest.mark.parametrize(
    "contexts",
    [
        [1],
        [10_000_000],
        [0, 0, 5, 64, 0, 65, 1, 640, 0],
        [0, 0, 0],
        [10_000_000] * 512,  # tiles times programs pass 2^31
        [1000, 0, 17] * 30,
    ],
)
def test_tasks_are_equal_shares(
    contexts: list[int], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(monkeypatch, 64, programs)
    tasks = plan_decode(torch.tensor(contexts, dtype=torch.int32, device=DEVICE), 2)
    ends = list(accumulate(-(-context // 64) for context in contexts))
    assert tasks.tile_indptr.tolist() == [0, *ends]
    active = min(programs, ends[-1])
    begins = [p * ends[-1] // active for p in range(active)]
    expected = [next(s for s, end in enumerate(ends) if end > begin) for begin in begins]
    assert tasks.first_segment[:active].tolist() == expected
    assert len(tasks.first_segment) == programs


def test_programs_of_all_kv_heads_fill_the_gpu_once() -> None:
    one = decode_tasks.num_programs(64, 1)
    assert decode_tasks.num_programs(64, 8) == one // 8
    assert decode_tasks.num_programs(64, 10 * one) == 1


@pytest.mark.parametrize(
    ("model", "dtype"),
    [*((MODELS[0], dtype) for dtype in DTYPES), *((model, DTYPES[0]) for model in MODELS[1:])],
    ids=str,
)
def test_decode(model: Model, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, 4)
    contexts = [1, TILE - 1, TILE, TILE + 1, 0, 3 * TILE + 7, 2]
    case = decode_case(contexts, model, dtype)
    case.check(decode(case))


@pytest.mark.parametrize(
    ("contexts", "programs"),
    [
        ([9 * TILE + 3], 1),
        ([9 * TILE + 3], 4),  # one segment in many programs
        ([9 * TILE + 3], 10),
        ([9 * TILE + 3], 23),  # more programs than tiles
        ([3] * 23, 2),  # many segments in one program
        ([40, 40, 40], 7),  # boundaries inside of segments
        ([48, 48, 48], 3),  # and exactly between them
        ([200, 3, 3, 3, 120], 4),
        ([0, 0, 33, 0, 0, 70, 0], 3),
        ([0, 0, 0], 3),
    ],
)
def test_shares(contexts: list[int], programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, programs)
    case = decode_case(contexts, SMALL, torch.float32)
    case.check(decode(case))


def test_parts_are_added_in_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, 9)
    original = tuning.launch_parameters
    few = {"BLOCK_D": 16, "BLOCK_P": 2, "num_warps": 1}

    def chosen(kernel: str, **sizes: int) -> tuning.Launch:
        return few if kernel == "decode_reduce" else original(kernel, **sizes)

    monkeypatch.setattr(tuning, "launch_parameters", chosen)
    case = decode_case([9 * TILE, 4], replace(SMALL, head_dim=24), torch.float32)
    case.check(decode(case))


@pytest.mark.parametrize("batch", [1, 2, 9, 70])
def test_batches(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, 5)
    contexts = [(37 * s) % 23 for s in range(1, batch + 1)]
    case = decode_case(contexts, SMALL, torch.float32)
    case.check(decode(case))


def test_as_launched() -> None:
    case = decode_case([100, 1, 0, 641], SMALL, torch.float32)
    case.check(decode(case))


def test_no_segments() -> None:
    case = decode_case([], SMALL, torch.float32)
    assert decode(case).shape == (0, 4, 16)


def test_tables_at_odd_addresses_and_strided_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, 3)
    case = decode_case([50, 1, 18], SMALL, torch.float32)
    wide = torch.full((3, 8, 16), float("nan"), device=DEVICE)  # q beside k and v
    wide[:, :4] = case.q_THD
    case = replace(case, q_THD=wide[:, :4], segments=unaligned(case.segments))
    case.check(decode(case))


def test_large_scores_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, TILE, 3)
    case = decode_case([70], SMALL, torch.float32)
    case = replace(case, q_THD=case.q_THD * 1000)
    case.check(decode(case))


SCOUT = Model(heads=40, kv_heads=8, head_dim=128, block_len=64)
SHARD = Model(heads=5, kv_heads=1, head_dim=128, block_len=16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", [SCOUT, SHARD, replace(SCOUT, block_len=5)], ids=str)
@pytest.mark.parametrize(
    "contexts",
    [
        [1],
        [1024],
        [8191],
        [1000 + 7 * s for s in range(64)],
        [20_000, *(100 + s for s in range(31)), 0],
        [(911 * s) % 400 for s in range(512)],
    ],
    ids=lambda contexts: f"{len(contexts)} up to {max(contexts)}",
)
def test_real_shapes(contexts: list[int], model: Model, dtype: torch.dtype) -> None:
    case = decode_case(contexts, model, dtype)
    case.check(decode(case))


@pytest.mark.gpu
def test_a_captured_graph_follows_the_lengths() -> None:
    case = decode_case([4000, 700, 3000, 1], SCOUT, torch.bfloat16)
    decode(case)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decode(case)
    for lengths in ([4000, 700, 3000, 1], [1, 0, 77, 0], [3999, 1, 1, 1]):
        case.segments.context_len.copy_(torch.tensor(lengths, dtype=torch.int32))
        graph.replay()
        caches = (case.k_PBKD, case.v_PBKD, case.segments, case.slice_index)
        same = reference.paged_attention(case.q_THD, *caches)
        assert_as_exact(out, same, reference.paged_attention(case.q_THD.double(), *caches))
