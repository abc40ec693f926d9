"""Attention in tiles against the definition, at the real head dim and at odd sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import caravan_kernels as kernels
from accuracy import assert_as_exact
from caravan_kernels import reference

SHAPES = [  # tiles, positions, heads, head dim
    (1, 577, 16, 88),
    (3, 37, 3, 8),
    (2, 17, 1, 20),
    (1, 1, 2, 4),
    (5, 129, 2, 88),
]


def random_qkv(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    qkv = random_qkv(shape, dtype)
    exact = reference.vision_attention(*(x.double() for x in qkv))
    same_dtype = reference.vision_attention(*qkv)
    assert same_dtype.dtype == dtype
    assert_as_exact(kernels.vision_attention(*qkv), same_dtype, exact)


def test_parts_of_one_projection() -> None:
    """As the model calls it: q, k and v are strided views of one tensor."""
    qkv = torch.stack(random_qkv((2, 37, 3, 88), torch.float32), dim=2)
    parts = qkv.unbind(2)
    contiguous = kernels.vision_attention(*(part.contiguous() for part in parts))
    torch.testing.assert_close(kernels.vision_attention(*parts), contiguous)


def test_the_reference_is_the_definition() -> None:
    q, k, v = random_qkv((2, 5, 3, 12), torch.float64)
    expected = torch.empty_like(q)
    for tile in range(2):
        for head in range(3):
            for query in range(5):
                scores = torch.stack(
                    [q[tile, query, head] @ k[tile, key, head] for key in range(5)]
                )
                weights = (scores / 12**0.5).exp()
                weights /= weights.sum()
                expected[tile, query, head] = weights @ v[tile, :, head]
    torch.testing.assert_close(reference.vision_attention(q, k, v), expected)


def test_rotated_pairs() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 2.0]])
    quarter = torch.tensor([1j, 1j])
    assert kernels.rotate_pairs(x, quarter).tolist() == [[0.0, 1.0, -2.0, 0.0]]
    assert kernels.rotate_pairs(x.bfloat16(), quarter).dtype == torch.bfloat16
