from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu.norm import add_rms_norm
from poison import amid_nan, poison_new_tensors, rows_amid_nan
from triton_device import DEVICE, DTYPES

EPS = 1e-5
SIZES = [1, 7, 88, 1024, 1025, 5120]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def random_rows(count: int, rows: int, columns: int, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of different scales, their rows amid NaN."""
    generator = torch.Generator().manual_seed(columns)
    drawn = torch.randn(count, rows, columns, generator=generator)
    scales = torch.tensor([1.0, 3.0, 0.1]).repeat(3)[:count, None, None]
    return [rows_amid_nan(x) for x in (drawn * scales).to(DEVICE, dtype)]


def random_weight(columns: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return amid_nan((torch.rand(columns, generator=generator) + 0.5).to(DEVICE, dtype))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return add_rms_norm(x, [], weight, eps)[1]


def check(x: Tensor, additions: list[Tensor], weight: Tensor) -> None:
    """Against the reference in the same dtype, and in fp64."""
    total, normed = add_rms_norm(x, additions, weight, EPS)
    same_total, same = reference.add_rms_norm(x, additions, weight, EPS)
    assert total.dtype == normed.dtype == x.dtype
    assert torch.equal(total, same_total)
    exact_total = sum((a.double() for a in additions), start=x.double())
    exact = reference.rms_norm(exact_total, weight.double(), EPS)
    assert_as_exact(normed, same, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", SIZES)
def test_rms_norm(columns: int, dtype: torch.dtype) -> None:
    (x,) = random_rows(1, 3, columns, dtype)
    weight = random_weight(columns, dtype)
    exact = reference.rms_norm(x.double(), weight.double(), EPS)
    normed = rms_norm(x, weight, EPS)
    assert normed.is_contiguous()
    assert_as_exact(normed, reference.rms_norm(x, weight, EPS), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("additions", [1, 2, 3, 8])
def test_sums_are_rounded_once_and_then_normed(
    additions: int, columns: int, dtype: torch.dtype
) -> None:
    x, *added = random_rows(1 + additions, 3, columns, dtype)
    check(x, added, random_weight(columns, dtype))


def test_additions_are_summed_before_they_are_rounded() -> None:
    """1 + 2^-11 + 2^-11 is above 1 in fp16 only if both halves of the last bit meet first."""
    x = torch.ones(1, 8, dtype=torch.float16, device=DEVICE)
    half = torch.full_like(x, 2.0**-11)
    total, _ = add_rms_norm(x, [half, half], torch.ones(8, device=DEVICE), EPS)
    assert total.tolist() == [[1 + 2.0**-10] * 8]


def test_without_additions_the_sum_is_x_itself() -> None:
    (x,) = random_rows(1, 2, 88, torch.float32)
    weight = random_weight(88, torch.float32)
    assert add_rms_norm(x, [], weight, EPS)[0] is x
    check(x, [], weight)


def test_x_is_left_as_it_is() -> None:
    x, a, b = random_rows(3, 2, 88, torch.float32)
    before = [each.clone() for each in (x, a, b)]
    add_rms_norm(x, [a, b], random_weight(88, torch.float32), EPS)
    assert all(torch.equal(now, then) for now, then in zip((x, a, b), before, strict=True))


def test_the_weight_may_have_another_dtype() -> None:
    (x,) = random_rows(1, 3, 88, torch.float16)
    weight = random_weight(88, torch.float32)
    assert torch.equal(rms_norm(x, weight, EPS), rms_norm(x, weight.half(), EPS))


def test_eps_counts() -> None:
    x = torch.full((1, 8), 1e-3, device=DEVICE)
    normed = rms_norm(x, torch.ones(8, device=DEVICE), 3e-6)
    torch.testing.assert_close(normed, torch.full_like(x, 0.5))
    assert rms_norm(torch.zeros_like(x), torch.ones(8, device=DEVICE), EPS).count_nonzero() == 0


def test_no_rows() -> None:
    x = torch.empty(0, 88, device=DEVICE)
    assert rms_norm(x, torch.ones(88, device=DEVICE), EPS).shape == (0, 88)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 64, 1000, 16384])
def test_the_real_size(rows: int, dtype: torch.dtype) -> None:
    x, *added = random_rows(3, rows, 5120, dtype)
    weight = random_weight(5120, dtype)
    for count in range(3):
        check(x, added[:count], weight)


@pytest.mark.gpu
def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    x, *added = random_rows(3, 1000, 5120, torch.bfloat16)
    weight = random_weight(5120, torch.bfloat16)
    together = add_rms_norm(x, added, weight, EPS)
    for row in (0, 7, 999):
        alone = add_rms_norm(x[row : row + 1], [a[row : row + 1] for a in added], weight, EPS)
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[0], many[row])
