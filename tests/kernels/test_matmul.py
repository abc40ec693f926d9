from __future__ import annotations

import pytest
import torch
from torch import Tensor

import caravan_kernels as kernels
from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.cpu.matmul import MANY_ROWS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# one row, four rows (the inner block), odd numbers, and both sides of the switch to sgemm
SHAPES = [(1, 8, 16), (4, 7, 123), (5, 1, 1), (MANY_ROWS - 1, 33, 64), (MANY_ROWS, 1025, 40)]


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "outputs", "width"), SHAPES)
def test_linear(rows: int, outputs: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = random(generator, rows, width)
    weight = random(generator, outputs, width).to(dtype)
    exact = reference.linear(x.double(), weight)
    assert_as_exact(kernels.linear(x, weight), reference.linear(x, weight), exact)


def test_linear_reads_a_strided_input() -> None:
    generator = torch.Generator().manual_seed(0)
    x = random(generator, 3, 20)[:, ::2]
    weight = random(generator, 6, 10)
    torch.testing.assert_close(kernels.linear(x, weight), x @ weight.t())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "num_experts"), [(1, 16), (7, 3), (50, 128), (400, 2)])
def test_moe_experts(tokens: int, num_experts: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(tokens)
    hidden, width = 24, 37
    x = random(generator, tokens, hidden)
    gate_up = random(generator, num_experts, 2 * width, hidden).to(dtype)
    down = random(generator, num_experts, hidden, width).to(dtype)
    logits = random(generator, tokens, num_experts)
    exact = reference.moe_experts(x.double(), logits.double(), gate_up, down)
    same = reference.moe_experts(x, logits, gate_up, down)
    assert_as_exact(kernels.moe_experts(x, logits, gate_up, down), same, exact)


def test_experts_that_were_not_hit_are_not_read() -> None:
    gate_up = torch.full((4, 6, 5), float("nan"))
    down = torch.full((4, 5, 3), float("nan"))
    gate_up[2], down[2] = 1.0, 1.0
    logits = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(3, -1)
    out = kernels.moe_experts(torch.ones(3, 5), logits, gate_up, down)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("num_rows", [0, 1, 3, 5])
def test_padding_reads_no_expert_of_its_own(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(num_rows)
    x, gate_up = random(generator, 5, 6), random(generator, 5, 8, 6)
    down, logits = random(generator, 5, 6, 4), torch.eye(5)  # each row has an expert of its own
    expected = kernels.moe_experts(x, logits, gate_up, down)
    gate_up[max(num_rows, 1) :] = float("nan")
    given = torch.tensor([num_rows], dtype=torch.int32)
    out = kernels.moe_experts(x, logits, gate_up, down, given)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[:num_rows], expected[:num_rows])
    torch.testing.assert_close(reference.moe_experts(x, logits, gate_up, down, given), out)


def test_the_score_multiplies_the_input() -> None:
    """SwiGLU of twice the input is not twice SwiGLU."""
    gate_up = torch.tensor([[[1.0], [1.0]]])
    down = torch.tensor([[[1.0]]])
    x, logits = torch.tensor([[3.0]]), torch.tensor([[0.0]])  # the score is a half
    silu = 1.5 * torch.tensor(1.5).sigmoid()
    torch.testing.assert_close(
        kernels.moe_experts(x, logits, gate_up, down), (silu * 1.5).reshape(1, 1)
    )


def test_route_takes_the_best_logit_and_its_sigmoid() -> None:
    expert, score = reference.moe_route(torch.tensor([[0.0, 2.0, 1.0], [-1.0, -3.0, -2.0]]))
    assert expert.tolist() == [1, 0]
    torch.testing.assert_close(score, torch.tensor([2.0, -1.0]).sigmoid())
