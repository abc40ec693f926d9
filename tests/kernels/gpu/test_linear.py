from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu.linear import linear, swiglu_linear
from caravan_kernels.gpu.swiglu import swiglu
from poison import amid_nan, poison_new_tensors, rows_amid_nan
from triton_device import DEVICE, DTYPES


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def random(tokens: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(tokens + shape[0]))


# both sides of the switch to cuBLAS; widths of several rules
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 4, 16, 17, 100])
@pytest.mark.parametrize(("outputs", "inputs"), [(3, 40), (140, 70)])
def test_linear(outputs: int, inputs: int, tokens: int, dtype: torch.dtype) -> None:
    x = rows_amid_nan(random(tokens, tokens, inputs).to(DEVICE, dtype))
    weight = amid_nan(random(tokens, outputs, inputs).to(DEVICE, dtype))
    exact = reference.linear(x.double(), weight)
    assert_as_exact(linear(x, weight), reference.linear(x, weight), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 4, 16, 17, 100])
def test_swiglu_linear(tokens: int, dtype: torch.dtype) -> None:
    x = rows_amid_nan(random(tokens, tokens, 40).to(DEVICE, dtype))
    gate_up = amid_nan(random(tokens, 2 * 19, 40).to(DEVICE, dtype))
    exact = reference.swiglu_linear(x.double(), gate_up)
    assert_as_exact(swiglu_linear(x, gate_up), reference.swiglu_linear(x, gate_up), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (3, 70), (2, 1025)])
def test_swiglu(tokens: int, width: int, dtype: torch.dtype) -> None:
    x = rows_amid_nan(random(tokens, tokens, 2 * width).to(DEVICE, dtype))
    x[0, 0] = -60.0  # where exp(-x) overflows in half precision
    assert_as_exact(swiglu(x), reference.swiglu(x), reference.swiglu(x.double()))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16, 17, 256])
@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [(16, 5120), (896, 5120), (7168, 5120), (5120, 8192), (5120, 1024), (25256, 5120)],
)
def test_real_sizes(outputs: int, inputs: int, tokens: int, dtype: torch.dtype) -> None:
    generator = torch.Generator(DEVICE).manual_seed(tokens)
    x = torch.randn(tokens, inputs, generator=generator, device=DEVICE, dtype=dtype)
    weight = torch.randn(outputs, inputs, generator=generator, device=DEVICE, dtype=dtype)
    weight.mul_(0.02)
    exact = reference.linear(x.double(), weight)
    assert_as_exact(linear(x, weight), reference.linear(x, weight), exact)
    exact = reference.swiglu_linear(x.double(), weight)
    assert_as_exact(swiglu_linear(x, weight), reference.swiglu_linear(x, weight), exact)
