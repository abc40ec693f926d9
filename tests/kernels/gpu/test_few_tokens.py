from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu.few_tokens import few_tokens
from poison import amid_nan, poison_new_tensors, rows_amid_nan
from triton_device import DEVICE, DTYPES

LAUNCHES: dict[str, dict[str, Any]] = {
    "few tokens": {"kernel": "few_tokens", "BLOCK_N": 16, "BLOCK_K": 32},
    "one token": {"kernel": "one_token", "BLOCK_N": 8, "BLOCK_K": 32},
}
# tokens, experts, inputs, outputs: whole and broken blocks of each
SHAPES = [(1, 16, 64, 32), (3, 3, 40, 17), (9, 128, 37, 5), (17, 5, 32, 16)]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


@pytest.fixture(params=LAUNCHES)
def launch(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**LAUNCHES[request.param], "num_warps": 4, "num_stages": 2}


def random(tokens: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens + len(shape))
    return torch.randn(shape, generator=generator)


def expected(x: Tensor, weight: Tensor, parts: int, logits: Tensor | None) -> Tensor:
    """Token by token, from the specification of each step."""
    layer = reference.swiglu_linear if parts == 2 else reference.linear
    if logits is None:
        return layer(x, weight[0])
    expert, score = reference.moe_route(logits)
    if parts == 2:
        x = (x * score[:, None]).type_as(x)
    return torch.cat([layer(x[t : t + 1], weight[expert[t]]) for t in range(len(x))])


def check(
    launch: dict[str, Any], x: Tensor, weight: Tensor, *, parts: int, logits: Tensor | None
) -> None:
    out = few_tokens(x, weight, launch, parts=parts, logits_TE=logits)
    assert out.dtype == x.dtype
    exact = expected(x.double(), weight, parts, None if logits is None else logits.double())
    assert_as_exact(out, expected(x, weight, parts, logits), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_experts(
    launch: dict[str, Any], shape: tuple[int, int, int, int], parts: int, dtype: torch.dtype
) -> None:
    tokens, experts, inputs, outputs = shape
    logits = rows_amid_nan(random(tokens, tokens, experts).to(DEVICE, dtype))
    weight = random(tokens, experts, parts * outputs, inputs)
    hit = set(logits.max(-1).indices.tolist())
    weight[[e for e in range(experts) if e not in hit]] = float("nan")
    x = rows_amid_nan(random(tokens, tokens, inputs).to(DEVICE, dtype))
    check(launch, x, amid_nan(weight.to(DEVICE, dtype)), parts=parts, logits=logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(1, 64, 32), (5, 33, 7), (17, 96, 20)])
def test_a_dense_layer(
    launch: dict[str, Any], tokens: int, inputs: int, outputs: int, parts: int, dtype: torch.dtype
) -> None:
    x = rows_amid_nan(random(tokens, tokens, inputs).to(DEVICE, dtype))
    weight = amid_nan(random(tokens, 1, parts * outputs, inputs).to(DEVICE, dtype))
    check(launch, x, weight, parts=parts, logits=None)


def test_a_block_may_be_one_row() -> None:
    launch = {**LAUNCHES["one token"], "BLOCK_N": 1, "num_warps": 4, "num_stages": 2}
    x = random(2, 2, 40).to(DEVICE)
    for parts in (1, 2):
        check(launch, x, amid_nan(random(2, 1, 3 * parts, 40).to(DEVICE)), parts=parts, logits=None)


def test_all_tokens_may_have_one_expert(launch: dict[str, Any]) -> None:
    logits = torch.zeros(12, 4, device=DEVICE)
    logits[:, 3] = 1.0
    weight = torch.full((4, 20, 24), float("nan"))
    weight[3] = random(12, 20, 24)
    x = random(12, 12, 24).to(DEVICE)
    check(launch, x, weight.to(DEVICE), parts=2, logits=logits)


def test_a_logit_that_is_no_number_spoils_its_token_only(launch: dict[str, Any]) -> None:
    logits = random(6, 6, 5).to(DEVICE)
    weight = amid_nan(random(6, 5, 20, 24).to(DEVICE))
    x = random(6, 6, 24).to(DEVICE)
    whole = few_tokens(x, weight, launch, parts=2, logits_TE=logits)
    logits[2] = float("nan")
    out = few_tokens(x, weight, launch, parts=2, logits_TE=logits)
    assert out[2].isnan().all()
    kept = [0, 1, 3, 4, 5]
    torch.testing.assert_close(out[kept], whole[kept])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 8, 9, 32])
@pytest.mark.parametrize(
    ("kernel", "block_n", "block_k", "num_warps", "num_stages"),
    [
        ("one_token", 4, 512, 4, 4),
        ("one_token", 16, 512, 4, 4),
        ("few_tokens", 8, 256, 1, 4),
        ("few_tokens", 16, 256, 2, 4),
        ("few_tokens", 32, 128, 4, 4),
        ("few_tokens", 64, 64, 4, 5),
        ("few_tokens", 64, 128, 8, 3),
    ],
)
def test_real_sizes(
    kernel: str,
    block_n: int,
    block_k: int,
    num_warps: int,
    num_stages: int,
    tokens: int,
    parts: int,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator(DEVICE).manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=DEVICE, dtype=dtype)

    launch = {"kernel": kernel, "BLOCK_N": block_n, "BLOCK_K": block_k}
    launch |= {"num_warps": num_warps, "num_stages": num_stages}
    x, weight = normal(tokens, 5120), normal(4, parts * 1000, 5120).mul_(0.02)
    check(launch, x, weight, parts=parts, logits=normal(tokens, 4))
