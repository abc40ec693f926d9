"""Rows of padding, which steps of one captured graph have: no expert is read for their sake."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu import experts as module
from caravan_kernels.gpu import route as route_module
from caravan_kernels.gpu import tuning
from caravan_kernels.gpu.experts import moe_experts
from caravan_kernels.gpu.route import route
from triton_device import DEVICE, DTYPES

TOKENS, EXPERTS = 6, 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_order", [False, True], ids=["few tokens", "sorted"])
@pytest.mark.parametrize("num_rows", [0, 1, 4, 6])
def test_padding_reads_no_expert_of_its_own(
    num_rows: int, in_order: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tuning.launch_parameters

    def parameters(kernel: str, **sizes: int) -> Any:
        return {"sorted": in_order} if kernel == "moe_experts" else chosen(kernel, **sizes)

    monkeypatch.setattr(module, "launch_parameters", parameters)
    generator = torch.Generator().manual_seed(num_rows)
    x, gate_up, down = (
        torch.randn(shape, generator=generator).to(DEVICE, dtype)
        for shape in ((TOKENS, 24), (EXPERTS, 40, 24), (EXPERTS, 24, 20))
    )
    logits = 3 * torch.eye(EXPERTS, device=DEVICE, dtype=dtype)[:TOKENS]  # an expert for each row
    gate_up[max(num_rows, 1) :] = down[max(num_rows, 1) :] = float("nan")
    given = torch.tensor([num_rows], dtype=torch.int32, device=DEVICE)
    out = moe_experts(x, logits, gate_up, down, given)
    exact = reference.moe_experts(
        x.double(), logits.double(), gate_up.double(), down.double(), given
    )
    assert_as_exact(out, reference.moe_experts(x, logits, gate_up, down, given), exact)


@pytest.mark.parametrize("one_program", [False, True])
def test_routing_in_one_launch_and_in_two(
    one_program: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = {"one_program": one_program, "BLOCK_T": 16, "num_warps": 4}
    monkeypatch.setattr(route_module, "launch_parameters", lambda kernel, **sizes: launch)
    logits = torch.eye(EXPERTS, device=DEVICE).repeat(5, 1)
    given = torch.tensor([19], dtype=torch.int32, device=DEVICE)
    routing = route(logits, given)
    assert routing.expert_T.tolist() == [t % EXPERTS for t in range(19)] + [18 % EXPERTS] * 21
    assert routing.expert_indptr.diff().tolist() == [3, 3, 24, 2, 2, 2, 2, 2]
