from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu import epilogue as module
from caravan_kernels.gpu.epilogue import qkv_epilogue
from poison import amid_nan, poison_new_tensors
from triton_device import DEVICE, DTYPES

NAN = float("nan")
SHAPES = [(5, 1, 16), (10, 2, 88), (4, 4, 128), (40, 8, 8)]  # q heads, kv heads, head dim
BLOCK_LEN = 3


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


@dataclass
class Inputs:
    """Of one call; slots leave gaps, and every third token is written nowhere."""

    qkv: Tensor
    rope: Tensor
    temperature: Tensor
    slots: Tensor
    num_kv_heads: int

    def pages(self, dtype: torch.dtype | None = None) -> Pages:
        """Empty ones."""
        return Pages(int(self.slots.max()) // BLOCK_LEN + 2, self, dtype or self.qkv.dtype)


class Pages:
    """k and v as they lie in arenas of pages, among other layers, each its own way; all NaN."""

    def __init__(self, num_pages: int, inputs: Inputs, dtype: torch.dtype) -> None:
        token = (inputs.num_kv_heads, inputs.qkv.shape[2])
        shapes = [(num_pages, 2, 2, BLOCK_LEN, *token), (num_pages + 1, BLOCK_LEN, 3, *token)]
        self._arenas = [torch.full(shape, NAN, dtype=dtype, device=DEVICE) for shape in shapes]
        self.k, self.v = self._arenas[0][:, 1, 0], self._arenas[1][1:, :, 1]
        assert self.k.stride() != self.v.stride()

    def written(self, slots: Tensor) -> list[Tensor]:
        """What is at the slots, of k and of v; all the rest is as it was."""
        kept = slots[slots >= 0]
        found = [x.flatten(0, 1)[kept] for x in (self.k, self.v)]
        for arena, x in zip(self._arenas, found, strict=True):
            assert arena.isnan().logical_not().sum() == x.numel()
        return found


def random_inputs(
    tokens: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> Inputs:
    heads, num_kv_heads, dim = shape
    generator = torch.Generator().manual_seed(dim)
    qkv = torch.randn(tokens, heads + 2 * num_kv_heads, dim, generator=generator)
    angles = torch.rand(tokens, dim // 2, generator=generator) * 6.3
    slots = torch.randperm(2 * tokens, generator=generator)[:tokens] + 1
    slots[2::3] = -1
    return Inputs(
        qkv=amid_nan(qkv.to(DEVICE, dtype)),
        rope=torch.polar(torch.ones_like(angles), angles).to(DEVICE),
        temperature=(1 + torch.rand(tokens, generator=generator)).to(DEVICE),
        slots=slots.to(DEVICE),
        num_kv_heads=num_kv_heads,
    )


@dataclass(frozen=True)
class Steps:
    """Which of the steps are done."""

    rope: bool
    norm: bool
    temperature: bool


CHUNKED, FULL = Steps(True, True, False), Steps(False, False, True)
ALL_STEPS = [CHUNKED, FULL, Steps(True, False, False), Steps(True, True, True)]
ALL_STEPS += [Steps(False, True, False), Steps(False, False, False)]


def exactly(inputs: Inputs, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of every token, in fp64 from the definition."""
    x = inputs.qkv.double()
    split = len(x[0]) - inputs.num_kv_heads
    qk, v = x[:, :split], x[:, split:]
    if steps.rope:
        pairs = torch.view_as_complex(qk.unflatten(-1, (-1, 2)).contiguous())
        turned = pairs * inputs.rope.to(torch.complex128)[:, None]
        qk = torch.view_as_real(turned).flatten(-2)
    if steps.norm:
        qk = qk / (qk.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    q, k = qk[:, : -inputs.num_kv_heads], qk[:, -inputs.num_kv_heads :]
    if steps.temperature:
        q = q * inputs.temperature.double()[:, None, None]
    return q, k, v


def call(inputs: Inputs, pages: Pages, steps: Steps) -> Tensor:
    return qkv_epilogue(
        inputs.qkv,
        pages.k,
        pages.v,
        inputs.slots,
        rope_TF=inputs.rope if steps.rope else None,
        norm_eps=1e-5 if steps.norm else None,
        temperature_T=inputs.temperature if steps.temperature else None,
    )


def in_pytorch(inputs: Inputs, steps: Steps) -> tuple[Tensor, Tensor]:
    """q, and k at the slots, of the reference; it wants pages that lie side by side."""
    k, v = (x.contiguous() for x in (inputs.pages().k, inputs.pages().v))
    q = reference.qkv_epilogue(
        inputs.qkv,
        k,
        v,
        inputs.slots,
        rope_TF=inputs.rope if steps.rope else None,
        norm_eps=1e-5 if steps.norm else None,
        temperature_T=inputs.temperature if steps.temperature else None,
    )
    return q, k.flatten(0, 1)[inputs.slots[inputs.slots >= 0]]


def check(inputs: Inputs, steps: Steps) -> None:
    pages = inputs.pages()
    q = call(inputs, pages, steps)
    k, v = pages.written(inputs.slots)
    same_q, same_k = in_pytorch(inputs, steps)
    exact_q, exact_k, exact_v = exactly(inputs, steps)
    kept = inputs.slots >= 0
    assert q.dtype == inputs.qkv.dtype
    assert q.is_contiguous()
    assert_as_exact(q, same_q, exact_q)
    assert_as_exact(k, same_k, exact_k[kept])
    assert torch.equal(v.double(), exact_v[kept])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [CHUNKED, FULL], ids=["chunked", "full"])
def test_layers_of_the_model(steps: Steps, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(random_inputs(4, shape, dtype), steps)


@pytest.mark.parametrize("steps", ALL_STEPS, ids=str)
def test_every_step_can_be_left_out(steps: Steps) -> None:
    check(random_inputs(3, (3, 2, 10)), steps)


@pytest.mark.parametrize("heads_per_program", [1, 2, 4, 16])
def test_blocks_of_heads_may_mix_kinds(
    heads_per_program: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = {"HEADS": heads_per_program, "num_warps": 1}
    monkeypatch.setattr(module, "launch_parameters", lambda kernel, **sizes: launch)
    for steps in (CHUNKED, FULL):
        check(random_inputs(3, (5, 2, 16)), steps)


@pytest.mark.parametrize("tokens", [1, 65])
def test_every_rule_of_the_launch_parameters(tokens: int) -> None:
    check(random_inputs(tokens, (5, 1, 8)), CHUNKED)
    check(random_inputs(tokens, (10, 2, 8)), CHUNKED)


def test_k_comes_rounded_once() -> None:
    """The reference rounds after RoPE, too; and the cache's dtype may be another."""
    inputs = random_inputs(4, (5, 1, 16), torch.float16)
    pages = inputs.pages(torch.float32)
    call(inputs, pages, CHUNKED)
    k, v = pages.written(inputs.slots)
    _, exact_k, exact_v = exactly(inputs, CHUNKED)
    kept = inputs.slots >= 0
    torch.testing.assert_close(k, exact_k[kept].float())
    assert torch.equal(v, exact_v[kept].float())


def test_a_slot_far_into_the_arena() -> None:
    """Further than 2^31 elements from its beginning; the memory between is never touched."""
    num_kv_heads, dim, block_len = 1, 8, 4
    stride = 2**27
    arena = torch.empty(21 * stride, dtype=torch.float16, device=DEVICE)
    k = arena.as_strided((21, block_len, num_kv_heads, dim), (stride, dim, dim, 1))
    v = arena.as_strided((21, block_len, num_kv_heads, dim), (stride, dim, dim, 1), 64)
    inputs = random_inputs(1, (1, 1, dim), torch.float16)
    slots = torch.tensor([20 * block_len + 3], device=DEVICE)
    qkv_epilogue(inputs.qkv, k, v, slots, rope_TF=None, norm_eps=None, temperature_T=None)
    assert torch.equal(k[20, 3, 0], inputs.qkv[0, 1])
    assert torch.equal(v[20, 3, 0], inputs.qkv[0, 2])


def test_no_tokens() -> None:
    inputs = random_inputs(1, (5, 1, 16))
    none = Inputs(inputs.qkv[:0], inputs.rope[:0], inputs.temperature[:0], inputs.slots[:0], 1)
    pages = inputs.pages()
    assert call(none, pages, Steps(True, True, True)).shape == (0, 5, 16)
    assert pages.k.isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 64, 5000])
@pytest.mark.parametrize("shape", [(40, 8, 128), (5, 1, 128)])
@pytest.mark.parametrize("steps", [CHUNKED, FULL], ids=["chunked", "full"])
def test_the_real_size(
    steps: Steps, shape: tuple[int, int, int], tokens: int, dtype: torch.dtype
) -> None:
    check(random_inputs(tokens, shape, dtype), steps)
