from __future__ import annotations

import pytest
import torch
from torch import Tensor

import caravan_kernels as kernels
from caravan_kernels import reference

HEADS, KV_HEADS, DIM, TOKENS = 10, 2, 8, 5


def run(
    qkv: Tensor,
    *,
    rope_TF: Tensor | None = None,
    norm_eps: float | None = None,
    temperature_T: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, and the k and v that were written to slots 1, 3, 5, ..."""
    k, v = (torch.zeros(4, 3, KV_HEADS, DIM, dtype=qkv.dtype) for _ in range(2))
    slots = torch.arange(TOKENS) * 2 + 1
    q = kernels.qkv_epilogue(
        qkv, k, v, slots, rope_TF=rope_TF, norm_eps=norm_eps, temperature_T=temperature_T
    )
    assert k.flatten(0, 1)[::2].count_nonzero() == 0  # no other slot is touched
    return q, k.flatten(0, 1)[slots], v.flatten(0, 1)[slots]


def random_qkv(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(TOKENS, HEADS + 2 * KV_HEADS, DIM, generator=generator).to(dtype)


def rope_table() -> Tensor:
    angles = torch.arange(TOKENS)[:, None] * 0.3 ** torch.arange(DIM // 2)
    return torch.polar(torch.ones_like(angles), angles)


def rotated(x: Tensor, angles_T: list[float], pair: int) -> Tensor:
    """The pair (2i, 2i + 1) turned by an angle, from the definition."""
    angle = torch.tensor(angles_T)[:, None]
    even, odd = x[..., 2 * pair], x[..., 2 * pair + 1]
    return torch.stack(
        [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], -1
    )


def test_nothing_but_the_write() -> None:
    qkv = random_qkv()
    q, k, v = run(qkv)
    torch.testing.assert_close(torch.cat([q, k, v], 1), qkv, rtol=0, atol=0)


def test_rope_turns_interleaved_pairs_of_q_and_k_only() -> None:
    qkv, table = random_qkv(), rope_table()
    q, k, v = run(qkv, rope_TF=table)
    for pair in range(DIM // 2):
        angles = table[:, pair].angle().tolist()
        both = torch.cat([q, k], 1)[..., 2 * pair : 2 * pair + 2]
        torch.testing.assert_close(both, rotated(qkv[:, :-KV_HEADS], angles, pair))
    torch.testing.assert_close(v, qkv[:, -KV_HEADS:], rtol=0, atol=0)


def test_norm_comes_after_rope_per_head_and_leaves_v() -> None:
    qkv = random_qkv()
    q, k, v = run(qkv, rope_TF=rope_table(), norm_eps=1e-5)
    plain_q, plain_k, _ = run(qkv, rope_TF=rope_table())
    for normed, plain in ((q, plain_q), (k, plain_k)):
        expected = torch.nn.functional.rms_norm(plain, (DIM,), eps=1e-5)
        torch.testing.assert_close(normed, expected)
    torch.testing.assert_close(v, qkv[:, -KV_HEADS:], rtol=0, atol=0)


def test_temperature_scales_q_alone() -> None:
    qkv, scale = random_qkv(), torch.linspace(1, 2, TOKENS)
    q, k, _ = run(qkv, temperature_T=scale)
    torch.testing.assert_close(q, qkv[:, :HEADS] * scale[:, None, None])
    torch.testing.assert_close(k, qkv[:, HEADS:-KV_HEADS], rtol=0, atol=0)


def test_rms_norm_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(7, 123, generator=generator), torch.rand(123, generator=generator)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    torch.testing.assert_close(kernels.add_rms_norm(x, (), weight, 1e-5)[1], expected.float())
    low = kernels.add_rms_norm(x.bfloat16(), (), weight, 1e-5)[1]
    torch.testing.assert_close(low, expected.bfloat16(), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("cache", [torch.float32, torch.bfloat16, torch.float16])
def test_everything_at_once_equals_the_reference(cache: torch.dtype) -> None:
    qkv, scale = random_qkv(), torch.linspace(1, 2, TOKENS)
    outputs = []
    for epilogue in (kernels.qkv_epilogue, reference.qkv_epilogue):
        k, v = (torch.zeros(4, 3, KV_HEADS, DIM, dtype=cache) for _ in range(2))
        slots = torch.arange(TOKENS) * 2 + 1
        q = epilogue(qkv, k, v, slots, rope_TF=rope_table(), norm_eps=1e-5, temperature_T=scale)
        outputs.append((q, k, v))
    (q, k, v), (expected_q, expected_k, expected_v) = outputs
    torch.testing.assert_close(q, expected_q)
    torch.testing.assert_close(k, expected_k)
    assert v.equal(expected_v)  # only rounded, the same way


def test_values_are_rounded_as_pytorch_does() -> None:
    edges = [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40, 3.4e38, float("inf"), float("nan")]
    qkv = torch.zeros(1, 3, 10)
    qkv[0, 2, : len(edges)] = torch.tensor(edges)
    k, v = (torch.zeros(1, 1, 1, 10, dtype=torch.bfloat16) for _ in range(2))
    kernels.qkv_epilogue(
        qkv, k, v, torch.tensor([0]), rope_TF=None, norm_eps=None, temperature_T=None
    )
    torch.testing.assert_close(v.flatten(), qkv[0, 2].bfloat16(), rtol=0, atol=0, equal_nan=True)
