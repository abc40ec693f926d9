from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu import tuning
from caravan_kernels.gpu.vision_attention import vision_attention
from poison import poison_new_tensors
from triton_device import DEVICE, DTYPES

Shape = tuple[int, int, int, int]  # tiles, positions, heads, head dim


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def draw(shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """As the encoder has them: q and k turned by RoPE, v where the projection left it."""
    tiles, positions, heads, head_dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(tiles, positions, 3, heads, head_dim, generator=generator)
    qkv = torch.full((tiles, positions + 2, 3, heads, head_dim), float("nan"))  # NaN between tiles
    qkv[:, :positions] = values
    qk = qkv[:, :positions, :2].to(DEVICE, dtype, copy=True)
    return qk[:, :, 0], qk[:, :, 1], qkv.to(DEVICE, dtype)[:, :positions, 2]


def check(q: Tensor, k: Tensor, v: Tensor) -> None:
    same = reference.vision_attention(q, k, v)
    exact = reference.vision_attention(q.double(), k.double(), v.double())
    assert_as_exact(vision_attention(q, k, v), same, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (2, 37, 3, 88),  # as odd as 577 and 88
        (1, 33, 2, 24),  # one key more than a block of 32
        (1, 32, 1, 64),  # whole blocks only
        (2, 1, 2, 16),  # one position
        (1, 15, 1, 80),  # less than a block
    ],
    ids=str,
)
def test_tiles(shape: Shape, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 2}
    monkeypatch.setattr(tuning, "launch_parameters", lambda kernel, **sizes: small)
    check(*draw(shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_as_launched(dtype: torch.dtype) -> None:
    check(*draw((1, 145, 1, 88), dtype))


def test_slices_of_one_projection() -> None:
    qkv = torch.randn(2, 20, 3, 2, 24, device=DEVICE)
    check(*qkv.unbind(2))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = draw((1, 20, 1, 24), torch.float32)
    check(q * 1000, k, v)


def test_no_tiles() -> None:
    q, k, v = draw((0, 20, 2, 24), torch.float32)
    assert vision_attention(q, k, v).shape == (0, 20, 2, 24)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tiles", [1, 5])
def test_real_shapes(tiles: int, dtype: torch.dtype) -> None:
    check(*draw((tiles, 577, 16, 88), dtype))
