from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from caravan_kernels import reference
from caravan_kernels.gpu import route as module
from caravan_kernels.gpu.route import Routing, route
from poison import poison_new_tensors, rows_amid_nan
from triton_device import DEVICE, DTYPES

ONE_PROGRAM = {"one_program": True, "BLOCK_T": 8, "num_warps": 4}
BLOCKS = {"one_program": False, "BLOCK_T": 8, "num_warps": 4}
# one token, fewer than a block, whole blocks, more histograms than are added up at once
SHAPES = [(1, 16), (1, 1), (5, 2), (16, 16), (61, 5), (300, 3), (37, 128)]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


@pytest.fixture(params=[ONE_PROGRAM, BLOCKS], ids=["one program", "blocks"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    launch: dict[str, Any] = request.param
    monkeypatch.setattr(module, "launch_parameters", lambda kernel, **sizes: launch)


def random_logits(tokens: int, experts: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    logits = torch.randn(tokens, experts, generator=generator)
    return rows_amid_nan(logits.to(DEVICE, dtype))


def check(routing: Routing, logits_TE: Tensor) -> None:
    expert, score = reference.moe_route(logits_TE)
    assert torch.equal(routing.expert_T, expert.int())
    torch.testing.assert_close(routing.score_T, score, equal_nan=True)
    assert torch.equal(routing.order_T, expert.argsort(stable=True).int())
    counts = expert.bincount(minlength=logits_TE.shape[1])
    assert routing.expert_indptr.tolist() == [0, *counts.cumsum(0).tolist()]
    ints = (routing.expert_T, routing.order_T, routing.expert_indptr)
    assert {x.dtype for x in ints} == {torch.int32}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "experts"), SHAPES)
@pytest.mark.usefixtures("small_blocks")
def test_route(tokens: int, experts: int, dtype: torch.dtype) -> None:
    logits = random_logits(tokens, experts, dtype)
    check(route(logits), logits)


@pytest.mark.parametrize(("tokens", "experts"), [(64, 16), (65, 16), (1025, 16), (65, 128)])
def test_every_rule_of_the_launch_parameters(tokens: int, experts: int) -> None:
    logits = random_logits(tokens, experts)
    check(route(logits), logits)


@pytest.mark.usefixtures("small_blocks")
def test_the_lowest_expert_wins_a_tie() -> None:
    logits = torch.zeros(11, 6, device=DEVICE)
    logits[3:, 2] = logits[3:, 4] = 1.0
    routing = route(logits)
    assert routing.expert_T.tolist() == [0] * 3 + [2] * 8
    assert routing.expert_indptr.tolist() == [0, 3, 3, 11, 11, 11, 11]


@pytest.mark.usefixtures("small_blocks")
def test_an_expert_may_have_every_token() -> None:
    logits = random_logits(29, 7)
    logits[:, 6] = 9.0
    check(route(logits), logits)


@pytest.mark.usefixtures("small_blocks")
def test_logits_that_are_no_numbers_have_an_expert_too() -> None:
    logits = random_logits(21, 5)
    logits[3] = float("nan")
    logits[8, 2] = float("nan")
    logits[10] = float("-inf")
    logits[12, 4] = float("inf")
    check(route(logits), logits)


@pytest.mark.gpu
@pytest.mark.parametrize("experts", [16, 128])
@pytest.mark.parametrize("tokens", [1, 64, 256, 1024, 1025, 4096, 65536])
def test_real_sizes(tokens: int, experts: int) -> None:
    for dtype in DTYPES:
        logits = random_logits(tokens, experts, dtype)
        check(route(logits), logits)
